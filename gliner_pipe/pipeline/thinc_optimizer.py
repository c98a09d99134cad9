"""Trains torch weights with the settings of a thinc optimizer, for ``spacy train``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gliner_pipe.modeling.backbones.base import pretrained_parameters


class ThincDrivenOptimizer:
    """AdamW on torch weights, with the learning rate, weight decay and clipping of a thinc optimizer.

    Parameters
    ----------
    model
        The model to train.
    task_lr_ratio
        Learning rate of everything but the backbone, as a multiple of the optimizer's.
    """

    def __init__(self, model: nn.Module, task_lr_ratio: float) -> None:
        pretrained = set(map(id, pretrained_parameters(model)))
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.parameters if id(p) in pretrained], "ratio": 1.0},
            {"params": [p for p in self.parameters if id(p) not in pretrained], "ratio": task_lr_ratio},
        ]
        self.optimizer = torch.optim.AdamW(groups)

    def step(self, sgd: Any) -> None:
        """Step with the current settings of `sgd`, and clear the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = float(sgd.learn_rate) * group["ratio"]
            group["betas"] = (float(sgd.b1), float(sgd.b2))
            group["weight_decay"] = float(sgd.L2) if sgd.L2_is_weight_decay else 0.0
        if sgd.grad_clip:
            nn.utils.clip_grad_norm_(self.parameters, float(sgd.grad_clip))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
