"""TransH: translation on a plane of the relation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.triples._distance import DistanceTriple
from gliner_pipe.triples.base import by_relation


@registry.triples.register("transh")
class TransH(DistanceTriple):
    """``-|(h - (h . w) w) + v - (t - (t . w) w)|``: translation by ``v`` on the plane with the normal ``w``.

    Use it where relations have a direction and an entity may have several tails. ``v`` and ``w`` (of length 1) are two
    projections of the relation vector.

    Parameters
    ----------
    compatible
        Cut distances at 10, as GLiNER does; see ``transe``.
    margin
        Added to each score, which is never above 0 without it.

    Notes
    -----
    Source: Wang et al., "Knowledge Graph Embedding by Translating on Hyperplanes", 2014; GLiNER's ``TransH``.
    """

    def build(self, hidden_size: int) -> None:
        """Make the projections to translation and normal."""
        self.r_to_rtr = nn.Linear(hidden_size, hidden_size)
        self.r_to_w = nn.Linear(hidden_size, hidden_size)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        normals = F.normalize(self.r_to_w(relations), dim=-1)
        difference = head - tail
        along = difference @ normals.transpose(1, 2)  # (groups, pairs, relations)
        distance = by_relation(
            _distance,
            [difference],
            [normals, self.r_to_rtr(relations), along.transpose(1, 2)],
            3 * head.shape[-1],
        )
        return self.nearness(distance)


def _distance(difference: Tensor, normals: Tensor, translation: Tensor, along: Tensor) -> Tensor:
    # along comes as (groups, 1, relations, pairs)
    along = along.permute(0, 3, 2, 1)
    return torch.linalg.vector_norm(difference - along * normals + translation, dim=-1)
