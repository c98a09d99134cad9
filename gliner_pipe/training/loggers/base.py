"""The interface of training loggers, and the option ``loggers``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.util.console import console_note

Shown = TypeVar("Shown")

#: Loggers of the name ``default``; ``plot`` only if matplotlib is installed.
DEFAULT_LOGGERS = ("rich", "jsonl", "csv", "plot")

#: Trackers of accelerate without a registered logger; ``AccelerateLogger`` logs to them.
OTHER_TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "swanlab")


@dataclass(frozen=True)
class RunInfo:
    """The training, for a logger that starts.

    Parameters
    ----------
    max_steps
        Number of the last step.
    folder
        Folder of log files: the folder that contains the models.
    config
        Text of ``train_config.cfg``, secrets redacted.
    versions
        Versions of the main packages.
    name
        Name of the run, for trackers; None without a name.
    resumed_step
        Step of the checkpoint of a resumed training: logs keep their records up to it. 0 for a new training.
    """

    max_steps: int
    folder: Path
    config: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    resumed_step: int = 0


@runtime_checkable
class TrainingLogger(Protocol):
    """Logs a training. Only the main process calls it.

    If it also has a method ``check``, that is called before any data are read; it raises a ConfigError if a package is
    missing.

    A ``step`` record holds ``step``, ``loss``, ``loss_per_example`` (the sum over the number of examples),
    ``grad_norm``, ``lr`` (by group), ``parts`` (of the loss), ``words``, ``docs`` and ``words_per_second``. A
    ``validation`` record holds ``step``, ``loss`` and ``loss_per_example`` (means since the last validation), ``lr``,
    ``words_per_second``, ``scores`` (nested), and ``best``, whether the scores are the best so far.
    """

    def start(self, run: RunInfo) -> None:
        """Start; called once, after the data and the weights are loaded."""

    def step(self, record: Mapping[str, Any]) -> None:
        """Log a step."""

    def validation(self, record: Mapping[str, Any]) -> None:
        """Log a validation."""

    def finish(self) -> None:
        """Finish; called once after ``start``, even if the training fails."""


def flatten(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a nested record with flat names, e.g. ``("scores.ner.micro.f", 0.5)``."""
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a nested record by flat name, without other values (None, booleans, text)."""
    return {
        name: value.item() if hasattr(value, "item") else value
        for name, value in flatten(record)
        if isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    }


def shown_scores(scores: Mapping[str, Shown], ends: Sequence[str] | None) -> dict[str, Shown]:
    """Return the scores to display: those whose names end in `ends`, or else the first three.

    Parameters
    ----------
    scores
        Values by flat name.
    ends
        Name endings, e.g. ``["person.f"]``; micro-averaged precision, recall and F1 when None.
    """
    wanted = ends or ["micro.p", "micro.r", "micro.f"]
    found = {
        name: value
        for name, value in scores.items()
        if any(name == end or name.endswith(f".{end}") for end in wanted)
    }
    return found or dict(list(scores.items())[:3])


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    if package in sys.modules:  # None prevents the import
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


def need_package(where: str, package: str, extra: str = "") -> None:
    """Raise a ConfigError if an optional package is not installed; `extra` installs it, if there is one."""
    if not is_installed(package):
        do = f'pip install "gliner_pipe[{extra}]"' if extra else f"pip install {package}"
        raise ConfigError(where, f"needs the package {package}, which is not installed", do=do)


def make_loggers(
    loggers: Sequence[Any] | Mapping[str, Any] | str | None, note: Callable[[str], None] = console_note
) -> list[TrainingLogger]:
    """Return the loggers for the option `loggers` of a training.

    Parameters
    ----------
    loggers
        Names and blocks, e.g. ``["rich", "jsonl"]``, or blocks by any name; None for no logger. The name
        ``default`` means `DEFAULT_LOGGERS`, ``none`` means no logger, and the names of accelerate's trackers
        (``aim``, ``comet_ml``, ...) mean these. A name that occurs twice gives one logger.
    note
        Prints a line for the user: without matplotlib the default loggers do not include the plot, and a note says
        so. A missing package of a logger that is named is an error.

    Raises
    ------
    ConfigError
        If a name is unknown, an object is no logger, or a package is missing.
    """
    if loggers is None:
        return []
    if isinstance(loggers, str):
        loggers = [loggers]
    if not isinstance(loggers, (Mapping, Sequence)):
        raise ConfigError("train.loggers", f"is {loggers!r}", "a name, a list of names and blocks, or null")
    items = list(loggers.values()) if isinstance(loggers, Mapping) else list(loggers)
    named = {"jsonl" if item == "json" else item for item in items if isinstance(item, str)}
    wanted: list[Any] = []
    for item in items:
        if item == "default":
            wanted += [name for name in _defaults(note) if name not in named]
        elif item != "none":
            wanted.append("jsonl" if item == "json" else item)
    made = [
        _make_logger(item)
        for place, item in enumerate(wanted)
        if not isinstance(item, str) or item not in wanted[:place]
    ]
    for logger in made:
        if hasattr(logger, "check"):
            logger.check()
    return made


def _defaults(note: Callable[[str], None]) -> list[str]:
    if is_installed("matplotlib"):
        return list(DEFAULT_LOGGERS)
    note('note: train_plot.png needs matplotlib: pip install "gliner_pipe[plot]"')
    return [name for name in DEFAULT_LOGGERS if name != "plot"]


def _make_logger(item: Any) -> TrainingLogger:
    known = sorted(registry.loggers.get_available())
    names = ", ".join(["default", "none", *known, *OTHER_TRACKERS])
    if isinstance(item, str):
        if item in known and item != "tracker":
            item = registry.loggers.get(item)()
        elif item in OTHER_TRACKERS:
            item = registry.loggers.get("tracker")(name=item)
        else:
            raise ConfigError("train.loggers", f"contains {item!r}", names)
    if isinstance(item, TrainingLogger):
        return item
    raise ConfigError(
        "train.loggers",
        f"contains {item!r} ({type(item).__name__})",
        f"names ({names}) or objects with the methods start, step, validation and finish",
    )
