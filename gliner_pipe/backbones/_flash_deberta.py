"""The kernel of the package `flashdeberta`: attention over content and distance that stays out of a GPU's memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

#: Widths of a head that the kernel has.
WIDTHS = (16, 32, 64, 128)

#: Set when the kernel failed: it is not tried again.
_failed = False


def flash_runs(query: Tensor, dropout: float) -> bool:
    """Whether the kernel can take these queries, ``(rows, length, heads, width)``: on CUDA, in 16 bits, no dropout."""
    return (
        query.is_cuda
        and query.dtype in (torch.float16, torch.bfloat16)
        and query.shape[-1] in WIDTHS
        and dropout == 0
        and not torch.compiler.is_compiling()
        and not _failed
        and _kernel() is not None
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
    """Attend to contents and to distances in one kernel, where ``flash_runs``.

    Parameters
    ----------
    query, key, value
        ``(rows, length, heads, width)``.
    position_key, position_query
        What queries and keys are compared with for each distance that has an embedding, from the most negative one up,
        ``(heads, distances, width)``. None: they are not compared with distances.
    allowed
        True where a query may see a key, ``(rows, 1, length, length)``, padding on the right; None without padding.
    scale
        Factor of all products.
    buckets
        Embeddings of the distances to one side; 0 or less where there is one for each distance up to `reach`.
    reach
        The farthest distance that is told from those beyond.

    Returns
    -------
    Tensor or None
        ``(rows, length, heads * width)``, zero for padding; None where the kernel failed.
    """
    global _failed
    kernel = _kernel()
    assert kernel is not None  # see ``flash_runs``
    # the lengths of the texts are what the diagonal allows
    lengths = None if allowed is None else allowed[:, 0].diagonal(dim1=1, dim2=2).sum(1, dtype=torch.int32)
    content = (part.transpose(1, 2) for part in (query, key, value))
    positions = (None if table is None else table[None] for table in (position_key, position_query))
    try:
        mixed: Tensor = kernel(*content, lengths, *positions, False, scale, max(buckets, 0), reach)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever the compiler of a kernel may raise
        reason = " ".join(str(error).split())[:200]
        logger.warning("The kernel of flashdeberta failed (%s); attention goes on without it.", reason)
        _failed = True
        return None
    return mixed.transpose(1, 2).flatten(2)


@cache
def _kernel() -> Callable[..., Any] | None:
    """The kernel; None where the package or Triton is missing."""
    if find_spec("flashdeberta") is None:
        return None
    try:
        from flashdeberta.ops.flash_attention import flash_attention_with_disentangled
    except ImportError as error:
        logger.warning("flashdeberta cannot be imported (%s); attention goes on without it.", error)
        return None
    kernel: Callable[..., Any] = flash_attention_with_disentangled
    return kernel
