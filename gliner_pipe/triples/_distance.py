"""What the scores that are distances have in common."""

from __future__ import annotations

import torch
from torch import Tensor

from gliner_pipe.triples.base import Triple, by_relation

#: Distances beyond this one are all the same in GLiNER.
GLINER_LIMIT = 10.0


class DistanceTriple(Triple):
    """Scores a triple by minus a distance: the nearer, the better.

    Parameters
    ----------
    compatible
        Cut distances at 10, as GLiNER does. Set it for checkpoints that were trained so. Beyond 10 the score is
        constant and has no gradient: with vectors of width 768 that is nearly always so, so it is off by default.
    margin
        Added to each score. Minus a distance is never above 0, so that no probability is above 0.5: without a margin
        (as in GLiNER) the threshold of relations must be below 0.5.
    """

    def __init__(self, compatible: bool = False, margin: float = 0.0) -> None:
        super().__init__()
        self.compatible = compatible
        self.margin = margin

    def build(self, hidden_size: int) -> None:
        """Nothing to make."""

    def nearness(self, distance: Tensor) -> Tensor:
        """Turn distances into scores."""
        return self.margin - self.cut(distance)

    def cut(self, distance: Tensor) -> Tensor:
        """Apply GLiNER's limit where it is asked for."""
        return distance.clamp(max=GLINER_LIMIT) if self.compatible else distance


def affine_distance(head: Tensor, tail: Tensor, scale: Tensor, shift: Tensor, tail_scale: Tensor) -> Tensor:
    """Euclidean length of ``scale * head + shift - tail_scale * tail``, ``(groups, pairs, relations)``.

    Sums of squares could be had by matrix products, but they lose the digits of small distances.
    """
    return by_relation(_affine_distance, [head, tail], [scale, shift, tail_scale], 4 * head.shape[-1])


def root(squares: Tensor) -> Tensor:
    """Square root with the gradient 0 at 0, where it has none."""
    positive = squares > 0
    return torch.where(positive, squares, 1.0).sqrt() * positive


def _affine_distance(head: Tensor, tail: Tensor, scale: Tensor, shift: Tensor, tail_scale: Tensor) -> Tensor:
    return torch.linalg.vector_norm(scale * head + shift - tail_scale * tail, dim=-1)
