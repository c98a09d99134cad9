"""The options of ``[train]``: checks before anything is loaded, and epochs converted to steps."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliner_pipe.errors import ConfigError
from gliner_pipe.training.feature_cache import parse_bytes
from gliner_pipe.util.file_lock import LOCK, only_writer

MIXED_PRECISIONS = ("no", "fp16", "bf16")


def check_options(options: Mapping[str, Any]) -> None:
    """Check that the options of a training can work, one by one and together.

    Raises
    ------
    ConfigError
        About the first that cannot.
    """
    for name, (lowest, allowed) in _LEAST.items():
        value = options[name]
        if value is not None and not isinstance(value, str) and not lowest <= value < float("inf"):
            raise ConfigError(f"train.{name}", f"is {value}", allowed)
    for name in ("validation_interval", "checkpoint_interval"):
        if isinstance(options[name], str) and options[name] != "epoch":
            raise ConfigError(f"train.{name}", f"is {options[name]!r}", 'a number of steps, or "epoch"')
    for name in ("max_epochs", "max_grad_norm"):
        if options[name] == 0:
            raise ConfigError(f"train.{name}", f"is {options[name]}", "a number above 0, or null")
    if options["max_steps"] is not None and options["max_epochs"] is not None:
        found = f"is {options['max_epochs']:g}, and max_steps is {options['max_steps']}"
        raise ConfigError("train.max_epochs", found, "one of the two", "Set the other to null")
    if options["warmup_rate"] > 1:
        raise ConfigError(
            "train.warmup_rate", f"is {options['warmup_rate']}", "a share of the steps, from 0 to 1"
        )
    for name in ("ema_decay", "validation_split"):
        value = options[name]
        if value is not None and not 0 < value < 1:
            raise ConfigError(f"train.{name}", f"is {value}", "a number between 0 and 1, or null")
    if options["validation_split"] is not None and options["val_data"] is not None:
        raise ConfigError("train.validation_split", "is set, and there is val_data", "one of the two")
    if isinstance(options["feature_cache"], str):
        parse_bytes(options["feature_cache"])
    if options["mixed_precision"] not in MIXED_PRECISIONS:
        raise ConfigError(
            "train.mixed_precision", f"is {options['mixed_precision']!r}", ", ".join(MIXED_PRECISIONS)
        )
    if options["val_data"] is None and options["validation_split"] is None:
        for name in ("best_metric", "patience", "load_best_model_at_end", "validate_at_start"):
            if options[name] not in (None, False):
                raise ConfigError(
                    f"train.{name}",
                    "is set, but there is no val_data",
                    do="Add [train.val_data], or set validation_split",
                )


_COUNT = (1, "a whole number from 1")
# ${train.max_steps//10} is 0 in a short training: that means every step
_INTERVAL = (0, "a whole number")
_NUMBER = (0, "a number from 0")
#: Least of each number, and what is allowed.
_LEAST: Mapping[str, tuple[int, str]] = {
    **dict.fromkeys(("max_steps", "patience", "grad_accumulation_max_tokens"), _COUNT),
    **dict.fromkeys(("gradient_accumulation_steps", "logging_interval"), _COUNT),
    **dict.fromkeys(("validation_interval", "checkpoint_interval", "save_total_limit"), _INTERVAL),
    **dict.fromkeys(("transformer_lr", "task_lr"), (0, "a number from 0, e.g. 5e-5")),
    **dict.fromkeys(("weight_decay", "task_weight_decay", "num_workers", "start_decay"), _NUMBER),
    **dict.fromkeys(("warmup_rate", "warmup_steps", "patience_threshold", "max_epochs"), _NUMBER),
    "max_grad_norm": (0, "a number above 0, or null not to clip"),
}


def output_paths(output_path: str | Path, best_path: str | Path | None) -> tuple[Path, Path]:
    """Return where the last and the best model go.

    Parameters
    ----------
    output_path
        Folder of the last model.
    best_path
        Folder of the best model; ``model-best`` beside the last one when not given.

    Raises
    ------
    ConfigError
        If both are the same, or one is inside the other.
    """
    last = Path(output_path)
    best = last.with_name("model-best") if best_path is None else Path(best_path)
    one, other = last.resolve(), best.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise ConfigError(
            "train.best_path",
            f"is {best}, with an output_path of {last}",
            "two folders, neither inside the other",
        )
    return last, best


@contextmanager
def only_training(*paths: Path) -> Iterator[None]:
    """Keep other trainings out of the folders in which models, logs and checkpoints are written.

    Of several processes of one training only the first one locks.

    Parameters
    ----------
    paths
        Folders of the models: what is locked are the folders around them.

    Raises
    ------
    DataError
        If another process trains there.
    """
    with ExitStack() as stack:
        if os.environ.get("RANK", "0") == "0":
            for folder in sorted({path.resolve().parent for path in paths}):
                stack.enter_context(only_writer(folder / LOCK))
        yield


#: Steps of a training that says neither ``max_steps`` nor ``max_epochs``.
DEFAULT_STEPS = 2000


@dataclass(frozen=True)
class Plan:
    """The steps of a training.

    Parameters
    ----------
    max_steps
        All of them.
    validation_interval, checkpoint_interval
        Steps between two validations and between two savings, both at least 1.
    """

    max_steps: int
    validation_interval: int
    checkpoint_interval: int

    @classmethod
    def make(cls, options: Mapping[str, Any], steps_per_epoch: Callable[[], int]) -> Plan:
        """Count the steps.

        Parameters
        ----------
        options
            ``max_steps``, ``max_epochs``, ``validation_interval`` and ``checkpoint_interval``, checked.
        steps_per_epoch
            Counts the steps of an epoch; called only where something is given in epochs.
        """
        if options["max_epochs"] is not None:
            max_steps = max(1, math.ceil(options["max_epochs"] * steps_per_epoch()))
        else:
            max_steps = options["max_steps"] or DEFAULT_STEPS

        def steps(value: int | str | None, default: int) -> int:
            if isinstance(value, str):
                value = steps_per_epoch()
            return max(1, default if value is None else value)

        validation = steps(options["validation_interval"], max_steps // 10)
        return cls(max_steps, validation, steps(options["checkpoint_interval"], validation))
