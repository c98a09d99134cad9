"""Projection of head and tail, against the relation vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from gliner_pipe.model.layers import projection
from gliner_pipe.registry import registry
from gliner_pipe.triples.base import Triple


@registry.triples.register("concat")
class Concat(Triple):
    """``(W2 relu(W1 [h; t] + b1) + b2) . r``: what GLiNER does when no ``triples_layer`` is named.

    Use it unless you have a reason not to: it knows the direction, and pairs meet relations in one matrix product.

    Parameters
    ----------
    dropout
        Dropout of the hidden layer.

    Notes
    -----
    Source: GLiNER's ``pair_rep_layer``.
    """

    def __init__(self, dropout: float = 0.4) -> None:
        super().__init__()
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Make the projection."""
        self.pair_rep = projection(2 * hidden_size, hidden_size, self.dropout)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        pairs: Tensor = self.pair_rep(torch.cat([head, tail], -1))
        return pairs @ relations.transpose(1, 2)
