"""DistMult: sum of threefold products."""

from __future__ import annotations

from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.triples.base import Triple


@registry.triples.register("distmult")
class DistMult(Triple):
    """``sum h * r * t``.

    Use it as a baseline without weights of its own. It cannot tell head from tail.

    Notes
    -----
    Source: Yang et al., "Embedding Entities and Relations for Learning and Inference in Knowledge Bases", 2015;
    GLiNER's ``DistMult``.
    """

    def build(self, hidden_size: int) -> None:
        """Nothing to make."""

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        return (head * tail) @ relations.transpose(1, 2)
