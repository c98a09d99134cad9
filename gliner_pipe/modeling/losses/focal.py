"""The loss ``gliner_pipe.focal``."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from gliner_pipe.modeling.losses.base import Loss, Masking, Reduction, WrongLabelWeight
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import NonNegative, Number, Share


@registry.losses.register("gliner_pipe.focal")
class FocalLoss(Loss):
    """Binary cross-entropy that down-weights easy elements.

    Use it by default: nearly all spans are negatives, whose number would otherwise dominate the loss.

    Parameters
    ----------
    alpha
        Weight of positives, with 1 - alpha for negatives; a negative number disables weighting.
    gamma
        How strongly easy elements are down-weighted; 0 gives (weighted) cross-entropy.
    prob_margin
        Subtracted from the probabilities of negatives first, so that negatives below it have zero loss.
    reduction, masking, negatives, label_smoothing, width_weight, wrong_label_weight, choice_weight
        As in every loss.

    Notes
    -----
    Source: Lin et al., "Focal Loss for Dense Object Detection" (2017). Computed from logits without clamping, so that
    very wrong elements keep their gradient.
    """

    def __init__(
        self,
        alpha: Annotated[Number, Field(le=1)] = 0.75,
        gamma: NonNegative = 2.0,
        prob_margin: Share = 0.0,
        reduction: Reduction = "sum",
        masking: Masking = "none",
        negatives: Share = 1.0,
        label_smoothing: Share = 0.0,
        width_weight: bool = False,
        wrong_label_weight: WrongLabelWeight = 1.0,
        choice_weight: NonNegative = 0.0,
    ) -> None:
        super().__init__(
            reduction, masking, negatives, label_smoothing, width_weight, wrong_label_weight, choice_weight
        )
        self.alpha = alpha
        self.gamma = gamma
        self.prob_margin = prob_margin

    @property
    def balance(self) -> float:
        """Weight of a positive element relative to a negative one."""
        return self.alpha / (1 - self.alpha) if 0 <= self.alpha < 1 else 1.0

    def elements(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each element."""
        prob = torch.sigmoid(logits)
        if self.prob_margin > 0:
            lowered = (prob - self.prob_margin).clamp(min=0)
            loss = -targets * F.logsigmoid(logits) - (1 - targets) * torch.log1p(-lowered.clamp(max=1 - 1e-6))
        else:
            lowered = prob
            loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if self.gamma > 0:
            missed = 1 - prob * targets - (1 - lowered) * (1 - targets)
            loss = loss * _power(missed.clamp(min=0), self.gamma)
        if self.alpha >= 0:
            loss = loss * (self.alpha * targets + (1 - self.alpha) * (1 - targets))
        return loss


def _power(base: Tensor, exponent: float) -> Tensor:
    """Return ``base ** exponent``; for an exponent below 1 the gradient at 0 is 0, not infinite.

    A base of 0 belongs to an element without loss, whose gradient is 0.
    """
    if exponent >= 1:
        return base**exponent
    positive = base > 0
    return torch.where(positive, torch.where(positive, base, 1.0) ** exponent, 0.0)
