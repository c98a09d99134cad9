"""Train a tagger with the command line of AutoTrain:
``python -m gliner_pipe.autotrain token-classification --train --model bert-base-cased --data-path FOLDER ...``.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("autotrain")

import sys
from collections.abc import Sequence
from typing import Any

from confit import Config
from spacy.language import Language

from gliner_pipe.cli.app import run
from gliner_pipe.cli.commands import start
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
        The task, then options: ``--data-path FOLDER``, ``--data_path=FOLDER``, ``--push-to-hub``.

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
    while rest:
        option, joined, value = rest.pop(0).partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if not option.startswith("--") or (name not in PARAMETERS and name not in _NOTHING):
            names = [f"--{known.replace('_', '-')}" for known in PARAMETERS]
            raise unknown(option, option, names, ", ".join(names))
        switch = name == "train" or (name in PARAMETERS and PARAMETERS[name].read is flag)
        if not joined and name != "train" and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        elif not joined:
            if not switch:
                raise ConfigError(option, "has no value", do=f"Write {option} VALUE")
            value = "true"
        if name not in _NOTHING:
            given[name] = value.split(",") if name == "tag_names" else value
    if "data_path" not in given:
        raise ConfigError("--data-path", "is missing", "a file, a folder or a data set")
    return TokenClassificationParams(**given)


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
    if not arguments or {"--help", "-h"} & set(arguments):
        start("autotrain", ["--help"])
    run(lambda: train(parse(arguments)), [])
