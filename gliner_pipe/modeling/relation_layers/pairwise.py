"""Relation layers that score every pair of entities on its own."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.relation_layers.base import (
    RelationLayer,
    SizedLayer,
    inner_products,
    masked,
    pairs_of,
)
from gliner_pipe.modeling.relation_layers.graph import attention, attention_weights
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Share, Size


@registry.relation_layers.register("attention")
class Attention(RelationLayer):
    """The attention of each head entity to each tail entity, averaged over attention heads.

    The scores of one head entity sum to 1, so a head with several tails has lower scores: set ``adjacency_threshold``
    well below 0.5.

    Parameters
    ----------
    n_heads
        Number of attention heads; must divide the width of the vectors.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "attention"``, also written ``"attn"``; there a text without entities raises an
    error. The attention layer's values and output projection are unused and only kept for GLiNER's checkpoints.
    """

    def __init__(self, n_heads: Size = 8) -> None:
        super().__init__()
        self.n_heads = n_heads

    def build(self, hidden_size: int) -> None:
        """Create the attention layer."""
        self.attn = attention(hidden_size, self.n_heads)
        # unused: without a gradient no optimizer changes or decays it
        self.attn.out_proj.requires_grad_(False)

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        return masked(attention_weights(self.attn, entities, mask).mean(1), mask)


@registry.relation_layers.register("biaffine")
class Biaffine(SizedLayer):
    """Sigmoid of ``h U t + u h + v t + b``, where ``h`` and ``t`` are projections of head and tail.

    Use it if relations have a direction, which is nearly always: head and tail have separate weights, so that
    ``[i, j]`` and ``[j, i]`` differ.

    Parameters
    ----------
    size
        Width of the projections; that of the entity vectors by default.
    dropout
        Dropout rate of the projections.

    Notes
    -----
    Source: Dozat and Manning, "Deep Biaffine Attention for Neural Dependency Parsing", 2017. GLiNER's documentation
    mentions it, but its code has no such layer.
    """

    def __init__(self, size: Size | None = None, dropout: Share = 0.1) -> None:
        super().__init__(size)
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Create the projections and the three terms."""
        size = self.size or hidden_size
        self.head = nn.Linear(hidden_size, size)
        self.tail = nn.Linear(hidden_size, size)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(size, size)))
        self.head_term = nn.Linear(size, 1, bias=False)
        self.tail_term = nn.Linear(size, 1)

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        head = self._projected(self.head, entities)
        tail = self._projected(self.tail, entities)
        both = (head @ self.weight) @ tail.transpose(1, 2)
        logits = both + self.head_term(head) + self.tail_term(tail).transpose(1, 2)
        return masked(logits.sigmoid(), mask)

    def _projected(self, layer: nn.Linear, entities: Tensor) -> Tensor:
        return F.dropout(F.leaky_relu(layer(entities), 0.1), self.dropout, self.training)


@registry.relation_layers.register("bilinear")
class Bilinear(SizedLayer):
    """Sigmoid of the inner product after one projection, shared by head and tail.

    Use it if relations have no direction; otherwise use ``biaffine``.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "bilinear"``.
    """

    def build(self, hidden_size: int) -> None:
        """Create the projection."""
        self.proj = nn.Linear(hidden_size, self.size or hidden_size)

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        return inner_products(self.proj(entities), mask)


@registry.relation_layers.register("dot")
class Dot(RelationLayer):
    """Sigmoid of the inner product, without weights.

    Use it as a baseline. It is symmetric in head and tail, and with wide vectors it is close to 0 or 1 before training.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "dot"``.
    """

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        return inner_products(entities, mask)


@registry.relation_layers.register("mlp")
class MLP(SizedLayer):
    """Sigmoid of ``W2 relu(W1 [head; tail] + b1) + b2``.

    Use it if relations have a direction and texts have few entities: it holds a hidden layer for each pair. The first
    layer is computed once per entity and side instead of once per pair, with the same result.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "mlp"``.
    """

    def build(self, hidden_size: int) -> None:
        """Create the two layers."""
        size = self.size or hidden_size
        self.mlp = nn.Sequential(nn.Linear(2 * hidden_size, size), nn.ReLU(), nn.Linear(size, 1))

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        first, last = self.mlp[0], self.mlp[2]
        assert isinstance(first, nn.Linear)
        hidden_size = entities.shape[-1]
        head = F.linear(entities, first.weight[:, :hidden_size], first.bias)
        tail = F.linear(entities, first.weight[:, hidden_size:])
        hidden = (head[:, :, None] + tail[:, None]).relu()
        return masked(last(hidden).squeeze(-1).sigmoid(), mask)


@registry.relation_layers.register("none")
class AllPairs(RelationLayer):
    """Proposes every ordered pair of two different entities, so that the triple scorer alone decides.

    Use it if texts have few entities, as the number of pairs is quadratic. It has no weights and no adjacency loss.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "none"``.
    """

    proposes_all: ClassVar[bool] = True

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Propose all ordered pairs."""
        other = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        return (pairs_of(mask) & other).to(entities.dtype)
