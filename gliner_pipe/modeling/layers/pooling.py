"""From the vectors of pieces to the vectors of words."""

from __future__ import annotations

import torch
from torch import Tensor


def pool_words(hidden: Tensor, start: Tensor, count: Tensor, how: str) -> Tensor:
    """Pool the pieces of each word.

    Parameters
    ----------
    hidden
        Vectors of the pieces, ``(rows, pieces, hidden)``.
    start, count
        First piece and number of pieces of each word, ``(rows, words)``.
    how
        ``first``, ``last``, ``mean`` or ``max``.

    Returns
    -------
    Tensor
        ``(rows, words, hidden)``; zero for words without pieces.
    """
    width = hidden.shape[-1]
    if how in ("first", "last"):
        at = start if how == "first" else start + (count - 1).clamp(min=0)
        return hidden.gather(1, at[:, :, None].expand(-1, -1, width)) * (count > 0)[:, :, None]
    if torch.onnx.is_in_onnx_export():
        return _pool_by_mask(hidden, start, count, how)
    rows, words = count.shape
    flat_words = torch.arange(rows * words, device=hidden.device).repeat_interleave(count.flatten())
    first_of_word = (count.flatten().cumsum(0) - count.flatten()).repeat_interleave(count.flatten())
    within = torch.arange(len(flat_words), device=hidden.device) - first_of_word
    pieces = hidden[flat_words // words, start.flatten()[flat_words] + within]
    pooled = hidden.new_zeros(rows * words, width)
    if how == "mean":
        pooled = pooled.index_add(0, flat_words, pieces) / count.flatten().clamp(min=1)[:, None]
    else:
        at = flat_words[:, None].expand(-1, width)
        pooled = pooled.scatter_reduce(0, at, pieces, "amax", include_self=False)
    return pooled.view(rows, words, width)


def _pool_by_mask(hidden: Tensor, start: Tensor, count: Tensor, how: str) -> Tensor:
    """The mean or maximum of each word's pieces, without a tensor whose size depends on what is in others."""
    at = torch.arange(hidden.shape[1], device=hidden.device)
    inside = (at >= start[:, :, None]) & (at < (start + count)[:, :, None])  # (rows, words, pieces)
    if how == "mean":
        return inside.to(hidden.dtype) @ hidden / count.clamp(min=1)[:, :, None]
    # pieces of no word go to a place behind all words
    of_word = torch.where(inside.any(1), inside.to(torch.uint8).argmax(1), count.shape[1])
    lowest = hidden.new_full((hidden.shape[0], count.shape[1] + 1, hidden.shape[2]), -torch.inf)
    pooled = lowest.scatter_reduce(1, of_word[:, :, None].expand_as(hidden), hidden, "amax")[:, :-1]
    return torch.where(count[:, :, None] > 0, pooled, 0.0)
