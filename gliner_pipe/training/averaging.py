"""EMA of the weights, and L2-SP regularisation towards the initial weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average (EMA) of the trained weights.

    The average is validated and saved; training continues with the weights themselves. It smooths out the noise of
    the last steps, at the cost of one more copy of the weights.

    Parameters
    ----------
    parameters
        The trained parameters.
    decay
        Share of the average that each step keeps, e.g. 0.999. The first steps keep less, ``(1 + n) / (10 + n)`` after
        `n` steps, so that the random initial weights are forgotten in time.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.steps = 0
        self.average: list[Tensor] = [parameter.detach().clone() for parameter in self.parameters]

    def update(self) -> None:
        """Add the current weights to the average."""
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model for the duration of the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self.average, strict=True):
                held = parameter.detach().clone()
                parameter.copy_(mean)
                mean.copy_(held)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for ``load_state_dict``."""
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved average."""
        self.steps = state["steps"]
        _copy_into(self.average, state["average"])


class Anchor:
    """Pulls the weights towards their initial values, so that fine-tuning forgets less (L2-SP).

    Parameters
    ----------
    parameters
        The trained parameters, with their initial values.
    strength
        Like a weight decay towards the initial weights instead of zero: each step moves a weight by ``learning
        rate * strength`` of the distance back.

    Notes
    -----
    Source: Li et al., "Explicit Inductive Bias for Transfer Learning with Convolutional Networks" (2018); decoupled
    from the gradient, as in AdamW. Useful strengths are some hundred times those of a weight decay.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], strength: float) -> None:
        self.strength = strength
        self.parameters = list(parameters)
        self.start: list[Tensor] = [parameter.detach().clone() for parameter in self.parameters]

    def pull(self, groups: Sequence[Mapping[str, Any]]) -> None:
        """Move the weights in the parameter groups of the optimizer, after its step."""
        at = {id(parameter): start for parameter, start in zip(self.parameters, self.start, strict=True)}
        with torch.no_grad():
            for group in groups:
                share = min(1.0, float(group["lr"]) * self.strength)
                for parameter in group["params"]:
                    parameter.lerp_(at[id(parameter)], share)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for ``load_state_dict``."""
        return {"start": self.start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the saved initial weights."""
        _copy_into(self.start, state["start"])


def _copy_into(target: Sequence[Tensor], source: Sequence[Tensor]) -> None:
    for there, value in zip(target, source, strict=True):
        there.copy_(value)
