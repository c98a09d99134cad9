"""Relation layers that score every pair of entities on its own."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.relation_layers.base import RelationLayer, among_valid, inner_products, pairs_of
from gliner_pipe.modeling.relation_layers.graph import attention, attention_weights
from gliner_pipe.registry import registry


@registry.relation_layers.register("attention")
class Attention(RelationLayer):
    """How much each head attends to each tail, averaged over attention heads.

    The strengths of one head sum to 1, so that a head with several tails has weaker ties: set the threshold of pairs
    well below 0.5.

    Parameters
    ----------
    n_heads
        Attention heads; the width of the vectors must be a multiple.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "attention"``, also written ``"attn"``; there a text without entities ends in
    an error. Of the attention layer, the values and the output projection are there for its checkpoints and do nothing.
    """

    def __init__(self, n_heads: int = 8) -> None:
        super().__init__()
        self.n_heads = n_heads

    def build(self, hidden_size: int) -> None:
        """Make the attention layer."""
        self.attn = attention(hidden_size, self.n_heads)
        # They have no influence: without a gradient no optimizer moves or decays them.
        self.attn.out_proj.requires_grad_(False)

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        return among_valid(attention_weights(self.attn, entities, mask).mean(1), mask)


@registry.relation_layers.register("biaffine")
class Biaffine(RelationLayer):
    """Sigmoid of ``h U t + u h + v t + b``, where ``h`` and ``t`` are two projections of head and of tail.

    Use it where relations have a direction, which is nearly always: what an entity says as a head and what it says as
    a tail have weights of their own, so that ``[i, j]`` and ``[j, i]`` differ.

    Parameters
    ----------
    size
        Width of the projections; None for that of the vectors.
    dropout
        Of the projections.

    Notes
    -----
    Source: Dozat and Manning, "Deep Biaffine Attention for Neural Dependency Parsing", 2017. GLiNER's documentation
    names it, its code has none.
    """

    def __init__(self, size: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        self.size = size
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Make the projections and the three terms."""
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
        return among_valid(logits.sigmoid(), mask)

    def _projected(self, layer: nn.Linear, entities: Tensor) -> Tensor:
        return F.dropout(F.leaky_relu(layer(entities), 0.1), self.dropout, self.training)


@registry.relation_layers.register("bilinear")
class Bilinear(RelationLayer):
    """Sigmoid of the inner product after one projection, the same for both ends.

    Use it where a tie has no direction; ``biaffine`` is the one that has.

    Parameters
    ----------
    size
        Width after projection; None for that of the vectors.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "bilinear"``.
    """

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.size = size

    def build(self, hidden_size: int) -> None:
        """Make the projection."""
        self.proj = nn.Linear(hidden_size, self.size or hidden_size)

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        return among_valid(inner_products(self.proj(entities)), mask)


@registry.relation_layers.register("dot")
class Dot(RelationLayer):
    """Sigmoid of the inner product; no weights of its own.

    Use it as a baseline. It cannot tell head from tail, and with wide vectors it is close to 0 or 1 before training.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "dot"``.
    """

    def build(self, hidden_size: int) -> None:
        """Nothing to make."""

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        return among_valid(inner_products(entities), mask)


@registry.relation_layers.register("mlp")
class MLP(RelationLayer):
    """Sigmoid of ``W2 relu(W1 [head; tail] + b1) + b2``.

    Use it where relations have a direction and the entities of a text are few: it holds a hidden layer for each pair.
    The first layer is computed once an entity and side, not once a pair: the same numbers.

    Parameters
    ----------
    size
        Width of the hidden layer; None for that of the vectors.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "mlp"``.
    """

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.size = size

    def build(self, hidden_size: int) -> None:
        """Make the two layers."""
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
        return among_valid(last(hidden).squeeze(-1).sigmoid(), mask)


@registry.relation_layers.register("none")
class AllPairs(RelationLayer):
    """1 for every ordered pair of two different entities: the triple scorer decides alone.

    Use it where the entities of a text are few, as the pairs grow with their square. There are no weights, and the
    pairs have no loss.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "none"``.
    """

    proposes_all: ClassVar[bool] = True

    def build(self, hidden_size: int) -> None:
        """Nothing to make."""

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Propose all ordered pairs."""
        other = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        return (pairs_of(mask) & other).to(entities.dtype)
