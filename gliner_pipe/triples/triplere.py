"""TripleRE: scaled ends, a translation, and a weight of the relation."""

from __future__ import annotations

from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.triples._distance import DistanceTriple, affine_distance


@registry.triples.register("triplere")
class TripleRE(DistanceTriple):
    """``-g |a * h + v - b * t|``, where ``a``, ``b``, ``v`` and the number ``g`` are projections of the relation.

    Use it where relations have a direction and the scores of different relations are to have scales of their own.
    ``g`` may be negative: then the farther, the better.

    Parameters
    ----------
    compatible
        Cut distances at 10, as GLiNER does; see ``transe``.
    margin
        Added to each score.

    Notes
    -----
    Source: GLiNER's ``TripleRE``, after Yu et al., "TripleRE: Knowledge Graph Embeddings via Tripled Relation
    Vectors", 2022.
    """

    def build(self, hidden_size: int) -> None:
        """Make the four projections."""
        self.r_to_alpha = nn.Linear(hidden_size, hidden_size)
        self.r_to_beta = nn.Linear(hidden_size, hidden_size)
        self.r_to_delta = nn.Linear(hidden_size, hidden_size)
        self.r_to_gamma = nn.Linear(hidden_size, 1)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        scales = self.r_to_alpha(relations), self.r_to_delta(relations), self.r_to_beta(relations)
        distance = self.cut(affine_distance(head, tail, *scales))
        return self.margin - self.r_to_gamma(relations).transpose(1, 2) * distance
