"""Readers of option values: each converts a value of another system to ours, or says what is allowed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from gliner_pipe.checkpoints import gliner_names
from gliner_pipe.errors import ConfigError

#: Converts the value of a file or an argument to ours.
Reader = Callable[[Any], Any]

#: An interval that no training reaches: validate or save once, after the last step.
NEVER = 1_000_000_000

#: Schedules of transformers, and ours.
SCHEDULES = {
    **{name: name for name in ("linear", "cosine", "constant", "cosine_with_restarts", "polynomial")},
    "constant_with_warmup": "constant",
    "inverse_sqrt": "inverse_sqrt",
}
#: Optimizers of transformers, and ours.
OPTIMIZERS = {
    **dict.fromkeys(("adamw_torch", "adamw_hf", "adamw_torch_fused", "adamw"), "adamw"),
    "sgd": "sgd",
    "adafactor": "adafactor",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
}
STRATEGIES = ("no", "steps", "epoch")
#: Experiment trackers, as transformers names them.
TRACKERS = (
    *("tensorboard", "wandb", "mlflow", "trackio"),
    *("aim", "clearml", "comet_ml", "dvclive", "swanlab"),
)
SPAN_MODES = (
    *("markerV0", "marker", "markerV1", "markerV2", "query", "mlp", "cat"),
    *("conv_conv", "conv_max", "conv_mean", "conv_sum", "conv_share", "token_level"),
)
RELATION_LAYERS = ("dot", "mlp", "attention", "bilinear", "biaffine", "gcn", "gat", "none")
#: What to do with a token of the hub.
TOKEN = "A token does not belong in a file. Set the environment variable HF_TOKEN, or run hf auth login once"

#: Texts that mean "not set" in older files.
_NOT_SET = ("", "none", "null", "~")
_LARGEST_COUNT = 10**12


class WrongValue(ValueError):
    """A value that is not allowed; becomes a :class:`~gliner_pipe.errors.ConfigError` where its place is known.

    Parameters
    ----------
    found
        The value, as it is shown to the user.
    allowed
        What is allowed.
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
    """Return the error about `value`, with its type unless the type is obvious."""
    kind = "" if value is None or isinstance(value, (str, bool)) else f" ({type(value).__name__})"
    text = repr(value)
    return WrongValue(f"is {text if len(text) <= 80 else text[:77] + '...'}{kind}", allowed, do)


def is_nothing(value: Any) -> bool:
    """Return whether a value means that the option is not set."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _NOT_SET)


# Readers of any option


def anything(value: Any) -> Any:
    """Return the value as it is."""
    return value


def number(least: float = 0, most: float = math.inf, *, above: bool = False) -> Reader:
    """Return the reader of a number from `least` to `most`; YAML reads ``1e-5`` as a text, which is accepted.

    Parameters
    ----------
    least, most
        Bounds, inclusive.
    above
        Whether `least` itself is out of bounds.
    """
    start = "" if least == -math.inf else f" {'above' if above else 'from'} {least:g}"
    allowed = f"a number{start}{'' if most == math.inf else f' to {most:g}'}"

    def read(value: Any) -> float:
        found = _number(value)
        if found is None or not least <= found <= most or math.isinf(found) or (above and found == least):
            raise wrong(value, f"{allowed}, e.g. 1e-5" if least == 0 and most == math.inf else allowed)
        return found

    return read


def whole(least: int = 1) -> Reader:
    """Return the reader of a whole number of at least `least`; ``"30000"`` and ``3e4`` are whole numbers."""

    def read(value: Any) -> int:
        found = _number(value)
        if found is None or not least <= found <= _LARGEST_COUNT or found != int(found):
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
    """Return true or false."""
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


def texts(value: Any) -> list[str]:
    """Return a list of texts; a single text becomes a list of one."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not all(isinstance(item, str) and item for item in found):
        raise wrong(value, 'a list of texts such as ["text_encoder"]')
    return list(found)


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping; numbers such as ``1e-7``, which YAML 1.1 reads as text, are numbers."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise wrong(value, "a mapping from names")
    return {key: _with_numbers(item) for key, item in value.items()}


def _with_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def choice(options: Mapping[str, Any] | Sequence[str]) -> Reader:
    """Return the reader of one of several names, in upper or lower case.

    Parameters
    ----------
    options
        The names, or a mapping from them to our values.
    """
    values = dict(options) if isinstance(options, Mapping) else {name: name for name in options}
    folded = {name.lower(): value for name, value in values.items()}

    def read(value: Any) -> Any:
        value = "no" if value is False and "no" in folded else value  # YAML reads a bare no as false
        key = value.strip().lower() if isinstance(value, str) else value
        if not isinstance(key, str) or key not in folded:
            close = get_close_matches(str(key), folded, 1)
            raise wrong(value, ", ".join(values), f"Did you mean {close[0]}?" if close else "")
        return folded[key]

    return read


# Readers of training options


def samples(value: Any) -> str:
    """Return a batch size in examples."""
    return f"{whole()(value)} samples"


def tokens(value: Any) -> int:
    """Return a number of subword tokens, given as 16000 or ``"16000 tokens"``."""
    match = re.fullmatch(r"\s*(\d{1,15})(?:\s*(?:tokens|pieces))?\s*", str(value))
    if match is None or int(match.group(1)) < 1:
        raise wrong(value, 'a number of tokens, e.g. "16000 tokens"')
    return int(match.group(1))


def steps_or_endless(value: Any) -> int | None:
    """Return a number of steps; None for -1 (and 0, in older files), where the epochs decide."""
    return None if _number(value) in (-1.0, 0.0) else int(whole()(value))


def steps_or_share(least: int = 1) -> Reader:
    """Return the reader of a number of steps of at least `least`, or of a share of all steps between 0 and 1."""

    def read(value: Any) -> int | float:
        found = _number(value)
        return found if found is not None and 0 < found < 1 else int(whole(least)(value))

    return read


def logging_steps(value: Any) -> int | float | str:
    """Return the steps between two log lines; ``"auto"`` for -1."""
    return "auto" if value in (-1, "-1") else steps_or_share()(value)


def clipping(value: Any) -> float | None:
    """Return the maximum norm of the gradients; None, for no clipping, for 0."""
    return float(number()(value)) or None


def checkpoint(value: Any) -> str | bool:
    """Return the checkpoint to resume from: its folder, or true for the last one."""
    return value if isinstance(value, bool) else text(value)


def schedule(value: Any) -> tuple[str, str]:
    """Return the name of a schedule in transformers, and ours."""
    return choice({name: (name, ours) for name, ours in SCHEDULES.items()})(value)


def trackers(value: Any) -> list[str] | None:
    """Return the experiment trackers to report to; None for none."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)):
        raise wrong(value, f"none, or some of {', '.join(TRACKERS)}")
    return [name for name in map(choice(("none", *TRACKERS)), names) if name != "none"] or None


def metric(value: Any) -> str:
    """Return the score that selects the best model."""
    short = {"f1": "f", "overall_f1": "f", "f": "f", "precision": "p", "recall": "r"}
    name = str(value).removeprefix("eval_")
    if name in short:
        return f"ner.micro.{short[name]}"
    if name in ("loss", "val_loss"):
        return "val_loss"
    if isinstance(value, str) and "." in value:
        return value
    allowed = "f1, precision, recall, loss, or the full name of a score such as ner.micro.f, ner.macro.f"
    raise wrong(value, allowed)


def greater(value: Any) -> None:
    """Check that `value` is true or false."""
    flag(value)


def no_smoothing(value: Any) -> None:
    """Refuse the label smoothing of transformers, which GLiNER's loss does not read."""
    if number()(value):
        raise wrong(value, "0", "Set label_smoothing, GLiNER's own option")


def placeholder(value: Any) -> None:
    """Refuse a token of the hub; a placeholder such as ``<HUB_TOKEN>`` or ``$HF_TOKEN`` is allowed."""
    shown = str(value).strip()
    if not (shown.startswith("<") and shown.endswith(">")) and not shown.startswith("$"):
        raise WrongValue("holds a token of the hub", "null", TOKEN)


def folder(value: Any) -> Path:
    """Return a folder."""
    return Path(text(str(value) if isinstance(value, Path) else value))


# Readers of GLiNER's model keys


def span_mode(value: Any) -> str:
    """Return the span representation; older spellings are accepted."""
    older = {name: now for name, now in gliner_names.ALIASES.items() if now in SPAN_MODES}
    return str(choice({**{name: name for name in SPAN_MODES}, **older})(value))


def fusion_pattern(value: Any) -> str:
    """Return the attention pattern of a fusion of labels and words."""
    if not isinstance(value, str) or not re.fullmatch(r"(l2l|t2t|l2t|t2l)(-(l2l|t2t|l2t|t2l))*", value):
        raise wrong(value, "l2l, t2t, l2t and t2l joined by hyphens, e.g. l2t-t2l")
    return value


def two_shares(value: Any) -> list[float]:
    """Return the lowest and the highest of two shares."""
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise wrong(value, "two numbers from 0 to 1, e.g. [0.0, 0.3]")
    return [number(0, 1)(item) for item in value]


def adapter_modules(value: Any) -> list[str] | None:
    """Return the layers that get an adapter; None for all of them."""
    return None if value == "all-linear" else texts(value)


def not_streaming(value: Any) -> None:
    """Refuse the streaming architecture, whose files are not translated."""
    if value == gliner_names.STREAMING:
        raise wrong(value, "any other of GLiNER's architectures; a streaming checkpoint as prev_path")
