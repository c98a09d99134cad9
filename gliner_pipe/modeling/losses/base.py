"""Base class of losses: a sum over the unmasked elements, never a mean over a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gliner_pipe.modeling.block import Block
from gliner_pipe.util.ranges import NonNegative, Share

#: Maximum number of elements whose loss is computed at once: some ten temporary tensors of 4 MiB each.
ELEMENTS_AT_ONCE = 1 << 20

Reduction = Literal["sum", "mean"]
Masking = Literal["none", "global", "label", "span"]
WrongLabelWeight = NonNegative | Literal["balanced"]


class Loss(Block):
    """Loss over the scores of spans for labels.

    The caller divides the sum over all sub-batches of a step by one number, see ``denominator``, so that a step does
    not depend on how its batch was split.

    Parameters
    ----------
    reduction
        ``"sum"``: the loss of a step is the sum over all its spans and labels. ``"mean"``: that sum divided by the
        number of its spans.
    masking
        Which negatives may be dropped at random: ``"none"``; ``"global"``, each negative independently; ``"label"``,
        all negatives of a label without positives in the text; ``"span"``, all negatives of a span without positives.
    negatives
        Probability of keeping such a negative (or label, or span).
    label_smoothing
        Moves the targets 0 and 1 towards 0.5 by half of this.
    width_weight
        Weight the loss of an entity of k words by ``1 + ln(k)``: long entities are rare and otherwise learned late. No
        effect on the scores of words, pairs or selected spans, which have no width axis.
    wrong_label_weight
        Weight of the other labels of an entity's span (or related pair), relative to all other negatives. They teach
        which label is right; spans that are no entity outnumber them. ``"balanced"``: together they count as much as
        the right label, and each at least as much as any negative; of the focal loss this is
        ``alpha / (1 - alpha) / (labels - 1)``.
    choice_weight
        Weight of a second term, for entities (or related pairs) only: the cross-entropy of each right label against the
        wrong ones. It teaches which label is right even while all scores are low, where the wrong labels of the focal
        loss have hardly any gradient, and moves no score but relative to the others.
    """

    family = "losses"

    def __init__(
        self,
        reduction: Reduction = "sum",
        masking: Masking = "none",
        negatives: Share = 1.0,
        label_smoothing: Share = 0.0,
        width_weight: bool = False,
        wrong_label_weight: WrongLabelWeight = 1.0,
        choice_weight: NonNegative = 0.0,
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.masking = masking
        self.negatives = negatives
        self.label_smoothing = label_smoothing
        self.width_weight = width_weight
        self.wrong_label_weight = wrong_label_weight
        self.choice_weight = choice_weight

    @abstractmethod
    def elements(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each element; arguments and result have the same shape, targets are in [0, 1]."""

    def forward(
        self,
        logits: Tensor,
        targets: Tensor,
        mask: Tensor,
        by_width: bool = False,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Return the summed loss.

        Parameters
        ----------
        logits, targets
            ``(rows, words, widths, labels)``; targets may be boolean.
        mask
            True for elements that count, broadcast to that shape.
        by_width
            Whether the third axis holds spans of 1, 2, 3 ... words.
        weights
            Weight of each element, broadcast to that shape; None for 1.

        Returns
        -------
        Tensor
            A scalar.
        """
        rows = max(1, ELEMENTS_AT_ONCE // max(1, logits[:1].numel()))
        mask = mask.expand(logits.shape)
        every = None if weights is None else weights.expand(logits.shape)

        def loss_of(chunk: Tensor, start: int) -> Tensor:
            here = slice(start, start + len(chunk))
            return self._sum(
                chunk, targets[here], mask[here], by_width, None if every is None else every[here]
            )

        total: Tensor = _ChunkedSum.apply(logits, loss_of, rows)
        return total

    @property
    def balance(self) -> float:
        """Weight of a positive element relative to a negative one."""
        return 1.0

    def denominator(self, count: float) -> float:
        """Return the number by which the sum of a step is divided, given its number of spans."""
        return max(count, 1.0) if self.reduction == "mean" else 1.0

    def _sum(
        self, logits: Tensor, targets: Tensor, mask: Tensor, by_width: bool, weights: Tensor | None
    ) -> Tensor:
        """Return the summed loss of some rows."""
        targets = targets.to(logits.dtype)
        smooth = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = self.elements(logits, smooth if self.label_smoothing else targets)
        if self.width_weight and by_width:
            widths = torch.arange(1, logits.shape[2] + 1, device=logits.device, dtype=losses.dtype)
            losses = losses * (1 + targets * widths.log()[:, None])
        if self.wrong_label_weight != 1:
            right = targets > 0
            wrong = right.any(-1, keepdim=True) & ~right
            losses = torch.where(wrong, self._weight_of(wrong & mask) * losses, losses)
        if weights is not None:
            losses = losses * weights
        choice: Tensor | float = 0.0
        if self.choice_weight:
            choice = self.choice_weight * _choice(logits, targets > 0, mask, weights)
        if self.masking != "none" and self.negatives < 1:
            mask = mask & self._kept(targets > 0)
        return torch.where(mask, losses, 0.0).sum() + choice

    def _weight_of(self, wrong: Tensor) -> Tensor | float:
        """Return the weight of the wrong labels, given where they are."""
        if self.wrong_label_weight == "balanced":
            return (self.balance / wrong.sum(-1, keepdim=True).clamp(min=1)).clamp(min=1.0)
        return float(self.wrong_label_weight)

    def _kept(self, positive: Tensor) -> Tensor:
        """Draw the mask of kept elements: all groups with a positive, and a share of the others."""
        if self.masking == "label":
            positive = positive.any(2, keepdim=True).any(1, keepdim=True)
        elif self.masking == "span":
            positive = positive.any(3, keepdim=True)
        return positive | (torch.rand(positive.shape, device=positive.device) < self.negatives)


def _choice(logits: Tensor, right: Tensor, mask: Tensor, weights: Tensor | None) -> Tensor:
    """Return the summed cross-entropy of each right label against the wrong labels of its span."""
    right = right & mask
    some = right.any(-1)
    logits, right, wrong = logits[some], right[some], (mask & ~right)[some]
    others = logits.masked_fill(~wrong, torch.finfo(logits.dtype).min / 2).logsumexp(-1, keepdim=True)
    losses = F.softplus(others - logits)
    return (losses if weights is None else losses * weights[some])[right].sum()


class _ChunkedSum(torch.autograd.Function):
    """Sums a function over chunks of rows, and computes the gradient of each chunk in the forward pass.

    Memory is bounded by the scores, their gradient and the temporary tensors of one chunk.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, loss_of: Callable[[Tensor, int], Tensor], rows: int) -> Tensor:
        # at least fp32: the loss scale only multiplies the gradient in the backward pass, too late for underflow
        dtype = torch.promote_types(logits.dtype, torch.float32)
        total = logits.new_zeros((), dtype=dtype)
        grad = torch.zeros_like(logits, dtype=dtype) if ctx.needs_input_grad[0] else None
        for start in range(0, len(logits), rows):
            chunk = logits[start : start + rows].detach().to(dtype)
            with torch.set_grad_enabled(grad is not None):
                value = loss_of(chunk.requires_grad_(grad is not None), start)
            total += value.detach()
            if grad is not None and value.requires_grad:
                grad[start : start + rows] = torch.autograd.grad(value, chunk)[0]
        if grad is not None:
            ctx.save_for_backward(grad)
        ctx.dtype = logits.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return (grad * grads[0]).to(ctx.dtype), None, None
