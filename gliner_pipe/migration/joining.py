"""What several names decide together: precision, intervals, optimizer, schedule and loggers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.names import Routed
from gliner_pipe.migration.values import NEVER

#: Settings of Adam that ``optimizer = "adamw"`` has anyhow.
ADAM = {"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}


def join(routed: Routed) -> Routed:
    """Turn the parts of `routed` into settings, and return it.

    Raises
    ------
    ConfigError
        If parts contradict each other, or another setting.
    """
    for joiner in (_precision, _warmup, _schedule, _optimizer, _loggers, _validation, _saving, _logging):
        joiner(routed)
    return routed


def _set(routed: Routed, target: str, value: Any, *parts: str) -> None:
    if target in routed.settings:
        first = routed.places[target]
        raise ConfigError(
            routed.place(*parts),
            f"says what {first.name.name} says already ({first.where})",
            do=f"Keep one of the two: both set {target}",
        )
    routed.settings[target] = value


def _precision(routed: Routed) -> None:
    said = [
        (part, value)
        for part, kind in (("fp16", "fp16"), ("bf16", "bf16"), ("mixed_precision", None))
        if (value := kind if kind and routed.parts.get(part) else routed.parts.get(part)) and value != "no"
    ]
    if len({value for _, value in said}) > 1:
        names = " and ".join(part for part, _ in said)
        raise ConfigError(
            routed.place(said[-1][0]), f"contradicts another option: {names} are set", "one of them"
        )
    if said:
        _set(routed, "train.mixed_precision", said[0][1], said[0][0])
    elif {"fp16", "bf16", "mixed_precision"} & routed.parts.keys():
        _set(routed, "train.mixed_precision", "no", "mixed_precision", "bf16", "fp16")


def _warmup(routed: Routed) -> None:
    steps = routed.parts.get("warmup_steps")
    if not steps:  # 0 leaves it to the share
        return
    if isinstance(steps, float) and steps < 1:
        _set(routed, "train.warmup_rate", steps, "warmup_steps")
        return
    if routed.settings.pop("train.warmup_rate", None):
        routed.notes.append("warmup_ratio is not used: warmup_steps comes before it, as in transformers")
    routed.settings["train.warmup_steps"] = int(steps)


def _schedule(routed: Routed) -> None:
    if "schedule" not in routed.parts:
        return
    theirs, ours = routed.parts["schedule"]
    _set(routed, "train.schedule", ours, "schedule")
    if theirs == "constant":
        had = [routed.settings.pop(f"train.{name}", None) for name in ("warmup_rate", "warmup_steps")]
        if any(had):
            routed.notes.append(
                "the warm-up is not used, as in transformers: constant_with_warmup is the schedule with one"
            )
        routed.settings["train.warmup_rate"] = 0.0
    elif theirs == "cosine_with_restarts":
        routed.notes.append(
            "schedule = cosine_with_restarts begins twice, that of transformers once, as cosine does"
        )
    elif theirs == "polynomial":
        routed.notes.append(
            "schedule = polynomial falls with the power 2; that of transformers, with the power 1, is linear"
        )


def _optimizer(routed: Routed) -> None:
    name = routed.parts.get("optim")
    adam = {key: routed.parts[key] for key in ADAM if key in routed.parts}
    if name in (None, "adamw") and any(value != ADAM[key] for key, value in adam.items()):
        _set(routed, "train.optimizer", {"@optimizers": "adamw", **ADAM, **adam}, "optim", *adam)
    elif name is not None:
        _set(routed, "train.optimizer", name, "optim")
    if name == "sgd":
        routed.notes.append("optimizer = sgd has a momentum of 0.9, that of transformers none")
    if adam and name not in (None, "adamw"):
        routed.notes.append(f"{', '.join(adam)} are not used: the optimizer is {name}")


def _loggers(routed: Routed) -> None:
    if names := routed.parts.get("loggers"):
        _set(routed, "train.loggers", ["default", *names], "loggers")


def _validation(routed: Routed) -> None:
    target = "train.validation_interval"
    _interval(routed, target, "eval_strategy", "eval_steps", "logging_steps")


def _saving(routed: Routed) -> None:
    strategy = routed.parts.get("save_strategy")
    if strategy == "best":
        routed.parts["save_strategy"] = "no"
        routed.notes.append("save_strategy = best: the best model is saved whenever there is a new one")
    _interval(routed, "train.checkpoint_interval", "save_strategy", "save_steps")


def _logging(routed: Routed) -> None:
    if routed.parts.get("logging_steps") == "auto":
        del routed.parts["logging_steps"]
        routed.notes.append("logging_steps = -1: every step is logged")
    _interval(routed, "train.logging_interval", "logging_strategy", "logging_steps")


def _interval(routed: Routed, target: str, strategy: str, steps: str, instead: str = "") -> None:
    """Set an interval from a strategy and a number of steps."""
    kind, size = routed.parts.get(strategy), routed.parts.get(steps)
    if kind in ("no", "epoch"):
        if size is not None:
            routed.notes.append(f"{steps} is not used: {strategy} is {kind!r}")
        _set(routed, target, NEVER if kind == "no" else "epoch", strategy)
    elif size is not None:
        _set(routed, target, _steps(size, routed, steps), steps)
    elif kind == "steps" and isinstance(routed.parts.get(instead), int):
        _set(routed, target, routed.parts[instead], strategy)


def _steps(size: int | float, routed: Routed, part: str) -> int:
    if not isinstance(size, float):
        return size
    total = routed.settings.get("train.max_steps")
    if total is None:
        raise ConfigError(
            routed.place(part),
            f"is {size}, a share of the steps, and there is no max_steps",
            "a whole number of steps",
        )
    return max(1, round(size * int(total)))


#: Names of schedules in transformers, and here.
SCHEDULES: Mapping[str, tuple[str, str]] = {
    name: (name, ours)
    for name, ours in {
        "linear": "linear",
        "cosine": "cosine",
        "constant": "constant",
        "constant_with_warmup": "constant",
        "polynomial": "polynomial",
        "cosine_with_restarts": "cosine_with_restarts",
        "inverse_sqrt": "inverse_sqrt",
    }.items()
}

#: Names of optimizers in transformers, and here.
OPTIMIZERS: Mapping[str, str] = {
    **dict.fromkeys(("adamw_torch", "adamw_hf", "adamw_torch_fused", "adamw"), "adamw"),
    "sgd": "sgd",
    "adafactor": "adafactor",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
}
