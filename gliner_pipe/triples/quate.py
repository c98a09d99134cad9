"""QuatE: Hamilton product of quaternions."""

from __future__ import annotations

import torch
from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.triples.base import Triple, check_parts


@registry.triples.register("quate")
class QuatE(Triple):
    """``(h (x) r) . t``, where a vector is four parts of quaternions and (x) is the Hamilton product.

    Use it where relations have a direction and no weights are wanted. The width of the vectors must be a multiple of 4.
    Relations are not brought to length 1, unlike in the paper: label vectors say by their length how sure they are.

    Notes
    -----
    Source: Zhang et al., "Quaternion Knowledge Graph Embeddings", 2019; GLiNER's ``QuatE``.
    """

    def build(self, hidden_size: int) -> None:
        """Nothing to make."""
        check_parts("quate", hidden_size, 4)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        a, b, c, d = head.chunk(4, -1)
        w, x, y, z = tail.chunk(4, -1)
        # What each part of the relation is multiplied with: conj(h) (x) t.
        pairs = [
            a * w + b * x + c * y + d * z,
            a * x - b * w + d * y - c * z,
            a * y - c * w - d * x + b * z,
            a * z - d * w + c * x - b * y,
        ]
        return torch.cat(pairs, -1) @ relations.transpose(1, 2)
