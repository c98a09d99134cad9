"""Stops a training that cannot come to anything: a loss that is not a number, or one that runs away."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gliner_pipe.errors import TrainingError

#: Weight of the newest loss in the running mean.
SMOOTHING = 0.05


class LossGuard:
    """Watches the loss of every step.

    Parameters
    ----------
    factor
        The loss diverges when its running mean is this many times its own lowest value, and at least half of
        the first loss ...
    patience
        ... for this many steps on end.
    """

    def __init__(self, factor: float = 10.0, patience: int = 100) -> None:
        self.factor = factor
        self.patience = patience
        self.first: float | None = None
        self.mean = 0.0
        self.lowest = math.inf
        self.steps_above = 0

    def check(
        self, step: int, loss: float, learning_rates: Mapping[str, float], sources: Sequence[str]
    ) -> None:
        """Take note of the loss of `step`.

        Raises
        ------
        TrainingError
            If the loss is NaN or infinite, or has been diverging for `patience` steps.
        """
        if not math.isfinite(loss):
            raise _not_finite("the loss", step, loss, learning_rates, sources)
        if self.first is None:
            self.first = self.mean = loss
        self.mean += SMOOTHING * (loss - self.mean)
        self.lowest = min(self.lowest, self.mean)
        limit = max(self.factor * self.lowest, 0.5 * self.first)
        self.steps_above = self.steps_above + 1 if self.mean > limit else 0
        if self.steps_above >= self.patience:
            raise TrainingError(
                f"the loss diverges: its running mean at step {step} is {self.mean:.4g}, more than "
                f"{self.factor:g} times its lowest value ({self.lowest:.4g}) for {self.patience} steps. "
                f"Learning rates: {_rates(learning_rates)}. "
                "Lower them, raise warmup_rate or lower max_grad_norm"
            )

    def check_gradients(
        self, step: int, grad_norm: float, learning_rates: Mapping[str, float], sources: Sequence[str]
    ) -> None:
        """Take note of the norm of the gradients of `step`.

        Raises
        ------
        TrainingError
            If it is NaN or infinite, so that the next step would spoil the weights.
        """
        if not math.isfinite(grad_norm):
            raise _not_finite("the norm of the gradients", step, grad_norm, learning_rates, sources)


def _not_finite(
    what: str, step: int, value: float, learning_rates: Mapping[str, float], sources: Sequence[str]
) -> TrainingError:
    return TrainingError(
        f"{what} of step {step} is {value}; the model on disk, if any, is that of the last checkpoint. "
        f"Learning rates: {_rates(learning_rates)}. Examples of the batch: {_sources(sources)}. "
        "Look at these examples, lower the learning rates, raise warmup_rate, lower max_grad_norm, "
        'or train with mixed_precision = "no"'
    )


def _rates(learning_rates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rate:.3g}" for name, rate in learning_rates.items())


def _sources(sources: Sequence[str], shown: int = 8) -> str:
    if not sources:
        return "their source is not known"
    more = f" and {len(sources) - shown} more" if len(sources) > shown else ""
    return ", ".join(sources[:shown]) + more
