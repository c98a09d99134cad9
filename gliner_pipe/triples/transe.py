"""TransE: the tail lies where the relation leads from the head."""

from __future__ import annotations

import torch
from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.triples._distance import DistanceTriple


@registry.triples.register("transe")
class TransE(DistanceTriple):
    """``-|h + r - t|``, the sum of absolute values.

    Use it where relations have a direction and no weights are wanted.

    Parameters
    ----------
    compatible
        Cut distances at 10, as GLiNER does. Set it for checkpoints that were trained so. Beyond 10 the score is
        constant and has no gradient; with vectors of width 768 the distance is always beyond, every score is -10 and
        nothing is learned, so it is off by default.
    margin
        Added to each score. Minus a distance is never above 0, so that no probability is above 0.5: without a margin
        (as in GLiNER) the threshold of relations must be below 0.5.

    Notes
    -----
    Source: Bordes et al., "Translating Embeddings for Modeling Multi-relational Data", 2013; GLiNER's ``TransE``.
    """

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        distance = torch.cdist((head - tail).float(), -relations.float(), p=1.0)
        return self.nearness(distance).to(head.dtype)
