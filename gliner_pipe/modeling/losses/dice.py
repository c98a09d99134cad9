"""The loss ``gliner_pipe.dice``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gliner_pipe.modeling.losses.base import Loss, Masking, Reduction, WrongLabelWeight
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import NonNegative, Share

#: Keeps the quotient finite if numerator and denominator are zero.
EPSILON = 1e-6


@registry.losses.register("gliner_pipe.dice")
class DiceLoss(Loss):
    """One minus the Dice coefficient of each score and its target: close to F1, and insensitive to many negatives.

    Use it if entities are so rare that ``gliner_pipe.focal`` finds too few. Very wrong scores have almost no gradient:
    start from a trained model, or with a lower learning rate.

    Parameters
    ----------
    gamma
        How strongly high scores are down-weighted, as ``(1 - p) ** gamma * p``; 0 for the plain coefficient.
    reduction, masking, negatives, label_smoothing, width_weight, wrong_label_weight, choice_weight
        As in every loss.

    Notes
    -----
    Source: Li et al., "Dice Loss for Data-imbalanced NLP Tasks" (2020), element by element as in GLiNER. The
    coefficient of a positive is highest, but below 1, at ``p = 1 / (1 + gamma)``: gamma above 0 keeps scores from
    approaching 1.
    """

    def __init__(
        self,
        gamma: NonNegative = 1.0,
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
        self.gamma = gamma

    def elements(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each element."""
        prob = torch.sigmoid(logits)
        if self.gamma >= 1:
            prob = prob * torch.sigmoid(-logits) ** self.gamma
        elif self.gamma > 0:  # the gradient of the power is infinite where the sigmoid is 0
            prob = prob * torch.exp(self.gamma * F.logsigmoid(-logits))
        return 1 - (2 * prob * targets + EPSILON) / (prob + targets + EPSILON)
