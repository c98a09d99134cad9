"""Train a tagger with the command line of AutoTrain:
``python -m gliner_pipe.autotrain token-classification --train --model bert-base-cased --data-path FOLDER ...``.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("autotrain")

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from confit import Config
from spacy.language import Language

from gliner_pipe.cli.commands import COMMANDS, start
from gliner_pipe.cli.options import arranged, command_line
from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.autotrain import TASKS, TokenClassificationParams
from gliner_pipe.migration.names import unknown
from gliner_pipe.migration.tables import PARAMETERS
from gliner_pipe.migration.values import flag
from gliner_pipe.registry import registry
from gliner_pipe.train import train as train_pipeline
from gliner_pipe.util.console import console_note

__all__ = ["TokenClassificationParams", "main", "parse", "train"]

#: Options of AutoTrain without effect: this command always trains, on this machine.
_NOTHING = ("train", "backend")


def parse(argv: Sequence[str]) -> TokenClassificationParams:
    """Parse AutoTrain's arguments for token classification.

    Parameters
    ----------
    argv
        The task, the data if it is not the value of an option, then options: ``--data-path FOLDER``,
        ``--data_path=FOLDER``, ``--tag-names O B-A I-A``, ``--push-to-hub``.

    Raises
    ------
    ConfigError
        If the task is not token classification, or an option is unknown, or its value is missing or invalid.
    """
    rest = list(argv)
    if rest and not rest[0].startswith("-"):
        task = rest.pop(0)
        if task not in TASKS:
            raise ConfigError("task", f"is {task!r}", TASKS[0])
    given: dict[str, Any] = {}
    rest = arranged(list(_with_effect(rest)), COMMANDS["autotrain"], ["tag_names"])
    while rest:
        option, joined, value = rest.pop(0).partition("=")
        name = _name(option)
        if not joined and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        elif not joined:
            if PARAMETERS[name].read is not flag:
                raise ConfigError(option, "has no value", do=f"Write {option} VALUE")
            value = "true"
        given[name] = value.split(",") if name == "tag_names" else value
    if "data_path" not in given:
        raise ConfigError("--data-path", "is missing", "a file, a folder or a data set")
    return TokenClassificationParams(**given)


def _with_effect(argv: Sequence[str]) -> Iterator[str]:
    """Yield the arguments without those that have no effect here; an unknown option is an error."""
    rest = list(argv)
    while rest:
        part = rest.pop(0)
        option = part.partition("=")[0]
        if _name(option) in _NOTHING and option.startswith("--"):
            if _name(option) == "backend" and part == option and rest:
                rest.pop(0)
            continue
        if option.startswith("--") and _name(option) not in PARAMETERS:
            names = [f"--{known.replace('_', '-')}" for known in PARAMETERS]
            raise unknown(option, option, names, ", ".join(names))
        yield part


def _name(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def train(params: TokenClassificationParams) -> Language:
    """Train a tagger with AutoTrain's parameters.

    ``AutoModelForTokenClassification.from_pretrained`` loads the folder ``<project_name>``, as after a training by
    AutoTrain. The spaCy pipelines are in its subfolders ``model-last`` and ``model-best``.

    Returns
    -------
    Language
        The pipeline.
    """
    migrated = params.to_config()
    for line in migrated.notes:
        console_note(f"note: {line}")
    options = Config(migrated.config).resolve(registry=registry)["train"]
    trained: Language = train_pipeline(**options, config_meta={"unresolved_config": migrated.config})
    return trained


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        start("autotrain", ["--help"])
    command_line("autotrain", lambda given: train(parse(given)), None, arguments, arranges=False)
