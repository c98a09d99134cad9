"""The loss ``gliner_pipe.bce``."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gliner_pipe.modeling.losses.base import Loss
from gliner_pipe.registry import registry


@registry.losses.register("gliner_pipe.bce")
class BCELoss(Loss):
    """Binary cross-entropy of each span and label.

    Use it if scores must be calibrated probabilities and there is plenty of training data; with little data
    ``gliner_pipe.focal`` has better recall.
    """

    def elements(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each element."""
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
