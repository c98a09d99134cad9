"""A two-layer network over head and tail."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.relation_layers.base import RelationLayer, among_valid


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
