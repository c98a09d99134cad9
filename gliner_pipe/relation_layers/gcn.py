"""Inner product of entities after one step of graph convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.relation_layers.base import RelationLayer, among_valid, inner_products


@registry.relation_layers.register("gcn")
class GCN(RelationLayer):
    """One graph convolution over the ``dot`` graph with self-loops, a projection, then the sigmoid of inner products.

    Use it where a tie depends on which other entities there are. It cannot tell head from tail.

    Parameters
    ----------
    size
        Width of the convolution and of the projection; None for that of the vectors.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "gcn"``; Kipf and Welling, "Semi-Supervised Classification with Graph
    Convolutional Networks", 2017.
    """

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        self.size = size

    def build(self, hidden_size: int) -> None:
        """Make the convolution and the projection."""
        size = self.size or hidden_size
        self.gcn = nn.ModuleDict({"linear": nn.Linear(hidden_size, size)})
        self.proj = nn.Linear(size, size)

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        graph = among_valid(inner_products(entities), mask)
        graph = graph + torch.diag_embed(mask.to(graph.dtype))
        scale = graph.sum(-1).clamp(min=1e-6).rsqrt()
        graph = scale[:, :, None] * graph * scale[:, None, :]
        vectors = self.proj(self.gcn["linear"](graph @ entities).relu())
        return among_valid(inner_products(vectors), mask)
