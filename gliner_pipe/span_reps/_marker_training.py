"""The scores of factored markers in training: one pass over the widths that keeps a byte a number for the way back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gliner_pipe.model.dropout import draw_kept, drawn_rate


def train_scores(
    first: Tensor, last: Tensor, weight: Tensor, bias: Tensor, max_width: int, dropout: float
) -> Tensor:
    """Score all spans, with gradients.

    The same as ``dropout(relu(first + last)) @ weight + bias`` width by width, by autograd; the hidden vectors, of
    which there are ``words x widths``, are made anew on the way back instead of being kept three times over, and those
    of spans that end beyond the row are never made.

    Parameters
    ----------
    first, last
        What the first and the last word of a span put into the hidden layer, ``(rows, words, inner)``.
    weight
        ``(rows, inner, labels)``.
    bias
        ``(rows, 1, labels)``.
    max_width
        Words in the widest span.
    dropout
        Share of the hidden layer that is dropped.

    Returns
    -------
    Tensor
        ``(rows, words, widths, labels)``; zero for spans that end beyond the row.
    """
    kind = first.dtype  # one for all, also where autocast chose others
    scores: Tensor = _Scores.apply(first, last.to(kind), weight.to(kind), bias.to(kind), max_width, dropout)
    return scores


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, first: Tensor, last: Tensor, weight: Tensor, bias: Tensor, max_width: int, dropout: float
    ) -> Tensor:
        rows, n_words, _ = first.shape
        scores = first.new_zeros(rows, n_words, max_width, weight.shape[2])
        kept, rate = [], drawn_rate(dropout)
        scaled = weight / (1 - rate) if rate < 1 else weight * 0.0
        for k in range(min(max_width, n_words)):
            hidden = first[:, : n_words - k] + last[:, k:]
            alive = hidden > 0
            if rate > 0:
                alive &= draw_kept(hidden, rate)
            hidden *= alive
            torch.baddbmm(bias, hidden, scaled, out=scores[:, : n_words - k, k])
            kept.append(alive)
        ctx.save_for_backward(first, last, scaled, *kept)
        ctx.rate = rate
        return scores

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        first, last, scaled, *kept = ctx.saved_tensors
        n_words = first.shape[1]
        to_first, to_last = torch.zeros_like(first), torch.zeros_like(last)
        to_weight = torch.zeros_like(scaled)
        back = scaled.transpose(1, 2)
        for k, alive in enumerate(kept):
            outer = grad[:, : n_words - k, k]
            hidden = (first[:, : n_words - k] + last[:, k:]).mul_(alive)
            to_weight.baddbmm_(hidden.transpose(1, 2), outer)
            inner = torch.bmm(outer, back).mul_(alive)
            to_first[:, : n_words - k] += inner
            to_last[:, k:] += inner
        to_weight *= 1 / (1 - ctx.rate) if ctx.rate < 1 else 0.0
        # spans beyond the row have no score, so that no bias was added to theirs
        sums = [grad[:, : n_words - k, k].sum(1, keepdim=True) for k in range(len(kept))]
        to_bias = torch.stack(sums).sum(0)
        return to_first, to_last, to_weight, to_bias, None, None
