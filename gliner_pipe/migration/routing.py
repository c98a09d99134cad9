"""The route from values under the names of another system to our settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.names import Name
from gliner_pipe.migration.values import NEVER, WrongValue, is_nothing

#: Settings that Adam has with ``optimizer = "adamw"``.
ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


@dataclass
class Given:
    """A value under the name of another system: the row of the name, the value as given, and its place for messages."""

    name: Name
    value: Any
    where: str

    @property
    def absent(self) -> bool:
        """Whether the value means that the option is not set."""
        return self.value is None if self.name.literal else is_nothing(self.value)


@dataclass
class Routed:
    """Values that have been read, by where they go.

    Parameters
    ----------
    settings
        Our settings, by full path.
    parts
        Values that several names decide together, by the name of the part.
    places
        What was given for each setting and part.
    read
        All options that are set, by their foreign names.
    notes
        Lines for the user.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Given] = field(default_factory=dict)
    read: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def place(self, *keys: str) -> str:
        """Return the place of the first of these settings or parts that was given."""
        return next((self.places[key].where for key in keys if key in self.places), keys[0])

    def within(self, section: str) -> dict[str, Any]:
        """Return the settings of a section, by their names in it."""
        start = f"{section}."
        return {
            key.removeprefix(start): value for key, value in self.settings.items() if key.startswith(start)
        }

    def options(self) -> dict[str, Any]:
        """Return the options of ``train()``, without those of the sections in it."""
        return {name: value for name, value in self.within("train").items() if "." not in name}

    def set(self, target: str, value: Any, *parts: str) -> None:
        """Set what `parts` decide together; a :class:`ConfigError` if another name has set it."""
        if target in self.settings:
            raise _set_twice(target, self.place(*parts), self.places[target])
        self.settings[target] = value


def route(given: Iterable[Given]) -> Routed:
    """Read values, and sort them into settings.

    Raises
    ------
    ConfigError
        For a value that is not allowed, a refused name, two names for one setting, or options that contradict each
        other.
    """
    routed = Routed()
    for item in given:
        _take(routed, item)
    for join in (_precision, _warmup, _schedule, _optimizer, _reduction, _loggers, _intervals):
        join(routed)
    return routed


def _take(routed: Routed, item: Given) -> None:
    name = item.name
    if item.absent:
        if name.null:
            routed.settings[name.key], routed.places[name.key] = None, item
        return
    if name.fate == "refused":
        if item.value is False or item.value in ([], {}):
            return  # the feature is off
        raise ConfigError(item.where, f"is not supported: {name.clause}", do=name.do)
    try:
        value = name.read(item.value)
    except WrongValue as error:
        raise error.at(item.where) from None
    if name.fate == "ignored":
        routed.notes.append(f"{name.name} changes nothing: {name.clause}")
        return
    routed.read[name.name] = value
    if value is None and not name.null:
        return
    if name.key in routed.places:
        raise _set_twice(name.target, item.where, routed.places[name.key])
    routed.places[name.key] = item
    (routed.parts if name.part else routed.settings)[name.key] = value


def _set_twice(target: str, where: str, first: Given) -> ConfigError:
    found = f"sets {target}, which {first.name.name} ({first.where}) sets already"
    return ConfigError(where, found, do="Keep one of the two")


def _precision(routed: Routed) -> None:
    given = {
        name: value for name, value in routed.parts.items() if name in ("fp16", "bf16", "mixed_precision")
    }
    chosen = {
        name: name if value is True else value for name, value in given.items() if value not in (False, "no")
    }
    if len(set(chosen.values())) > 1:
        where = routed.place([*chosen][-1])
        raise ConfigError(where, f"contradicts another option: {' and '.join(chosen)} are set", "one of them")
    if given:
        routed.set("train.mixed_precision", next(iter(chosen.values()), "no"), *chosen, *given)


def _warmup(routed: Routed) -> None:
    steps = routed.parts.get("warmup_steps")
    if not steps:  # 0: the ratio decides
        return
    if steps < 1:
        routed.set("train.warmup_rate", steps, "warmup_steps")
        return
    if routed.settings.pop("train.warmup_rate", None):
        routed.notes.append("warmup_ratio is not used: warmup_steps takes precedence, as in transformers")
    routed.settings["train.warmup_steps"] = steps


def _schedule(routed: Routed) -> None:
    if "schedule" not in routed.parts:
        return
    theirs, ours = routed.parts["schedule"]
    routed.set("train.schedule", ours, "schedule")
    if theirs == "constant":
        warmup = [routed.settings.pop(f"train.{name}", None) for name in ("warmup_rate", "warmup_steps")]
        if any(warmup):
            routed.notes.append(
                "the warm-up is not used, as in transformers: constant_with_warmup is the schedule with a warm-up"
            )
        routed.settings["train.warmup_rate"] = 0.0
    elif theirs == "cosine_with_restarts":
        routed.notes.append(
            "schedule = cosine_with_restarts has two cycles; that of transformers has one, which is the same as cosine"
        )
    elif theirs == "polynomial":
        routed.notes.append(
            "schedule = polynomial falls with power 2; that of transformers falls with power 1, which is linear"
        )


def _optimizer(routed: Routed) -> None:
    name = routed.parts.get("optim")
    adam = {key: routed.parts[key] for key in ADAM if key in routed.parts}
    if name in (None, "adamw") and any(value != ADAM[key] for key, value in adam.items()):
        routed.set("train.optimizer", {"@optimizers": "adamw", **ADAM, **adam}, "optim", *adam)
    elif name is not None:
        routed.set("train.optimizer", name, "optim")
    if name == "sgd":
        routed.notes.append("optimizer = sgd has a momentum of 0.9; that of transformers has none")
    if adam and name not in (None, "adamw"):
        routed.notes.append(f"{', '.join(adam)} are not used: the optimizer is {name}")


def _reduction(routed: Routed) -> None:
    """Read ``loss_reduction: none`` as GLiNER does, which sums."""
    for target, item in routed.places.items():
        if item.name.name == "loss_reduction" and routed.settings[target] == "none":
            routed.settings[target] = "sum"
            routed.notes.append("loss_reduction = none is read as sum, as in GLiNER")


def _loggers(routed: Routed) -> None:
    if names := routed.parts.get("loggers"):
        routed.set("train.loggers", ["default", *names], "loggers")


def _intervals(routed: Routed) -> None:
    if routed.parts.get("save_strategy") == "best":
        routed.parts["save_strategy"] = "no"
        routed.notes.append("save_strategy = best: each new best model is always saved")
    if routed.parts.get("logging_steps") == "auto":
        del routed.parts["logging_steps"]
        routed.notes.append("logging_steps = -1: every step is logged")
    _interval(routed, "train.validation_interval", "eval_strategy", "eval_steps", fallback="logging_steps")
    _interval(routed, "train.checkpoint_interval", "save_strategy", "save_steps")
    _interval(routed, "train.logging_interval", "logging_strategy", "logging_steps")


def _interval(routed: Routed, target: str, strategy: str, steps: str, fallback: str = "") -> None:
    """Set an interval from a strategy and a number of steps."""
    kind, size = routed.parts.get(strategy), routed.parts.get(steps)
    if kind in ("no", "epoch"):
        if size is not None:
            routed.notes.append(f"{steps} is not used: {strategy} is {kind!r}")
        routed.set(target, NEVER if kind == "no" else "epoch", strategy)
    elif size is not None:
        routed.set(target, _whole_steps(size, routed, steps), steps)
    elif kind == "steps" and isinstance(routed.parts.get(fallback), int):
        routed.set(target, routed.parts[fallback], strategy)


def _whole_steps(size: int | float, routed: Routed, part: str) -> int:
    if not isinstance(size, float):
        return size
    total = routed.settings.get("train.max_steps")
    if total is None:
        found = f"is {size}, a share of all steps, but max_steps is not set"
        raise ConfigError(routed.place(part), found, "a whole number of steps")
    return max(1, round(size * int(total)))
