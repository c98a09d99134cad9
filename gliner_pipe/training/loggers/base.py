"""What a training logger is."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.util.console import console_note

#: What the name ``default`` stands for; the plot only where matplotlib is installed.
DEFAULT_LOGGERS = ("rich", "jsonl", "csv", "plot")

#: Trackers of accelerate that have no name among the loggers of their own.
OTHER_TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "swanlab")


@dataclass(frozen=True)
class RunInfo:
    """What a logger is told when a training starts.

    Parameters
    ----------
    max_steps
        Number of the last step.
    folder
        Where log files go: the folder in which the models are saved.
    config
        Text of ``train_config.cfg``, secrets redacted; empty if the training was started from Python without one.
    versions
        Versions of the packages that matter.
    name
        Name of the run, for trackers; None if it was given none.
    resumed_step
        Last step of the training that is resumed: logs keep what they have up to it and go on from there. 0
        for a training from the beginning.
    """

    max_steps: int
    folder: Path
    config: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    resumed_step: int = 0


@runtime_checkable
class TrainingLogger(Protocol):
    """Takes note of a training. Only the main process calls it.

    A ``step`` record holds ``step``, ``loss``, ``grad_norm``, ``lr`` (by group), ``parts`` (of the loss),
    ``words``, ``docs`` and ``words_per_second``. A ``validation`` record holds ``step``, ``loss`` (mean since
    the last validation), ``lr``, ``words_per_second``, ``scores`` (nested), and ``best``, whether the scores
    are the best so far.
    """

    def start(self, run: RunInfo) -> None:
        """Begin; called once, after the data were read and the weights made."""

    def step(self, record: Mapping[str, Any]) -> None:
        """Take note of a step."""

    def validation(self, record: Mapping[str, Any]) -> None:
        """Take note of a validation."""

    def finish(self) -> None:
        """End; called once after ``start``, also when the training fails."""


@runtime_checkable
class Checked(Protocol):
    """A logger that can tell early, before any data are read, that it will not work."""

    def check(self) -> None:
        """Raise a ConfigError if a package is missing."""


def flatten(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("scores.ner.micro.f", 0.5)`` and the like for the values of a nested record."""
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a nested record by flat name; what is no number (None, yes or no, text) is left out."""
    return {
        name: value.item() if hasattr(value, "item") else value
        for name, value in flatten(record)
        if isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    }


def is_installed(package: str) -> bool:
    """Tell whether a package can be imported, without importing it."""
    if package in sys.modules:  # None there keeps it from being imported
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


def missing_package(where: str, package: str, extra: str) -> ConfigError:
    """Return the error about an optional package that is not installed."""
    return ConfigError(
        where,
        f"needs the package {package}, which is not installed",
        do=f'pip install "gliner_pipe[{extra}]"',
    )


def make_loggers(
    loggers: Sequence[Any] | Mapping[str, Any] | str | None, note: Callable[[str], None] = console_note
) -> list[TrainingLogger]:
    """Return the loggers that the option `loggers` of a training stands for.

    Parameters
    ----------
    loggers
        Names and blocks, e.g. ``["rich", "jsonl"]``, or blocks by any name; None for no logger. The name
        ``default`` stands for `DEFAULT_LOGGERS`, ``none`` for nothing, and the names of accelerate's trackers
        (``aim``, ``comet_ml``, ...) for these. A logger that is named twice is made once.
    note
        Takes a line for the user: a default logger whose package is missing is left out with a note, one that
        was named is an error.

    Raises
    ------
    ConfigError
        If a name is unknown, an object is no logger, or a package is missing.
    """
    if loggers is None:
        return []
    if isinstance(loggers, str):
        loggers = [loggers]
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
        if isinstance(logger, Checked):
            logger.check()
    return made


def _defaults(note: Callable[[str], None]) -> list[str]:
    if is_installed("matplotlib"):
        return list(DEFAULT_LOGGERS)
    note('note: there will be no train_plot.png: pip install "gliner_pipe[plot]" for one')
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
            raise ConfigError("train.loggers", f"names {item!r}", names)
    if isinstance(item, TrainingLogger):
        return item
    raise ConfigError(
        "train.loggers",
        f"holds {item!r} ({type(item).__name__})",
        f"names ({names}) or objects with the methods start, step, validation and finish",
    )
