"""Learning rate schedules: registered blocks for ``[train.schedule]``.

Unlike those of transformers, the first step has a learning rate above 0, and the warm-up is a share of the steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Count, NonNegative, Share


@dataclass(eq=False)
class Schedule:
    """A linear warm-up followed by a curve; multiplies the learning rate of every parameter group.

    Parameters
    ----------
    warmup_rate
        Share of the steps, from 0 to 1, in which the factor rises to 1.
    curve
        Factor after the warm-up as a function of progress, both from 0 to 1.
    warmup_steps
        Length of the warm-up in steps, instead of `warmup_rate`.
    """

    warmup_rate: float
    curve: Callable[[float], float]
    warmup_steps: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.warmup_rate <= 1.0:
            raise ConfigError(
                "train.schedule.warmup_rate", f"is {self.warmup_rate}", "a share of the steps, from 0 to 1"
            )

    def factor(self, step: int, total_steps: int) -> float:
        """Return the factor of the learning rate in step `step`, counted from 0.

        The factor of the first step is ``1 / warm-up steps``, not 0.
        """
        warmup_steps = self.warmup_steps
        if warmup_steps is None:
            warmup_steps = round(self.warmup_rate * total_steps)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return self.after_warmup(step - warmup_steps, warmup_steps, total_steps)

    def after_warmup(self, step: int, warmup_steps: int, total_steps: int) -> float:
        """Return the factor `step` steps after the warm-up."""
        return self.curve(min(1.0, step / max(1, total_steps - warmup_steps)))

    def build(self, optimizer: torch.optim.Optimizer, total_steps: int) -> torch.optim.lr_scheduler.LambdaLR:
        """Return the scheduler that applies this curve to all groups of `optimizer`."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.factor(step, total_steps))


@registry.schedules.register("linear")
def linear(warmup_rate: Share = 0.1, end_factor: NonNegative = 0.0) -> Schedule:
    """Linear warm-up, then linear decay: the usual choice for fine-tuning.

    Parameters
    ----------
    warmup_rate
        Share of the steps, from 0 to 1, in which the learning rate rises from 0.
    end_factor
        Factor of the learning rate at the end.
    """
    return Schedule(warmup_rate, lambda progress: 1.0 + (end_factor - 1.0) * progress)


@registry.schedules.register("cosine")
def cosine(warmup_rate: Share = 0.1, end_factor: NonNegative = 0.0, cycles: NonNegative = 0.5) -> Schedule:
    """Linear warm-up, then cosine decay: stays high for longer, and ends more gently than ``linear``.

    Parameters
    ----------
    warmup_rate
        Share of the steps, from 0 to 1, in which the learning rate rises from 0.
    end_factor
        Factor of the learning rate at the minimum of the cosine.
    cycles
        Number of waves; one half decays once.
    """

    def curve(progress: float) -> float:
        wave = 0.5 * (1.0 + math.cos(2.0 * math.pi * cycles * progress))
        return end_factor + (1.0 - end_factor) * wave

    return Schedule(warmup_rate, curve)


@registry.schedules.register("constant")
def constant(warmup_rate: Share = 0.0) -> Schedule:
    """Optional linear warm-up, then a constant rate: for short trainings and learning rate searches.

    Parameters
    ----------
    warmup_rate
        Share of the steps, from 0 to 1, in which the learning rate rises from 0.
    """
    return Schedule(warmup_rate, lambda progress: 1.0)


@registry.schedules.register("polynomial")
def polynomial(warmup_rate: Share = 0.1, end_factor: NonNegative = 0.0, power: NonNegative = 2.0) -> Schedule:
    """Linear warm-up, then polynomial decay: a power above 1 decays faster at first.

    Parameters
    ----------
    warmup_rate
        Share of the steps, from 0 to 1, in which the learning rate rises from 0.
    end_factor
        Factor of the learning rate at the end.
    power
        Exponent; 1 is ``linear``.
    """
    return Schedule(warmup_rate, lambda progress: end_factor + (1.0 - end_factor) * (1.0 - progress) ** power)


@registry.schedules.register("cosine_with_restarts")
def cosine_with_restarts(
    warmup_rate: Share = 0.1, end_factor: NonNegative = 0.0, cycles: Count = 2
) -> Schedule:
    """Linear warm-up, then several cosine decays, each from the full learning rate.

    Parameters
    ----------
    warmup_rate
        Share of the steps, from 0 to 1, in which the learning rate rises from 0.
    end_factor
        Factor of the learning rate at the minimum of each cosine.
    cycles
        Number of decays.
    """

    def curve(progress: float) -> float:
        within = 1.0 if progress >= 1.0 else (progress * cycles) % 1.0
        return end_factor + (1.0 - end_factor) * 0.5 * (1.0 + math.cos(math.pi * within))

    return Schedule(warmup_rate, curve)


@registry.schedules.register("inverse_sqrt")
def inverse_sqrt(warmup_rate: Share = 0.1) -> Schedule:
    """Linear warm-up, then decay by the inverse square root of the steps, which never reaches 0.

    Parameters
    ----------
    warmup_rate
        Share of the steps, from 0 to 1, in which the learning rate rises from 0; a longer warm-up decays more slowly.
    """
    return _InverseSqrt(warmup_rate, lambda progress: 1.0)


class _InverseSqrt(Schedule):
    """Decays with the number of steps relative to the warm-up."""

    def after_warmup(self, step: int, warmup_steps: int, total_steps: int) -> float:
        """Return the factor `step` steps after the warm-up."""
        scale = max(1, warmup_steps or round(1e-3 * total_steps))
        return math.sqrt(scale / (scale + step))


def make_schedule(
    schedule: Schedule | str | None, warmup_rate: float, warmup_steps: int | None = None
) -> Schedule:
    """Return the schedule for the options `schedule`, `warmup_rate` and `warmup_steps` of a training.

    Parameters
    ----------
    schedule
        A block (which has its own warm-up), or the name of one; ``"linear"`` when None.
    warmup_rate
        Warm-up of a schedule that is given by its name.
    warmup_steps
        Length of the warm-up of any schedule, in steps, instead of its warm-up rate.
    """
    if isinstance(schedule, Schedule):
        return schedule if warmup_steps is None else replace(schedule, warmup_steps=warmup_steps)
    name = schedule or "linear"
    known = sorted(registry.schedules.get_available())
    if name not in known:
        raise ConfigError("train.schedule", f"is {name!r}", ", ".join(known))
    made: Schedule = registry.schedules.get(name)(warmup_rate=warmup_rate)
    return replace(made, warmup_steps=warmup_steps)
