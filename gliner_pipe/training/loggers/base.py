"""What a training logger is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry


@dataclass(frozen=True)
class RunInfo:
    """What a logger is told when a training starts.

    Parameters
    ----------
    max_steps
        Number of steps to come.
    folder
        Where log files go: the folder in which the models are saved.
    config
        Text of ``train_config.cfg``; empty if the training was started from Python without one.
    versions
        Versions of the packages that matter.
    """

    max_steps: int
    folder: Path
    config: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)


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


def flatten(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("scores.ner.micro.f", 0.5)`` and the like for the values of a nested record."""
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def make_loggers(loggers: Sequence[Any] | Mapping[str, Any] | str | None) -> list[TrainingLogger]:
    """Return the loggers that the option `loggers` of a training stands for.

    Parameters
    ----------
    loggers
        Names and blocks, e.g. ``["rich", "jsonl"]``, or blocks by any name; None for no logger.
    """
    if loggers is None:
        return []
    if isinstance(loggers, str):
        loggers = [loggers]
    items = list(loggers.values()) if isinstance(loggers, Mapping) else list(loggers)
    return [_make_logger(item) for item in items]


def _make_logger(item: Any) -> TrainingLogger:
    known = sorted(registry.loggers.get_available())
    if isinstance(item, str):
        if item not in known:
            raise ConfigError("train.loggers", f"names {item!r}", ", ".join(known))
        item = registry.loggers.get(item)()
    if isinstance(item, TrainingLogger):
        return item
    raise ConfigError(
        "train.loggers",
        f"holds {item!r} ({type(item).__name__})",
        f"names ({', '.join(known)}) or objects with the methods start, step, validation and finish",
    )
