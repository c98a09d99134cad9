"""ER-MLP: a two-layer network over the triple."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.triples.base import Triple, by_relation


@registry.triples.register("ermlp")
class ERMLP(Triple):
    """``W2 relu(W1 [h; r; t] + b1) + b2``.

    Use it where the scores that are sums of products do not do: it knows the direction and learns any form, at the
    price of a hidden layer for each pair and relation. The first layer is computed once a pair and once a relation.

    Parameters
    ----------
    size
        Width of the hidden layer.

    Notes
    -----
    Source: Dong et al., "Knowledge Vault", 2014; GLiNER's ``ERMLP``.
    """

    def __init__(self, size: int = 2048) -> None:
        super().__init__()
        self.size = size

    def build(self, hidden_size: int) -> None:
        """Make the two layers."""
        self.mlp = nn.Sequential(nn.Linear(3 * hidden_size, self.size), nn.ReLU(), nn.Linear(self.size, 1))

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        first = self.mlp[0]
        assert isinstance(first, nn.Linear)
        of_head, of_relation, of_tail = first.weight.chunk(3, 1)
        pairs = F.linear(head, of_head, first.bias) + F.linear(tail, of_tail)
        return by_relation(self._score, [pairs], [F.linear(relations, of_relation)], 2 * self.size)

    def _score(self, pairs: Tensor, relations: Tensor) -> Tensor:
        score: Tensor = self.mlp[2]((pairs + relations).relu())
        return score.squeeze(-1)
