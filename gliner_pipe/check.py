"""Check data before a training: ``python -m gliner_pipe.check --config configs/config.cfg``, or ``--data FILE``."""

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("check")

import inspect
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any, Literal

from gliner_pipe.cli.config_cli import ConfigCli
from gliner_pipe.cli.options import command_line
from gliner_pipe.data.detect import reader_of_path
from gliner_pipe.errors import ConfigError, GlinerPipeError
from gliner_pipe.migration import translate
from gliner_pipe.pipeline.build import blank, pipeline_of
from gliner_pipe.pipeline.labels import parse_labels, split_labels
from gliner_pipe.pipeline.overrides import override
from gliner_pipe.registry import registry
from gliner_pipe.train import NOT_OF_TRAINER, translated
from gliner_pipe.train import train as train_pipeline
from gliner_pipe.training.arguments import TrainOptions
from gliner_pipe.training.data_check import DataCheck, check_data, check_training
from gliner_pipe.training.data_sections import Section, TrainData, ValidationData
from gliner_pipe.util.atomic import write_json
from gliner_pipe.util.console import console_note
from gliner_pipe.util.ranges import Count

app = ConfigCli()


@app.command(name="train", registry=registry, where="")
def check(
    nlp: Any = None,
    train_data: TrainData | None = None,
    val_data: ValidationData | None = None,
    *,
    data: str | None = None,
    reader: str = "auto",
    labels: str | list[Any] | None = None,
    max_width: Count | None = None,
    lang: str = "en",
    format: Literal["text", "json"] = "text",
    output: str | None = None,
    show: bool = True,
    trust_remote_code: bool = False,
    config_meta: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Check annotated data before a training, without training.

    ``--config`` checks the data of a training config with its components: whatever ``gliner_pipe.train`` accepts is
    accepted here. ``--data`` checks a file without a config. The exit code is 1 only if a training could not start.

    Parameters
    ----------
    nlp
        The pipeline, as for ``gliner_pipe.train``; without it, data is checked without a component.
    train_data
        Training data in any form that ``gliner_pipe.train`` accepts.
    val_data
        Validation data, likewise: a path, or a section with a reader.
    data
        File, folder or pattern of training data, in place of `train_data`.
    reader
        Reader of `data`: ``gliner_json``, ``gliner2_json``, ``jsonl``, ``conll``, ``bio``, ``standoff``, ``spacy``, or
        ``auto`` to detect it by file name and content.
    labels
        Labels to learn: ``person,organization``, or a JSON list if a label contains a comma. By default those of the
        component, or all labels of the data.
    max_width
        Maximum number of words of an entity, for data without a component.
    lang
        Language whose tokenizer splits texts, for data without a component.
    format
        ``text`` for 80 columns, or ``json``; ``--json`` is short for ``--format json``.
    output
        JSON file for the report.
    show
        Whether to print the report.
    trust_remote_code
        Consent to run Python code that comes with the models of the pipeline.
    config_meta
        Set by the command line.
    options
        The other options of ``gliner_pipe.train``; those that concern no data have no effect.

    Returns
    -------
    dict[str, Any]
        The report: ``ok``, ``error``, ``warnings``, ``notes``, ``read`` (what the readers counted, by section) and
        ``components``, with counts of labels, texts and entities.

    Raises
    ------
    ConfigError
        If an option is invalid, or labels and data have nothing in common.
    DataError
        If the data cannot be read, or has nothing to learn.
    """
    wanted = split_labels(labels)
    try:
        train: Any = train_data if data is None else [Section(reader_of_path(data, name=reader))]
        if train is None:
            raise ConfigError("data", "is missing", "a file of annotated data", "Set --data, or --config")
        if nlp is None:
            known = [name for name in inspect.signature(train_pipeline).parameters if name != "aliases"]
            others = {name: value for name, value in options.items() if name not in known}
            translate(others, known, lambda _: None)
            names = None if wanted is None else [item.label for item in parse_labels(wanted, "labels")]
            found = check_data(blank(lang), train, val_data, labels=names, max_width=max_width)
        else:
            session = {
                "nlp": pipeline_of(nlp, trust_remote_code, "train.nlp"),
                "train_data": train,
                "val_data": val_data,
            }
            found = _with_components(session, options, wanted)
    except GlinerPipeError as error:
        found = DataCheck(error=error)
    report = found.to_dict()
    if output is not None:
        write_json(output, report)
    if show:
        console_note(json.dumps(report, indent=2, ensure_ascii=False) if format == "json" else found.render())
    if found.error is not None and show and format == "text" and config_meta is not None:
        raise SystemExit(1) from found.error  # on the command line the report has said why
    if found.error is not None:
        raise found.error
    return report


def _with_components(
    session: dict[str, Any], options: dict[str, Any], labels: Sequence[Any] | None
) -> DataCheck:
    """Check the data of a training; `session` has the pipeline and the data, `options` the other options."""
    defaults = {name: one.default for name, one in inspect.signature(train_pipeline).parameters.items()}
    given = {**defaults, **options, **session}
    known = {name: given[name] for name in defaults if name not in NOT_OF_TRAINER}
    aliases = {name: value for name, value in options.items() if name not in defaults}
    notes: list[str] = []
    known = translated(known, aliases, notes.append)
    nlp = known.pop("nlp")
    with override(nlp, labels=labels):
        found = check_training(nlp, TrainOptions.of(known))
    found.notes[:0] = notes
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; ``--config`` reads what ``gliner_pipe.train`` reads."""
    logger = logging.getLogger("gliner_pipe")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the report has what the readers log
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--json" in arguments:
        place = arguments.index("--json")
        arguments[place : place + 1] = ["--format", "json"]
    try:
        command_line("check", app, check, arguments)
    finally:
        logger.setLevel(level)
