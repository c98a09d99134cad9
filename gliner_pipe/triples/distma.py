"""DistMA: sum of the three inner products."""

from __future__ import annotations

from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.triples.base import Triple


@registry.triples.register("distma")
class DistMA(Triple):
    """``h . r + h . t + r . t``.

    Use it as a baseline without weights of its own. It cannot tell head from tail.

    Notes
    -----
    Source: GLiNER's ``DistMA``.
    """

    def build(self, hidden_size: int) -> None:
        """Nothing to make."""

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        return (head + tail) @ relations.transpose(1, 2) + (head * tail).sum(-1, keepdim=True)
