"""SE: distance of head and tail, scaled by the relation."""

from __future__ import annotations

from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.triples._distance import DistanceTriple, root


@registry.triples.register("se")
class SE(DistanceTriple):
    """``-|r * h - r * t|``: the relation says which of the dimensions must agree.

    Use it for relations of like with like. It cannot tell head from tail.

    Parameters
    ----------
    compatible
        Cut distances at 10, as GLiNER does; see ``transe``.
    margin
        Added to each score, which is never above 0 without it.

    Notes
    -----
    Source: GLiNER's ``SE``, after Bordes et al., "Learning Structured Embeddings of Knowledge Bases", 2011, with one
    diagonal matrix for both ends.
    """

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        squares = (head - tail).float().square() @ relations.float().square().transpose(1, 2)
        return self.nearness(root(squares)).to(head.dtype)
