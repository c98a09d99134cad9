"""TransF: scaled ends and a translation."""

from __future__ import annotations

from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.triples._distance import DistanceTriple, affine_distance


@registry.triples.register("transf")
class TransF(DistanceTriple):
    """``-|a * h + v - b * t|``, where ``a``, ``b`` and ``v`` are projections of the relation vector.

    Use it where relations have a direction; before training it is TransE in the Euclidean distance.

    Parameters
    ----------
    compatible
        Cut distances at 10, as GLiNER does; see ``transe``.
    margin
        Added to each score, which is never above 0 without it.

    Notes
    -----
    Source: GLiNER's ``TransF``.
    """

    def build(self, hidden_size: int) -> None:
        """Make the projections, which start as the identity (translation) and as 1 (both scales)."""
        self.r_to_rvec = nn.Linear(hidden_size, hidden_size)
        self.r_to_alpha = nn.Linear(hidden_size, hidden_size)
        self.r_to_beta = nn.Linear(hidden_size, hidden_size)
        nn.init.eye_(self.r_to_rvec.weight)
        nn.init.zeros_(self.r_to_rvec.bias)
        for layer in (self.r_to_alpha, self.r_to_beta):
            nn.init.zeros_(layer.weight)
            nn.init.ones_(layer.bias)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        scales = self.r_to_alpha(relations), self.r_to_rvec(relations), self.r_to_beta(relations)
        return self.nearness(affine_distance(head, tail, *scales))
