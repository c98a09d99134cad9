"""Inner product of two entities."""

from __future__ import annotations

from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.relation_layers.base import RelationLayer, among_valid, inner_products


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
