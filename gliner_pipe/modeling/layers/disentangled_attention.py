"""Disentangled attention of DeBERTa: content and relative position, without gathering per-pair tables.

Uses the fused GPU kernel of the package ``flashdeberta`` if it is installed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from gliner_pipe.errors import reason_of
from gliner_pipe.util.devices import has_flash_attention, is_out_of_memory

#: Largest number of positions whose products with distances are computed at once. Neighbours share most of their
#: distances, but the larger a block, the more of its products are unused.
BLOCK = 64


def skew(scores: Tensor) -> Tensor:
    """Return scores by position from scores by distance.

    Row i of the result starts at column ``n - 1 - i`` of row i of `scores`. This takes strides only: nothing is copied.

    Parameters
    ----------
    scores
        ``(..., n, n + m - 1)``, contiguous.

    Returns
    -------
    Tensor
        ``(..., n, m)``, a view: element ``(i, j)`` is that in row i, column ``n - 1 - i + j``.
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
    """Attend to contents and to relative positions.

    Parameters
    ----------
    query, key, value
        ``(rows, length, heads, width)``.
    position_key
        The vector that a query is compared with for each distance, times `scale`, from distance ``length - 1`` (the key
        is to the left) down to ``1 - length``: ``(heads, 2 * length - 1, width)``. None without content-to-position
        attention.
    position_query
        The vector that a key is compared with for each distance, times `scale`, from distance ``1 - length`` up. None
        without position-to-content attention.
    allowed
        True where the query of a row may attend to the key of a column, ``(rows, 1, length, length)``; None without
        restriction. A query without any key gets the mean of all values.
    scale
        Factor of the products of contents.
    dropout
        Dropout rate of the attention weights.

    Returns
    -------
    Tensor
        ``(rows, length, heads * width)``.
    """
    rows, n, heads, width = query.shape
    # heads first: a product with distances is one large product per head, and no table is repeated for each row
    query, key, value = (x.permute(2, 0, 1, 3).contiguous() for x in (query, key, value))
    forbidden = None if allowed is None else ~allowed.transpose(0, 1)
    mixed = attend(query, key, value, position_key, position_query, forbidden, scale, dropout)
    return mixed.permute(1, 2, 0, 3).reshape(rows, n, heads * width)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position_key: Tensor | None,
    position_query: Tensor | None,
    forbidden: Tensor | None,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Attend as ``disentangled_attention`` does, to contiguous parts ``(heads, rows, length, width)``, and return such.

    `forbidden` is True where a query may not attend to a key; it broadcasts to ``(heads, rows, length, length)``.
    """
    bias = _bias(query, key, position_key, position_query)
    if query.is_cuda and bias is not None:
        return _fused(query, key, value, bias, forbidden, scale, dropout)
    return _unfused(query, key, value, bias, forbidden, scale, dropout)


def _unfused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    forbidden: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attend step by step: on a CPU as fast as the fused kernel of PyTorch, and faster in bf16."""
    shape = query.shape
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    if bias is None:
        scores = torch.bmm(query, key.transpose(1, 2)).mul_(scale)
    else:
        scores = bias.flatten(0, 1).baddbmm_(query, key.transpose(1, 2), alpha=scale)
    if forbidden is not None:
        lowest = torch.finfo(scores.dtype).min
        scores = scores.view(*shape[:3], -1).masked_fill_(forbidden, lowest).flatten(0, 1)
    weights = F.dropout(scores.softmax(-1), dropout)
    return torch.bmm(weights.to(value.dtype), value).view(shape)


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    forbidden: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attend in the fused kernel of PyTorch, which on a GPU does not store the attention weights.

    In fp16 a query without any key gets the same result as without a mask: the lowest value of fp16 is too high to make
    all of its scores equal.
    """
    if forbidden is not None:
        bias = bias.masked_fill_(forbidden, torch.finfo(bias.dtype).min)
    return F.scaled_dot_product_attention(query, key, value, bias, dropout, scale=scale)


def _bias(
    query: Tensor, key: Tensor, position_key: Tensor | None, position_query: Tensor | None
) -> Tensor | None:
    """Return the scores of contents with distances, ``(heads, rows, queries, keys)``, contiguous."""
    bias = None
    if position_query is not None:
        # copies the transposed scores, at a third of the cost of adding them as they are
        bias = torch.cat([part.transpose(2, 3) for part in _by_position(key, position_query)], 3)
    if position_key is not None:
        scores = torch.cat(_by_position(query, position_key), 2)
        bias = scores if bias is None else bias.add_(scores)
    return bias


def _by_position(content: Tensor, table: Tensor) -> list[Tensor]:
    """Return the products with the distances to all positions, ``(heads, rows, block, length)`` for each block."""
    n = content.shape[2]
    if torch.compiler.is_compiling() or n <= BLOCK:  # a loop would fix the length of a compiled graph
        return [_products(content, table)]
    size = -(-n // -(-n // BLOCK))
    parts = []
    for start in range(0, n, size):
        stop = min(start + size, n)
        parts.append(_products(content[:, :, start:stop], table[:, n - stop : 2 * n - 1 - start]))
    return parts


def _products(content: Tensor, table: Tensor) -> Tensor:
    by_distance = torch.bmm(content.flatten(1, 2), table.transpose(1, 2))
    return skew(by_distance.view(*content.shape[:3], -1))


logger = logging.getLogger(__name__)

#: Head widths that the kernel supports.
WIDTHS = (16, 32, 64, 128)

#: Whether the kernel has failed; it is then not tried again.
_failed = False


def flash_runs(query: Tensor, dropout: float) -> bool:
    """Whether the kernel supports these queries, ``(rows, length, heads, width)``.

    It needs a GPU of compute capability 8.0 or newer, 16 bits, and no dropout.
    """
    return (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] in WIDTHS
        and dropout == 0
        and not torch.compiler.is_compiling()
        and not _failed
        and _kernel() is not None
        and has_flash_attention(query.device)
    )


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position_key: Tensor | None,
    position_query: Tensor | None,
    allowed: Tensor | None,
    scale: float,
    buckets: int,
    reach: int,
) -> Tensor | None:
    """Attend to contents and to relative positions in the kernel of flashdeberta; requires ``flash_runs``.

    Parameters
    ----------
    query, key, value
        ``(rows, length, heads, width)``.
    position_key, position_query
        The vectors that queries and keys are compared with for each distance that has an embedding, from the most
        negative one up, ``(heads, distances, width)``. None without that comparison.
    allowed
        True where a query may attend to a key, ``(rows, 1, length, length)``, padding on the right; None without
        padding.
    scale
        Factor of all products.
    buckets
        Number of embeddings of the distances to one side; 0 or less for one embedding per distance up to `reach`.
    reach
        The farthest distance with an embedding of its own.

    Returns
    -------
    Tensor or None
        ``(rows, length, heads * width)``, zero for padding; None if the kernel fails.
    """
    global _failed
    kernel = _kernel()
    assert kernel is not None  # see ``flash_runs``
    # the diagonal of the mask is True up to the length of each text
    lengths = None if allowed is None else allowed[:, 0].diagonal(dim1=1, dim2=2).sum(1, dtype=torch.int32)
    content = (part.transpose(1, 2) for part in (query, key, value))
    positions = (None if table is None else table[None] for table in (position_key, position_query))
    try:
        with torch.cuda.device_of(query):  # Triton runs on the current device, whatever that of its inputs
            mixed: Tensor = kernel(*content, lengths, *positions, False, scale, max(buckets, 0), reach)
    except Exception as error:  # the compiler of a kernel raises errors of any class
        if is_out_of_memory(error):
            raise
        reason = reason_of(error, 200)
        logger.warning(
            "The kernel of flashdeberta failed (%s); attention of PyTorch is used instead.", reason
        )
        _failed = True
        return None
    return mixed.transpose(1, 2).flatten(2)


@cache
def _kernel() -> Callable[..., Any] | None:
    """Return the kernel; None if the package or Triton is missing."""
    if find_spec("flashdeberta") is None:
        return None
    try:
        from flashdeberta.ops.flash_attention import flash_attention_with_disentangled
    except ImportError as error:
        logger.warning("flashdeberta cannot be imported (%s); attention of PyTorch is used instead.", error)
        return None
    kernel: Callable[..., Any] = flash_attention_with_disentangled
    return kernel
