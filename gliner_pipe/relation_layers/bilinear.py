"""Inner product of two projected entities."""

from __future__ import annotations

from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.relation_layers.base import RelationLayer, among_valid, inner_products


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
