"""UM: distance of head and tail."""

from __future__ import annotations

import torch
from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.triples._distance import DistanceTriple


@registry.triples.register("um")
class UM(DistanceTriple):
    """``-|h - t|``, whatever the relation.

    Of use for comparison only: all relations of a pair have the same score.

    Parameters
    ----------
    compatible
        Cut distances at 10, as GLiNER does; see ``transe``.
    margin
        Added to each score, which is never above 0 without it.

    Notes
    -----
    Source: Bordes et al., "Joint Learning of Words and Meaning Representations", 2012; GLiNER's ``UM``.
    """

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        distance = torch.linalg.vector_norm(head - tail, dim=-1, keepdim=True)
        return self.nearness(distance).expand(-1, -1, relations.shape[1])
