"""Inner product of entities that have looked at each other."""

from __future__ import annotations

from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.relation_layers._heads import attended, attention
from gliner_pipe.relation_layers.base import RelationLayer, among_valid, inner_products


@registry.relation_layers.register("gat")
class GAT(RelationLayer):
    """One attention layer over all entities, a projection, then the sigmoid of inner products.

    Use it where a tie depends on which other entities there are. It cannot tell head from tail.

    Parameters
    ----------
    size
        Width of the projection; None for that of the vectors.
    n_heads
        Attention heads; the width of the vectors must be a multiple.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "gat"``; there a text without entities ends in an error.
    """

    def __init__(self, size: int | None = None, n_heads: int = 8) -> None:
        super().__init__()
        self.size = size
        self.n_heads = n_heads

    def build(self, hidden_size: int) -> None:
        """Make the attention layer and the projection."""
        self.attn = attention(hidden_size, self.n_heads)
        self.linear = nn.Linear(hidden_size, self.size or hidden_size)

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        vectors = self.linear(attended(self.attn, entities, mask))
        return among_valid(inner_products(vectors), mask)
