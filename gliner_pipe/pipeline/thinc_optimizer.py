"""Trains torch weights with the settings of a thinc optimizer, for ``spacy train``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gliner_pipe.modeling.backbones.base import classified_parameters


class ThincDrivenOptimizer:
    """The torch counterpart of a thinc optimizer: its kind, learning rate, weight decay and clipping.

    Adam.v1 becomes AdamW (Adam, if ``L2_is_weight_decay`` is false), RAdam.v1 RAdam and SGD.v1 SGD. Biases and the
    parameters of normalisation layers have no weight decay. The norm of all gradients together is clipped; thinc clips
    each array by itself.

    Parameters
    ----------
    model
        The model to train.
    sgd
        The thinc optimizer; what else it holds is read at each step, since schedules change it.
    task_lr_ratio
        Learning rate of everything that is not pretrained, as a multiple of the optimizer's.
    max_learn_rate
        Maximum learning rate of pretrained weights; others have at most `task_lr_ratio` times as much. None for no
        limit.
    tell
        Called once with each setting that does not apply as it is: a name of the component's settings, and a sentence.
    """

    def __init__(
        self,
        model: nn.Module,
        sgd: Any,
        *,
        task_lr_ratio: float,
        max_learn_rate: float | None,
        tell: Callable[[str, str], object],
    ) -> None:
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for _, parameter, pretrained, decays in classified_parameters({"": model}):
            if parameter.requires_grad:
                groups.setdefault((pretrained, decays), []).append(parameter)
        self.parameters = [parameter for group in groups.values() for parameter in group]
        self._most, self._ratio = max_learn_rate, task_lr_ratio
        self._tell: Callable[[str, str], object] | None = tell
        self.optimizer = _optimizer(
            [
                {"params": group, "ratio": 1.0 if pretrained else task_lr_ratio, "decays": decays}
                for (pretrained, decays), group in groups.items()
            ],
            sgd,
        )
        if sgd.averages is not None:
            tell(
                "model",
                "is trained without averages of its weights. Set use_averages = false in [training.optimizer]; "
                "python -m gliner_pipe.train has them (ema_decay)",
            )

    def step(self, sgd: Any) -> None:
        """Step with the current settings of `sgd`, and clear the gradients."""
        rate = self._rate(float(sgd.learn_rate))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["ratio"]
            group["weight_decay"] = float(sgd.L2) if group["decays"] else 0.0
            if "betas" in group:
                group["betas"], group["eps"] = (float(sgd.b1), float(sgd.b2)), float(sgd.eps)
        if sgd.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, float(sgd.grad_clip))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _rate(self, wanted: float) -> float:
        """Return the learning rate of pretrained weights, and tell once if it is less than wanted."""
        if self._most is None or wanted <= self._most:
            return wanted
        if self._tell is not None:
            self._tell(
                "max_learn_rate",
                f"limits the learning rate of [training.optimizer], {wanted:g}, to {self._most:g} for pretrained "
                f"weights and to {self._most * self._ratio:g} for the others: higher ones destroy pretrained weights. "
                "Set max_learn_rate = null for no limit",
            )
            self._tell = None
        return self._most


def _optimizer(groups: list[dict[str, Any]], sgd: Any) -> torch.optim.Optimizer:
    """Return the torch optimizer of the same kind."""
    if not sgd.use_radam and not (sgd.b1 and sgd.b2):
        return torch.optim.SGD(groups)
    decoupled = bool(sgd.L2_is_weight_decay)
    if sgd.use_radam:
        return torch.optim.RAdam(groups, decoupled_weight_decay=decoupled)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    try:
        return kind(groups, fused=True)  # the same update in a sixth of the time
    except RuntimeError:  # no fused kernel for these devices or types
        return kind(groups)
