"""Readers of those training options of GLiNER and transformers that mean more than their value says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gliner_pipe.migration.values import WrongValue, flag, interval, number, text, wrong

#: Experiment trackers by the names that transformers has for them.
TRACKERS = (
    *("tensorboard", "wandb", "mlflow", "trackio"),
    *("aim", "clearml", "comet_ml", "dvclive", "swanlab"),
)
STRATEGIES = ("no", "steps", "epoch")
MASKINGS = ("none", "global", "label", "span")
#: Where a token of the hub may stand.
TOKEN = "A token does not belong in a file. Set the environment variable HF_TOKEN, or log in once with hf auth login"


def trackers(value: Any) -> list[str] | None:
    """Return the trackers that a training reports to."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise wrong(value, f"none, or some of {', '.join(TRACKERS)}")
    made = []
    for name in names:
        if name in ("none", *TRACKERS):
            made += [name] if name != "none" else []
        else:
            raise WrongValue(f"names {name!r}", f"none, {', '.join(TRACKERS)}")
    return made or None


def metric(value: Any) -> str:
    """Return the score that decides which model is the best."""
    names = {"f1": "f", "overall_f1": "f", "f": "f", "precision": "p", "recall": "r"}
    found = str(value).removeprefix("eval_")
    if found in names:
        return f"ner.micro.{names[found]}"
    if isinstance(value, str) and "." in value:
        return value
    allowed = "f1, precision, recall, or a score by its full name as ner.micro.f, ner.macro.f"
    do = "The best model is chosen by what it finds, not by its loss" if found == "loss" else ""
    raise wrong(value, allowed, do)


def placeholder(value: Any) -> None:
    """Refuse a token of the hub; one that is obviously none is passed over."""
    shown = str(value).strip()
    if not (shown.startswith("<") and shown.endswith(">")) and not shown.startswith("$"):
        raise WrongValue("holds a token of the hub", "null", TOKEN)


def greater(value: Any) -> None:
    """Refuse scores of which the lowest is the best."""
    if not flag(value):
        raise wrong(value, "true", "Scores of entities are the better the higher they are")


def model_last(value: Any) -> Path:
    """Return the folder of the last model in an output folder."""
    return Path(text(str(value) if isinstance(value, Path) else value)) / "model-last"


def smoothing(value: Any) -> None:
    """Refuse the smoothing of transformers, which GLiNER's loss does not read."""
    if number()(value):
        raise wrong(value, "0", "GLiNER's own option is label_smoothing")


def logging_steps(value: Any) -> int | float | str:
    """Return steps between two lines of the log; ``"auto"`` for -1."""
    return "auto" if value in (-1, "-1") else interval(value)
