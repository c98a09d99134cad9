"""SimplE: mean of a forward and a backward product."""

from __future__ import annotations

import torch
from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.triples.base import Triple, check_parts


@registry.triples.register("simple")
class SimplE(Triple):
    """``(sum h1 * r1 * t2 + sum t1 * r2 * h2) / 2``, where 1 and 2 are the halves of a vector.

    Use it where relations have a direction and no weights are wanted. The width of the vectors must be even.

    Notes
    -----
    Source: Kazemi and Poole, "SimplE Embedding for Link Prediction in Knowledge Graphs", 2018; GLiNER's ``SimplE``.
    """

    def build(self, hidden_size: int) -> None:
        """Nothing to make."""
        check_parts("simple", hidden_size, 2)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        head_1, head_2 = head.chunk(2, -1)
        tail_1, tail_2 = tail.chunk(2, -1)
        pairs = torch.cat([head_1 * tail_2, tail_1 * head_2], -1)
        return 0.5 * (pairs @ relations.transpose(1, 2))
