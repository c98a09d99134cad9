"""Biaffine score of a head and a tail."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.relation_layers.base import RelationLayer, among_valid


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
