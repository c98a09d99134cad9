"""Parsers of option values in the configs of other libraries."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gliner_pipe.errors import ConfigError

#: Takes what stands in a file or an argument, and returns what stands here.
Reader = Callable[[Any], Any]

#: Texts that older files have for "nothing".
NOTHING = ("", "none", "null", "~")
#: An interval that no training reaches: once, after the last step.
NEVER = 1_000_000_000
#: Larger numbers are nothing that can be counted.
_MOST = 10**12


class WrongValue(ValueError):
    """A value that cannot be; becomes a :class:`~gliner_pipe.errors.ConfigError` once it is known where it stands.

    Parameters
    ----------
    found
        What stands there.
    allowed
        What may stand there.
    do
        What to do about it.
    """

    def __init__(self, found: str, allowed: str = "", do: str = "") -> None:
        self.found, self.allowed, self.do = found, allowed, do
        super().__init__(found)

    def at(self, where: str) -> ConfigError:
        """Return the error for users."""
        return ConfigError(where, self.found, self.allowed, self.do)


def wrong(value: Any, allowed: str, do: str = "") -> WrongValue:
    """Return the error about `value`, with its type where a look at it does not tell."""
    kind = "" if value is None or isinstance(value, (str, bool)) else f" ({type(value).__name__})"
    text = repr(value)
    return WrongValue(f"is {text if len(text) <= 80 else text[:77] + '...'}{kind}", allowed, do)


def is_nothing(value: Any) -> bool:
    """Tell whether a value says that nothing is set."""
    return value is None or (isinstance(value, str) and value.strip().lower() in NOTHING)


def anything(value: Any) -> Any:
    """Return the value as it is."""
    return value


def number(least: float = 0, most: float = math.inf, *, above: bool = False) -> Reader:
    """Return the reader of a number from `least` to `most`; ``"1e-5"``, which YAML takes for a text, is one.

    Parameters
    ----------
    least, most
        Bounds, inclusive.
    above
        Whether `least` itself is out of bounds.
    """
    allowed = f"a number {'above' if above else 'from'} {least:g}"
    allowed += "" if most == math.inf else f" to {most:g}"

    def read(value: Any) -> float:
        found = _number(value)
        if found is None or not least <= found <= most or math.isinf(found) or (above and found == least):
            raise wrong(value, f"{allowed}, e.g. 1e-5" if least == 0 and most == math.inf else allowed)
        return found

    return read


def any_number(value: Any) -> float:
    """Return a number, negative ones too."""
    return float(number(-math.inf)(value))


def whole(least: int = 1) -> Reader:
    """Return the reader of a whole number from `least` on; ``"30000"`` and ``3e4`` are such numbers."""

    def read(value: Any) -> int:
        found = _number(value)
        if found is None or not least <= found <= _MOST or found != int(found):
            raise wrong(value, f"a whole number from {least}")
        return int(found)

    return read


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except ValueError:
        return None
    return None if math.isnan(found) else found


def flag(value: Any) -> bool:
    """Return a yes or no."""
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    if not isinstance(value, bool):
        raise wrong(value, "true or false")
    return value


def text(value: Any) -> str:
    """Return a text that is not blank."""
    if not isinstance(value, str) or not value.strip():
        raise wrong(value, "a text")
    return value


def choice(options: Mapping[str, Any] | Sequence[str], *, fold: bool = True) -> Reader:
    """Return the reader of one of several names.

    Parameters
    ----------
    options
        The names, or a mapping from them to what they become.
    fold
        Whether upper and lower case are the same.
    """
    made = dict(options) if isinstance(options, Mapping) else {name: name for name in options}
    folded = {(name.lower() if fold else name): value for name, value in made.items()}

    def read(value: Any) -> Any:
        value = "no" if value is False and "no" in folded else value  # YAML takes a bare no for false
        key = value.strip().lower() if isinstance(value, str) and fold else value
        if not isinstance(key, str) or key not in folded:
            close = get_close_matches(str(key), folded, 1)
            raise wrong(value, ", ".join(made), f"Did you mean {close[0]}?" if close else "")
        return folded[key]

    return read


def texts(value: Any) -> list[str]:
    """Return a list of texts; a single one is a list of one."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not all(isinstance(item, str) and item for item in found):
        raise wrong(value, 'a list of texts such as ["text_encoder"]')
    return list(found)


def shares(value: Any) -> list[float]:
    """Return the lowest and the highest of two shares."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise wrong(value, "two numbers from 0 to 1, e.g. [0.0, 0.3]")
    return [number(0, 1)(item) for item in value]


def samples(value: Any) -> str:
    """Return a batch size in examples."""
    return f"{whole()(value)} samples"


def tokens(value: Any) -> int:
    """Return a number of tokens, written as 16000 or ``"16000 tokens"``."""
    match = re.fullmatch(r"\s*(\d+)(?:\s*(?:tokens|pieces))?\s*", str(value))
    if match is None or int(match.group(1)) < 1:
        raise wrong(value, 'a number of tokens, e.g. "16000 tokens"')
    return int(match.group(1))


def steps_or_endless(value: Any) -> int | None:
    """Return a number of steps; -1 (and 0, as older files have it) says that epochs decide."""
    return None if _number(value) in (-1.0, 0.0) else int(whole()(value))


def interval(value: Any) -> int | float:
    """Return a number of steps, or a share of all of them between 0 and 1."""
    found = _number(value)
    if found is not None and 0 < found < 1:
        return found
    return int(whole()(value))


def warmup(value: Any) -> int | float:
    """Return steps of warm-up, or a share of all steps."""
    found = _number(value)
    if found is not None and 0 < found < 1:
        return found
    return int(whole(0)(value))


def clipping(value: Any) -> float | None:
    """Return the largest norm of gradients; None, not to clip, for 0."""
    found = float(number(0)(value))
    return found or None


def resume(value: Any) -> str | bool:
    """Return the checkpoint to go on from: its folder, or whether to look for the last one."""
    return value if isinstance(value, bool) else text(value)


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
