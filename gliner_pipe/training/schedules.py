"""How the learning rate moves over the steps of a training: registered blocks for ``[train.schedule]``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry


@dataclass(eq=False)
class Schedule:
    """A warm-up followed by a curve; multiplies the learning rate of every parameter group.

    Parameters
    ----------
    warmup_rate
        Share of the steps, between 0 and 1, in which the factor climbs in a straight line to 1.
    curve
        Factor after the warm-up as a function of progress, both between 0 and 1.
    warmup_steps
        Length of the warm-up; instead of `warmup_rate` where it is given.
    """

    warmup_rate: float
    curve: Callable[[float], float]
    warmup_steps: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.warmup_rate <= 1.0:
            raise ConfigError(
                "train.schedule", f"has a warmup_rate of {self.warmup_rate}", "a share between 0 and 1"
            )

    def factor(self, step: int, total_steps: int) -> float:
        """Return what the learning rate is multiplied by in step `step`, counted from 0.

        The first step already learns (its factor is ``1 / warm-up steps``, not 0).
        """
        warmup_steps = self.warmup_steps
        if warmup_steps is None:
            warmup_steps = round(self.warmup_rate * total_steps)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        remaining = max(1, total_steps - warmup_steps)
        return self.curve(min(1.0, (step - warmup_steps) / remaining))

    def build(self, optimizer: torch.optim.Optimizer, total_steps: int) -> torch.optim.lr_scheduler.LambdaLR:
        """Return the scheduler that applies this curve to all groups of `optimizer`."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, total_steps))


@registry.schedules.register("linear")
def linear(warmup_rate: float = 0.1, end_factor: float = 0.0) -> Schedule:
    """Warm up, then go down in a straight line: the usual choice for fine-tuning.

    Parameters
    ----------
    warmup_rate
        Share of the steps, between 0 and 1, in which the learning rate climbs from 0.
    end_factor
        What the learning rate is multiplied by at the end.
    """
    return Schedule(warmup_rate, lambda progress: 1.0 + (end_factor - 1.0) * progress)


@registry.schedules.register("cosine")
def cosine(warmup_rate: float = 0.1, end_factor: float = 0.0, cycles: float = 0.5) -> Schedule:
    """Warm up, then go down along a cosine: stays high for longer, ends more gently than ``linear``.

    Parameters
    ----------
    warmup_rate
        Share of the steps, between 0 and 1, in which the learning rate climbs from 0.
    end_factor
        What the learning rate is multiplied by at the bottom of the cosine.
    cycles
        Number of waves; one half goes down once.
    """

    def curve(progress: float) -> float:
        wave = 0.5 * (1.0 + math.cos(2.0 * math.pi * cycles * progress))
        return end_factor + (1.0 - end_factor) * wave

    return Schedule(warmup_rate, curve)


@registry.schedules.register("constant")
def constant(warmup_rate: float = 0.0) -> Schedule:
    """Warm up if asked to, then stay: for short trainings and for searching a learning rate.

    Parameters
    ----------
    warmup_rate
        Share of the steps, between 0 and 1, in which the learning rate climbs from 0.
    """
    return Schedule(warmup_rate, lambda progress: 1.0)


@registry.schedules.register("polynomial")
def polynomial(warmup_rate: float = 0.1, end_factor: float = 0.0, power: float = 2.0) -> Schedule:
    """Warm up, then go down as a power of what remains: a power above 1 leaves the high rates sooner.

    Parameters
    ----------
    warmup_rate
        Share of the steps, between 0 and 1, in which the learning rate climbs from 0.
    end_factor
        What the learning rate is multiplied by at the end.
    power
        Exponent; 1 is ``linear``.
    """
    return Schedule(warmup_rate, lambda progress: end_factor + (1.0 - end_factor) * (1.0 - progress) ** power)


@registry.schedules.register("cosine_with_restarts")
def cosine_with_restarts(warmup_rate: float = 0.1, end_factor: float = 0.0, cycles: int = 2) -> Schedule:
    """Warm up, then go down along a cosine several times, back to the full learning rate in between.

    Parameters
    ----------
    warmup_rate
        Share of the steps, between 0 and 1, in which the learning rate climbs from 0.
    end_factor
        What the learning rate is multiplied by at the bottom of each cosine.
    cycles
        How often it goes down.
    """

    def curve(progress: float) -> float:
        within = 1.0 if progress >= 1.0 else (progress * cycles) % 1.0
        return end_factor + (1.0 - end_factor) * 0.5 * (1.0 + math.cos(math.pi * within))

    return Schedule(warmup_rate, curve)


@registry.schedules.register("inverse_sqrt")
def inverse_sqrt(warmup_rate: float = 0.1) -> Schedule:
    """Warm up, then go down as one over the square root of the steps: never to zero, so that training can go on.

    Parameters
    ----------
    warmup_rate
        Share of the steps, between 0 and 1, in which the learning rate climbs from 0; it sets how fast the rate goes
        down afterwards.
    """
    return _InverseSqrt(warmup_rate, lambda progress: 1.0)


class _InverseSqrt(Schedule):
    """Goes down by the number of warm-ups that the steps are, so that it depends on the length of the warm-up."""

    def factor(self, step: int, total_steps: int) -> float:
        """Return what the learning rate is multiplied by in step `step`."""
        steps = self.warmup_steps
        climb = round(self.warmup_rate * total_steps) if steps is None else steps
        if step < climb:
            return (step + 1) / climb
        scale = max(1, climb or round(1e-3 * total_steps))
        return math.sqrt(scale / (scale + step - climb))


def make_schedule(
    schedule: Schedule | str | None, warmup_rate: float, warmup_steps: int | None = None
) -> Schedule:
    """Return the schedule that the options `schedule` and `warmup_rate` of a training stand for.

    Parameters
    ----------
    schedule
        A block (which has its own warm-up), or the name of one, ``"linear"`` when not given.
    warmup_rate
        Warm-up of a schedule that is given by its name.
    warmup_steps
        Length of the warm-up of any schedule, in steps; `warmup_rate` decides when not given.
    """
    if isinstance(schedule, Schedule):
        return schedule if warmup_steps is None else replace(schedule, warmup_steps=warmup_steps)
    name = schedule or "linear"
    known = sorted(registry.schedules.get_available())
    if name not in known:
        raise ConfigError("train.schedule", f"is {name!r}", ", ".join(known))
    made: Schedule = registry.schedules.get(name)(warmup_rate=warmup_rate)
    return replace(made, warmup_steps=warmup_steps)
