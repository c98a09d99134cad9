"""Relation layers in which entities exchange information before pairs are scored: ``gcn`` and ``gat``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.block import check_divides
from gliner_pipe.modeling.relation_layers.base import SizedLayer, inner_products
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Size


def attention(hidden_size: int, n_heads: int) -> nn.MultiheadAttention:
    """Create an attention layer; a :class:`ConfigError` if the number of heads does not divide the width."""
    check_divides("relation_layer.n_heads", n_heads, hidden_size)
    return nn.MultiheadAttention(hidden_size, n_heads, batch_first=True)


def attention_weights(layer: nn.MultiheadAttention, entities: Tensor, mask: Tensor) -> Tensor:
    """Return the attention weights of all pairs of entities, ``(groups, heads, entities, entities)``.

    A group of padding alone attends to its padding, so that the weights are finite; the caller masks them.
    """
    query, key = _projected(layer, entities, 0), _projected(layer, entities, 1)
    keys = mask | ~mask.any(1, keepdim=True)
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(2, 3)
    return logits.masked_fill(~keys[:, None, None, :], float("-inf")).softmax(-1)


def attended(layer: nn.MultiheadAttention, entities: Tensor, mask: Tensor) -> Tensor:
    """Return the attention output, ``(groups, entities, hidden)``."""
    values = attention_weights(layer, entities, mask) @ _projected(layer, entities, 2)
    out: Tensor = layer.out_proj(values.transpose(1, 2).flatten(2))
    return out


def _projected(layer: nn.MultiheadAttention, entities: Tensor, part: int) -> Tensor:
    """Return queries (0), keys (1) or values (2), ``(groups, heads, entities, width)``."""
    size = layer.embed_dim
    rows = slice(part * size, (part + 1) * size)
    projected = F.linear(entities, layer.in_proj_weight[rows], layer.in_proj_bias[rows])
    return projected.unflatten(2, (layer.num_heads, size // layer.num_heads)).transpose(1, 2)


@registry.relation_layers.register("gat")
class GAT(SizedLayer):
    """One attention layer over all entities, a projection, then the sigmoid of inner products.

    Use it if a relation depends on which other entities there are. It is symmetric in head and tail.

    Parameters
    ----------
    size
        Width of the projection; that of the vectors by default.
    n_heads
        Number of attention heads; must divide the width of the vectors.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "gat"``; there a text without entities raises an error.
    """

    def __init__(self, size: Size | None = None, n_heads: Size = 8) -> None:
        super().__init__(size)
        self.n_heads = n_heads

    def build(self, hidden_size: int) -> None:
        """Create the attention layer and the projection."""
        self.attn = attention(hidden_size, self.n_heads)
        self.linear = nn.Linear(hidden_size, self.size or hidden_size)

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        vectors = self.linear(attended(self.attn, entities, mask))
        return inner_products(vectors, mask)


@registry.relation_layers.register("gcn")
class GCN(SizedLayer):
    """One graph convolution over the ``dot`` graph with self-loops, a projection, then the sigmoid of inner products.

    Use it if a relation depends on which other entities there are. It is symmetric in head and tail.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "gcn"``; Kipf and Welling, "Semi-Supervised Classification with Graph
    Convolutional Networks", 2017.
    """

    def build(self, hidden_size: int) -> None:
        """Create the convolution and the projection."""
        size = self.size or hidden_size
        self.gcn = nn.ModuleDict({"linear": nn.Linear(hidden_size, size)})
        self.proj = nn.Linear(size, size)

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        graph = inner_products(entities, mask)
        graph = graph + torch.diag_embed(mask.to(graph.dtype))
        scale = graph.sum(-1).clamp(min=1e-6).rsqrt()
        graph = scale[:, :, None] * graph * scale[:, None, :]
        vectors = self.proj(self.gcn["linear"](graph @ entities).relu())
        return inner_products(vectors, mask)
