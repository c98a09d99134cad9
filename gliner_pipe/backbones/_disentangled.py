"""Attention over content and distance, as in DeBERTa, without a gather and without distances that do not occur.

Source: He et al. 2021, DeBERTa: Decoding-enhanced BERT with Disentangled Attention.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: Queries that are looked at together: they need their distances to all keys, and those of one are nearly those of
#: its neighbours.
BLOCK = 64


def skew(scores: Tensor) -> Tensor:
    """From scores by distance to scores by position.

    Row i of the result starts ``n - 1 - i`` columns later in the row of `scores`: a matter of strides, so that nothing
    is copied.

    Parameters
    ----------
    scores
        ``(..., n, n + m - 1)``, contiguous.

    Returns
    -------
    Tensor
        ``(..., n, m)``, a view: element ``(i, j)`` is that of row i, column ``n - 1 - i + j``.
    """
    n, wide = scores.shape[-2:]
    if n == 1:
        return scores
    flat = scores.flatten(-2)[..., n - 1 : n * wide - 1]
    return flat.unflatten(-1, (n, wide - 1))[..., : wide - n + 1]


def disentangled_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position_key: Tensor | None,
    position_query: Tensor | None,
    allowed: Tensor | None,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Attend to contents and to distances.

    Parameters
    ----------
    query, key, value
        ``(rows, length, heads, width)``.
    position_key
        What a query is compared with for each distance, times `scale`, from distance ``length - 1`` (the key is to the
        left) down to ``1 - length``: ``(heads, 2 * length - 1, width)``. None: contents do not ask for distances.
    position_query
        What a key is compared with for each distance, times `scale`, from distance ``1 - length`` up. None likewise.
    allowed
        True where the query of a row may see the key of a column, ``(rows, 1, length, length)``; None where all may see
        all. A query that sees nothing gets the mean of all values.
    scale
        Factor of the products of contents.
    dropout
        Share of the attention that is dropped.

    Returns
    -------
    Tensor
        ``(rows, length, heads * width)``.
    """
    rows, n, heads, width = query.shape
    # heads first: the products with positions are one large product a head, and nothing is repeated for each row
    query, key, value = (x.permute(2, 0, 1, 3).reshape(heads * rows, n, width) for x in (query, key, value))
    bias = _bias(query, key, position_key, position_query, (heads, rows, n, width))
    if bias is None:
        scores = torch.bmm(query, key.transpose(1, 2)) * scale
    else:
        scores = bias.flatten(0, 1).baddbmm_(query, key.transpose(1, 2), alpha=scale)
    if allowed is not None:
        forbidden = ~allowed.transpose(0, 1)
        scores = scores.view(heads, rows, n, n).masked_fill_(forbidden, torch.finfo(scores.dtype).min)
        scores = scores.view(heads * rows, n, n)
    weights = F.dropout(scores.softmax(-1), dropout)
    mixed = torch.bmm(weights.to(value.dtype), value)
    return mixed.view(heads, rows, n, width).permute(1, 2, 0, 3).reshape(rows, n, heads * width)


def _bias(
    query: Tensor,
    key: Tensor,
    position_key: Tensor | None,
    position_query: Tensor | None,
    sizes: tuple[int, int, int, int],
) -> Tensor | None:
    """Scores of contents with distances, ``(heads, rows, length, length)``, contiguous."""
    heads, rows, n, width = sizes
    total = None
    if position_query is not None:
        by_distance = torch.bmm(key.view(heads, rows * n, width), position_query.transpose(1, 2))
        # a copy of transposed numbers costs a third of a sum with them
        total = skew(by_distance.view(heads, rows, n, -1)).transpose(2, 3).contiguous()
    if position_key is not None:
        by_distance = torch.bmm(query.view(heads, rows * n, width), position_key.transpose(1, 2))
        others = skew(by_distance.view(heads, rows, n, -1))
        total = others.contiguous() if total is None else total.add_(others)
    return total
