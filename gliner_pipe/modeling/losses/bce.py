"""Binary cross entropy."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gliner_pipe.modeling.losses.base import Loss
from gliner_pipe.registry import registry


@registry.losses.register("gliner_pipe.bce")
class BCELoss(Loss):
    """Plain binary cross entropy, each span and label by itself.

    Use it where scores must be probabilities (thresholds taken at face value) and there is plenty of data; with few
    data ``gliner_pipe.focal`` finds more.

    Parameters
    ----------
    reduction, masking, negatives, label_smoothing, width_weight
        As in every loss.
    """

    def elements(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of each element."""
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
