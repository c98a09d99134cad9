"""Train a pipeline on the predictions of another one: ``python -m gliner_pipe.distill --help``."""

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("distill")

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, get_type_hints

from confit import Config
from pydantic import TypeAdapter, ValidationError
from spacy.language import Language
from spacy.training import Example

from gliner_pipe.cli.commands import COMMANDS
from gliner_pipe.cli.config_cli import ConfigCli
from gliner_pipe.cli.options import command_line
from gliner_pipe.data.holdout import hold_out
from gliner_pipe.data.token_targets import SPANS
from gliner_pipe.distillation.annotate import Annotated, annotate
from gliner_pipe.distillation.measure import scores, speeds
from gliner_pipe.distillation.warm_start import warm_start as warm_start_tagger
from gliner_pipe.distillation.warm_start import why_not
from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import gold_span_getter
from gliner_pipe.evaluation.report import percent
from gliner_pipe.migration import translate
from gliner_pipe.pipeline.build import pipeline_of
from gliner_pipe.pipeline.config_errors import allowed_values
from gliner_pipe.pipeline.labels import split_labels
from gliner_pipe.pipeline.overrides import gliner_components, override, tagging_components
from gliner_pipe.prediction.texts import TextItem, read_texts
from gliner_pipe.registry import registry
from gliner_pipe.train import train as train_pipeline
from gliner_pipe.training.arguments import TrainOptions
from gliner_pipe.training.data_sections import ValidationData
from gliner_pipe.training.run_folder import RunFolder, checkpoint_to_resume, only_training
from gliner_pipe.util.atomic import write_json
from gliner_pipe.util.console import console_note
from gliner_pipe.util.plurals import number_of
from gliner_pipe.util.ranges import Amount, Rate, Share

app = ConfigCli()

#: Name of the report that is written beside the models.
FILE_NAME = "distillation.json"
#: The section ``[distill]`` of a config without one.
_DEFAULTS = Config.from_str("[distill]\ntrain = ${train}\n")


@dataclass
class Distilled:
    """A student and its comparison with the teacher.

    Attributes
    ----------
    nlp
        The student.
    texts, words, entities
        Numbers of annotated texts, of words in them (tokens of the student), and of entities by label.
    dropped
        Numbers of dropped texts and entities, by reason.
    warm_start
        Why the student has no warm start; empty if it has.
    held_out
        Number of held-out texts.
    agreement
        Exact span scores of the student on the held-out texts, with the teacher's spans as gold: a row for each label,
        ``micro`` and ``macro``.
    speed
        Words a second of ``teacher`` and ``student``, and their ``ratio``.
    gold
        Scores of ``teacher`` and ``student`` on the gold data, if there are any.
    """

    nlp: Language
    texts: int
    words: int
    entities: dict[str, int]
    dropped: dict[str, int]
    warm_start: str
    held_out: int
    agreement: dict[str, Any] = field(default_factory=dict)
    speed: dict[str, float] = field(default_factory=dict)
    gold: dict[str, Any] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        """Return everything but the pipeline as plain data."""
        return {name: value for name, value in vars(self).items() if name != "nlp"}

    def lines(self) -> list[str]:
        """Return the report as lines of text."""
        found = (
            f"{number_of(sum(self.entities.values()), 'entity')} of {number_of(len(self.entities), 'label')}"
        )
        lines = [
            f"annotated by the teacher: {number_of(self.texts, 'text')}, {number_of(self.words, 'word')}, {found}"
        ]
        lines += [f"  dropped, {what}: {number}" for what, number in self.dropped.items()]
        started = f"no, because {self.warm_start}" if self.warm_start else "yes"
        lines.append(f"warm start with the teacher's weights: {started}")
        if self.agreement:
            lines.append(
                f"agreement with the teacher on {number_of(self.held_out, 'held-out text')}: {_row(self.agreement)}"
            )
        for name, rows in self.gold.items():
            lines.append(f"{name} on the gold data: {_row(rows)}")
        if self.speed:
            lines.append(
                f"speed: teacher {self.speed['teacher']:.0f} words/s, student {self.speed['student']:.0f} words/s: "
                f"{self.speed['ratio']:.2f} times as fast"
            )
        return lines


def _row(rows: Mapping[str, Any]) -> str:
    micro = rows["micro"]
    if micro["f"] is None:
        return "undefined"
    return ", ".join(f"{name} {percent(micro[key])}" for name, key in (("P", "p"), ("R", "r"), ("F1", "f")))


def distill(
    nlp: Any,
    teacher: Any,
    texts: Any,
    *,
    labels: str | Sequence[Any] | None = None,
    threshold: Share | None = None,
    lines: bool | None = None,
    limit: Amount | None = None,
    held_out: Rate = 0.1,
    dev: Any = None,
    warm_start: bool | Literal["auto"] = "auto",
    trust_remote_code: bool = False,
    **options: Any,
) -> Distilled:
    """Train a student pipeline on the predictions of a teacher pipeline.

    Parameters
    ----------
    nlp
        The student: as for :func:`gliner_pipe.train.train`.
    teacher
        Any pipeline that sets ``doc.spans`` or ``doc.ents``: its path, package name or hub id, or the pipeline.
    texts
        A file of texts, one a line; a ``.jsonl`` file of objects with a ``text``; a folder of ``.txt`` files; ``-`` for
        standard input; or, in Python, texts.
    labels
        Labels that the teacher predicts instead of its own, as in :func:`gliner_pipe.predict.predict`.
    threshold
        Minimum score of the teacher's entities, from 0 to 1; the teacher's own threshold by default.
    lines
        Whether each line of a text file is a text; true for a file and false for the files of a folder by default.
    limit
        Maximum number of texts to read.
    held_out
        Share of the texts for validation and for measuring agreement and speed; 0 for none.
    dev
        Gold data for the validation instead, in any form of ``val_data``.
    warm_start
        Whether a ``token_classifier`` starts with the teacher's backbone and with a decoder fitted to the teacher's
        annotations, see :func:`gliner_pipe.distillation.warm_start.warm_start`; ``"auto"`` if the backbones are the
        same.
    trust_remote_code
        Consent to run Python code that comes with the models of both pipelines.
    options
        Options of :func:`gliner_pipe.train.train`; ``train_data`` without a reader.

    Returns
    -------
    Distilled
        The student after the last step, and the report, which is also written beside the models.

    Raises
    ------
    ConfigError
        If an option is invalid.
    DataError
        If there are no texts, or no entities in them.
    """
    own = {"labels": labels, "threshold": threshold, "lines": lines, "limit": limit}
    for name, value in own.items():
        hint = get_type_hints(distill, include_extras=True)[name]
        try:
            TypeAdapter(hint).validate_python(value)
        except ValidationError:
            raise ConfigError(f"distill.{name}", f"is {value!r}", allowed_values(hint)) from None
    given = _check(options, held_out, warm_start)
    student = pipeline_of(nlp, trust_remote_code, "train.nlp")
    teacher = pipeline_of(teacher, trust_remote_code, "distill.teacher")
    _check_student(student)
    folder = RunFolder.of(given["output_path"], given["best_path"])
    with only_training(folder):  # fail before the teacher annotates
        checkpoint_to_resume(folder, given["resume_from_checkpoint"], given["overwrite"])
        silver = _annotate(teacher, student, texts, labels, threshold, lines=lines, limit=limit)
        learned: list[Example] = silver.examples
        kept: list[Example] = []
        if held_out:
            seed = options.get("data_seed")
            seed = options.get("seed", 42) if seed is None else seed
            rest, kept = hold_out(silver.examples, held_out, seed)
            learned = list(rest)
        with override(teacher, labels=split_labels(labels)):
            reason = _warm(student, teacher, learned, warm_start)
        data = options.pop("train_data", None)
        section = (
            {key: value for key, value in data.items() if key != "reader"}
            if isinstance(data, Mapping)
            else {}
        )
        student = train_pipeline(
            nlp=student,
            train_data={**section, "reader": learned},
            val_data={"reader": kept} if dev is None and kept else dev,
            trust_remote_code=trust_remote_code,
            **options,
        )
        made = Distilled(
            student,
            len(silver.examples),
            silver.words,
            dict(silver.labels.most_common()),
            dict(silver.dropped),
            reason,
            len(kept),
        )
        if os.environ.get("RANK", "0") == "0":
            _measure(made, teacher, kept, dev, labels=split_labels(labels), threshold=threshold)
            _report(made, folder.path)
        return made


def _as_command(function: Any) -> Any:
    """Return the command, which has the options and the help of `distill`, and the section ``[train]``."""
    parameters = {**inspect.signature(distill).parameters, **inspect.signature(function).parameters}
    own = [one for name, one in parameters.items() if name not in ("nlp", "options", "own")]
    function.__signature__ = inspect.Signature([one.replace(kind=one.KEYWORD_ONLY) for one in own])
    function.__annotations__ |= {one.name: one.annotation for one in own}
    head, _, rest = inspect.cleandoc(distill.__doc__ or "").partition("\n")
    made = app.command(
        name="distill",
        registry=registry,
        default_config=_DEFAULTS,
        merge_with_default_config=True,
        help=f"{head}\n\n{inspect.getdoc(function)}\n{rest}",
    )
    return made(function)


@_as_command
def command(train: dict[str, Any], config_meta: dict[str, Any] | None = None, **own: Any) -> Distilled:
    """The config is that of a training: ``[train] nlp`` is the student, and all options of ``[train]`` apply, in the
    file and on the command line, except the data, which the teacher annotates. Options of this command can be set in a
    section ``[distill]``.
    """
    options = {name: value for name, value in train.items() if name != "val_data"}
    trusted = options.pop("trust_remote_code", False)
    own["trust_remote_code"] = own.get("trust_remote_code") or trusted
    return distill(**own, **options, config_meta={**(config_meta or {}), "command": "distill"})


# -- before the training -----------------------------------------------------------------------------------------------


def _check(options: Mapping[str, Any], held_out: Any, warm_start: Any) -> dict[str, Any]:
    """Check the options before the teacher annotates; return them with their defaults, under their own names."""
    parameters = inspect.signature(train_pipeline).parameters
    known = {name: one.default for name, one in parameters.items() if name != "aliases"}
    aliases = {name: value for name, value in options.items() if name not in known}
    given = {**known, **options, **translate(aliases, list(known), lambda _: None)}
    for name, do in (("val_data", "Set dev instead"), ("validation_split", "Set held_out instead")):
        if options.get(name) is not None:
            raise ConfigError(f"train.{name}", "does not apply to a distillation", "null", do)
    number = isinstance(held_out, (int, float)) and not isinstance(held_out, bool)
    if not number or not 0 <= held_out < 1:
        raise ConfigError("distill.held_out", f"is {held_out!r}", "a share, from 0 to below 1")
    if warm_start not in (True, False, "auto"):
        raise ConfigError("distill.warm_start", f"is {warm_start!r}", "true, false, auto")
    TrainOptions.typed({name: given[name] for name in TrainOptions.model_fields})
    return given


def _check_student(student: Language) -> None:
    for component in tagging_components(student):
        if component.target != SPANS:
            raise ConfigError(
                f"components.{component.name}.target",
                f"is {component.target!r}, but a teacher predicts spans",
                f'"{SPANS}"',
            )


def _annotate(
    teacher: Language, student: Language, texts: Any, labels: Any, threshold: float | None, **reading: Any
) -> Annotated:
    with override(teacher, labels=split_labels(labels), threshold=threshold):
        components = gliner_components(teacher)
        known = list(components[0].labels) if len(components) == 1 else []
        if components and not any(one.labels for one in components):
            raise ConfigError(
                "distill.labels", "are not set, and the teacher has no labels", "at least one label"
            )
        return annotate(teacher, student, _items(texts, **reading), gold_span_getter(student), known)


def _items(texts: Any, lines: bool | None, limit: int | None) -> Iterable[TextItem]:
    if isinstance(texts, (str, Path)):
        items: Iterable[TextItem] = read_texts(
            texts, lines=not Path(texts).is_dir() if lines is None else lines
        )
    elif isinstance(texts, Iterable):
        items = (TextItem.of(one, number) for number, one in enumerate(texts, 1))
    else:
        raise ConfigError("distill.texts", f"is {texts!r}", "a file or folder of texts, or a list of texts")
    return islice(items, None if limit is None else max(limit, 0))


def _warm(student: Language, teacher: Language, examples: Any, wanted: Any) -> str:
    """Warm-start the student; return why it was not possible, or an empty text."""
    taggers = tagging_components(student)
    if not wanted:
        return "warm_start is false"
    reason = why_not(taggers[0], teacher) if len(taggers) == 1 else "the student is not one token_classifier"
    if not reason:
        warm_start_tagger(taggers[0], teacher, examples)
    elif wanted is True:
        raise ConfigError("distill.warm_start", f"is not possible: {reason}", "false, auto")
    else:
        console_note(f"note: no warm start: {reason}")
    return reason


# -- after the training ------------------------------------------------------------------------------------------------


def _measure(made: Distilled, teacher: Language, kept: Any, dev: Any, **overrides: Any) -> None:
    with override(teacher, **overrides):
        if kept:
            made.agreement = scores(made.nlp, kept, made.nlp)
            made.speed = speeds(teacher, made.nlp, [example.reference.text for example in kept])
        if dev is not None:
            sections = ValidationData.validate(dev) or []
            gold = [one for section in sections for one in section.read(made.nlp, "distill.dev")]
            for name, nlp in (("teacher", teacher), ("student", made.nlp)):
                made.gold[name] = scores(nlp, gold, made.nlp)


def _report(made: Distilled, folder: Path) -> None:
    write_json(folder / FILE_NAME, made.report())
    for line in [*made.lines(), f"report: {folder / FILE_NAME}"]:
        console_note(line)


# -- command line ------------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; its unknown options are those of ``[train]``."""
    command_line("distill", _run, command, argv)


def _run(arguments: list[str]) -> None:
    if "--config" not in [part.partition("=")[0] for part in arguments]:
        do = f"Write gliner-pipe distill {COMMANDS['distill'].usage}"
        raise ConfigError("config", "is missing", "the config of a training", do)
    app(_with_sections(arguments))


def _with_sections(argv: Sequence[str]) -> list[str]:
    """Return the arguments with ``train.`` before each option of the training, so that references to it work."""
    own = {"config", "help", *inspect.signature(command).parameters}
    result = []
    for part in argv:
        name = part.partition("=")[0].removeprefix("--").replace("-", "_")
        train = part.startswith("--") and "." not in name and name not in own
        result.append(f"--train.{part.removeprefix('--')}" if train else part)
    return result
