"""Pooling over the layers of a transformer, and from subword tokens to words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class LayerFusion(nn.Module):
    """Weighted sum of the layers of a transformer, with weights that depend on the text.

    Squeeze-and-excitation over layers, as GLiNER's ``fuse_layers``.

    Parameters
    ----------
    n_layers
        Number of layers, without the embeddings.
    hidden_size
        Width of the layers and of the result.
    """

    def __init__(self, n_layers: int, hidden_size: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(hidden_size, 1)
        self.W1 = nn.Linear(n_layers, n_layers // 2)
        self.W2 = nn.Linear(n_layers // 2, n_layers)
        self.output_projection = nn.Linear(hidden_size, hidden_size)

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Fuse `layers`, each ``(rows, tokens, hidden)``; padding (`mask` 0) does not affect the weights."""
        stacked = torch.stack(list(layers), dim=1)
        weight = mask[:, None, :].to(stacked.dtype)
        squeezed = (self.squeeze(stacked).squeeze(-1) * weight).sum(-1) / weight.sum(-1)
        gates = torch.sigmoid(self.W2(torch.relu(self.W1(squeezed))))
        return self.output_projection((stacked * gates[:, :, None, None]).sum(1))


def pool_words(hidden: Tensor, start: Tensor, count: Tensor, how: str) -> Tensor:
    """Pool the subword tokens of each word.

    Parameters
    ----------
    hidden
        Vectors of the subword tokens, ``(rows, tokens, hidden)``.
    start, count
        First subword token of each word and their number, ``(rows, words)``.
    how
        ``first``, ``last``, ``mean`` or ``max``.

    Returns
    -------
    Tensor
        ``(rows, words, hidden)``; zero for words without subword tokens.
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
    tokens = hidden[flat_words // words, start.flatten()[flat_words] + within]
    pooled = hidden.new_zeros(rows * words, width)
    if how == "mean":
        pooled = pooled.index_add(0, flat_words, tokens) / count.flatten().clamp(min=1)[:, None]
    else:
        at = flat_words[:, None].expand(-1, width)
        pooled = pooled.scatter_reduce(0, at, tokens, "amax", include_self=False)
    return pooled.view(rows, words, width)


def _pool_by_mask(hidden: Tensor, start: Tensor, count: Tensor, how: str) -> Tensor:
    """Mean or maximum over the subword tokens of each word, without tensors of data-dependent size."""
    at = torch.arange(hidden.shape[1], device=hidden.device)
    inside = (at >= start[:, :, None]) & (at < (start + count)[:, :, None])  # (rows, words, tokens)
    if how == "mean":
        return inside.to(hidden.dtype) @ hidden / count.clamp(min=1)[:, :, None]
    # subword tokens outside all words are scattered to an extra last word
    of_word = torch.where(inside.any(1), inside.to(torch.uint8).argmax(1), count.shape[1])
    lowest = hidden.new_full((hidden.shape[0], count.shape[1] + 1, hidden.shape[2]), -torch.inf)
    pooled = lowest.scatter_reduce(1, of_word[:, :, None].expand_as(hidden), hidden, "amax")[:, :-1]
    return torch.where(count[:, :, None] > 0, pooled, 0.0)
