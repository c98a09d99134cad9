"""The contract of a loss: a sum over the elements that count, never a mean over a batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from gliner_pipe.modeling.block import Block

#: Elements whose loss is computed at once; 4 MiB for each of some ten numbers an element.
ELEMENTS_AT_ONCE = 1 << 20

Masking = Literal["none", "global", "label", "span"]


class Loss(Block):
    """Loss over the scores of spans for labels.

    The caller divides the sums of all sub-batches of a step by one number, see ``denominator``: so a step does not
    depend on how its batch was cut.

    Parameters
    ----------
    reduction
        ``"sum"``: the loss of a step is the sum over all its spans and labels. ``"mean"``: that sum divided by the
        number of its spans.
    masking
        Which negatives may be left out of a step: ``"none"``; ``"global"``, each by itself; ``"label"``, all of a
        label that a text has no positive of; ``"span"``, all of a span that has no positive.
    negatives
        Probability with which such a negative (or label, or span) is kept.
    label_smoothing
        Moves targets 0 and 1 towards one half by half of this.
    width_weight
        Weigh the loss of an entity of k words by ``1 + ln(k)``: long ones are rare, and else learned late. Heads that
        score words, pairs or chosen spans know no widths and take no notice.
    """

    family = "losses"

    def __init__(
        self,
        reduction: Literal["sum", "mean"] = "sum",
        masking: Masking = "none",
        negatives: float = 1.0,
        label_smoothing: float = 0.0,
        width_weight: bool = False,
    ) -> None:
        super().__init__()
        self.width_weight = width_weight
        self.reduction = reduction
        self.masking = masking
        self.negatives = negatives
        self.label_smoothing = label_smoothing

    @abstractmethod
    def elements(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of each element; both arguments and the result have one shape, targets lie in [0, 1]."""

    def forward(self, logits: Tensor, targets: Tensor, mask: Tensor, by_width: bool = False) -> Tensor:
        """Sum the loss.

        Parameters
        ----------
        logits, targets
            ``(rows, words, widths, labels)``; targets may be boolean.
        mask
            True for what counts, broadcast to that shape.
        by_width
            Whether the third axis holds spans of 1, 2, 3 ... words.

        Returns
        -------
        Tensor
            A number: the sum.
        """
        rows = max(1, ELEMENTS_AT_ONCE // max(1, logits[:1].numel()))
        mask = mask.expand(logits.shape)

        def part(some: Tensor, start: int) -> Tensor:
            here = slice(start, start + len(some))
            return self._sum(some, targets[here], mask[here], by_width)

        total: Tensor = _InParts.apply(logits, part, rows)
        return total

    def _sum(self, logits: Tensor, targets: Tensor, mask: Tensor, by_width: bool) -> Tensor:
        """Sum the loss of some rows."""
        targets = targets.to(logits.dtype)
        smooth = targets * (1 - self.label_smoothing) + self.label_smoothing / 2
        losses = self.elements(logits, smooth if self.label_smoothing else targets)
        if self.width_weight and by_width:
            widths = torch.arange(1, logits.shape[2] + 1, device=logits.device, dtype=losses.dtype)
            losses = losses * (1 + targets * widths.log()[:, None])
        if self.masking != "none" and self.negatives < 1:
            mask = mask & self._kept(targets)
        return torch.where(mask, losses, 0.0).sum()

    def denominator(self, count: float) -> float:
        """What the sum of a step is divided by, given the spans it is over."""
        return max(count, 1.0) if self.reduction == "mean" else 1.0

    def _kept(self, targets: Tensor) -> Tensor:
        positive = targets > 0
        if self.masking == "label":
            positive_group = positive.any(2, keepdim=True).any(1, keepdim=True)
        elif self.masking == "span":
            positive_group = positive.any(3, keepdim=True)
        else:
            positive_group = positive
        drawn = torch.rand(positive_group.shape, device=targets.device) < self.negatives
        return positive_group | drawn


class _InParts(torch.autograd.Function):
    """The sum of a function of some rows after the other, whose gradient is taken at once.

    A sum passes its gradient on as it is, so that no row needs to be remembered: beyond the scores and their gradient,
    there is never more in memory than some rows need.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, part: Callable[[Tensor, int], Tensor], rows: int) -> Tensor:
        # in full precision: a gradient that is scaled up only on the way back must not be lost before
        kind = torch.promote_types(logits.dtype, torch.float32)
        total = logits.new_zeros((), dtype=kind)
        grad = torch.zeros_like(logits, dtype=kind) if ctx.needs_input_grad[0] else None
        for start in range(0, len(logits), rows):
            some = logits[start : start + rows].detach().to(kind)
            with torch.set_grad_enabled(grad is not None):
                value = part(some.requires_grad_(grad is not None), start)
            total += value.detach()
            if grad is not None and value.requires_grad:
                grad[start : start + rows] = torch.autograd.grad(value, some)[0]
        if grad is not None:
            ctx.save_for_backward(grad)
        ctx.kind = logits.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return (grad * grads[0]).to(ctx.kind), None, None
