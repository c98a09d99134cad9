"""PairRE: scaled ends."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.triples._distance import DistanceTriple, affine_distance


@registry.triples.register("pairre")
class PairRE(DistanceTriple):
    """``-|a * h - b * t|``, where ``a`` and ``b`` are projections of the relation vector.

    Use it where relations have a direction and an entity may have several tails.

    Parameters
    ----------
    compatible
        Cut distances at 10, as GLiNER does; see ``transe``.
    margin
        Added to each score, which is never above 0 without it.

    Notes
    -----
    Source: Chao et al., "PairRE: Knowledge Graph Embeddings via Paired Relation Vectors", 2021; GLiNER's ``PairRE``.
    As there, entities are not brought to length 1.
    """

    def build(self, hidden_size: int) -> None:
        """Make the projections to both scales."""
        self.r_to_alpha = nn.Linear(hidden_size, hidden_size)
        self.r_to_beta = nn.Linear(hidden_size, hidden_size)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        scale, tail_scale = self.r_to_alpha(relations), self.r_to_beta(relations)
        return self.nearness(affine_distance(head, tail, scale, torch.zeros_like(scale), tail_scale))
