"""The options of a training: other spellings, and checks made before anything is loaded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gliner_pipe.errors import ConfigError

MIXED_PRECISIONS = ("no", "fp16", "bf16")


def translate(extra: Mapping[str, Any], known: list[str], note: Callable[[str], None]) -> dict[str, Any]:
    """Return options given under the names that EDS-NLP has for them since v0.14, under their names here.

    Parameters
    ----------
    extra
        Options that ``train()`` does not have.
    known
        Those that it has.
    note
        Takes a line for the user.

    Raises
    ------
    ConfigError
        If an option is unknown under any name.
    """
    options: dict[str, Any] = {}
    for name, value in extra.items():
        if name not in ALIASES:
            close = difflib.get_close_matches(name, [*known, *ALIASES], n=1)
            hint = f"Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"train.{name}", "is no option of train", ", ".join(known), hint)
        new_name, convert = ALIASES[name]
        options[new_name] = convert(value)
        note(f"note: {name} is read as {new_name} = {options[new_name]}")
    return options


def _tokens(value: Any) -> int:
    match = re.fullmatch(r"\s*(\d+)(?:\s*(?:tokens|pieces))?\s*", str(value))
    if match is None:
        raise ConfigError("train.sub_batch_size", f"is {value!r}", 'a number of tokens, e.g. "16000 tokens"')
    return int(match.group(1))


def _model_last(value: Any) -> Path:
    return Path(value) / "model-last"


ALIASES: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "grad_max_norm": ("max_grad_norm", float),
    "output_dir": ("output_path", _model_last),
    "output_model_dir": ("output_path", Path),
    "sub_batch_size": ("grad_accumulation_max_tokens", _tokens),
    "logger": ("loggers", lambda value: value),
}


def check_numbers(options: Mapping[str, Any]) -> None:
    """Check that the numbers among the options of a training can work.

    Raises
    ------
    ConfigError
        About the first that cannot.
    """
    for name in ("max_steps", "patience", "grad_accumulation_max_tokens"):
        value = options[name]
        if value is not None and value < 1:
            raise ConfigError(f"train.{name}", f"is {value}", "a whole number from 1")
    for name in ("validation_interval", "checkpoint_interval"):
        value = options[name]
        # ${train.max_steps//10} is 0 in a short training: that means every step
        if value is not None and value < 0:
            raise ConfigError(f"train.{name}", f"is {value}", "a whole number")
    for name in ("transformer_lr", "task_lr"):
        if not 0 <= options[name] < float("inf"):
            raise ConfigError(f"train.{name}", f"is {options[name]}", "a number from 0, e.g. 5e-5")
    for name in ("weight_decay", "num_workers"):
        if options[name] < 0:
            raise ConfigError(f"train.{name}", f"is {options[name]}", "a number from 0")
    if not 0 <= options["warmup_rate"] <= 1:
        raise ConfigError(
            "train.warmup_rate", f"is {options['warmup_rate']}", "a share of the steps, from 0 to 1"
        )
    norm = options["max_grad_norm"]
    if norm is not None and norm <= 0:
        raise ConfigError("train.max_grad_norm", f"is {norm}", "a number above 0, or null not to clip")
    if options["mixed_precision"] not in MIXED_PRECISIONS:
        raise ConfigError(
            "train.mixed_precision", f"is {options['mixed_precision']!r}", ", ".join(MIXED_PRECISIONS)
        )


def intervals(max_steps: int, validation: int | None, checkpoint: int | None) -> tuple[int, int]:
    """Return the steps between two validations and between two savings, both at least 1.

    Parameters
    ----------
    max_steps
        Steps of the training.
    validation
        As given; a tenth of the steps when not given.
    checkpoint
        As given; that of the validation when not given.
    """
    interval = max(1, max_steps // 10 if validation is None else validation)
    return interval, interval if checkpoint is None else max(1, checkpoint)


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
