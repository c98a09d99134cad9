"""Lets a thinc optimizer, the one of ``spacy train``, drive a torch optimizer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gliner_pipe.modeling.backbones.base import pretrained_parameters


class ThincBridge:
    """AdamW over torch weights, whose learning rate, weight decay and clipping a thinc optimizer gives.

    Parameters
    ----------
    model
        Whose gradients are stepped.
    task_lr_ratio
        Learning rate of everything but the backbone, as a multiple of the optimizer's.
    """

    def __init__(self, model: nn.Module, task_lr_ratio: float) -> None:
        self.ratio = task_lr_ratio
        inside = set(map(id, pretrained_parameters(model)))
        trained = [p for p in model.parameters() if p.requires_grad]
        self.parameters = trained
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in trained if id(p) in inside], "ratio": 1.0},
                {"params": [p for p in trained if id(p) not in inside], "ratio": task_lr_ratio},
            ],
        )

    def step(self, sgd: Any) -> None:
        """Step with the settings that `sgd` has now, and clear the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = float(sgd.learn_rate) * group["ratio"]
            group["betas"] = (float(sgd.b1), float(sgd.b2))
            group["weight_decay"] = float(sgd.L2) if sgd.L2_is_weight_decay else 0.0
        if sgd.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, float(sgd.grad_clip))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
