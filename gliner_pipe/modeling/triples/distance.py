"""Triple scorers based on a distance: the TransE family."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.triples.base import Triple, by_relation
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Number

#: GLiNER cuts distances at this value.
GLINER_LIMIT = 10.0


class DistanceTriple(Triple):
    """Scores a triple by a negative distance: the parameters that ``transe`` and its relatives share.

    Parameters
    ----------
    compatible
        Cut distances at 10, as GLiNER does. Set it for checkpoints trained that way. Beyond 10 the score is constant
        and has no gradient. At width 768 nearly every distance is beyond 10, and with ``transe`` every one: nothing is
        learned then, so it is off by default.
    margin
        Distance at which the probability is 0.5, as the score is the margin minus the distance. By default about a
        quarter of the distance between random vectors: the width divided by 4 for ``transe``, half the root of the
        width for the others. With 0, GLiNER's value and the default with `compatible`, no probability is above 0.5, and
        ``relation_threshold`` must be below that.
    """

    def __init__(self, compatible: bool = False, margin: Number | None = None) -> None:
        super().__init__()
        self.compatible = compatible
        self.margin = margin
        self.offset = margin or 0.0

    def build(self, hidden_size: int) -> None:
        """Choose the margin for vectors of this width, if none is set."""
        super().build(hidden_size)
        if self.margin is None and not self.compatible:
            self.offset = self.typical(hidden_size) / 4

    def typical(self, hidden_size: int) -> float:
        """Return about the distance between random vectors of this width, with elements around 1."""
        return 2 * math.sqrt(hidden_size)

    def nearness(self, distance: Tensor) -> Tensor:
        """Convert distances to scores."""
        return self.offset - self.cut(distance)

    def cut(self, distance: Tensor) -> Tensor:
        """Apply GLiNER's limit if ``compatible`` is set."""
        return distance.clamp(max=GLINER_LIMIT) if self.compatible else distance


def affine_distance(head: Tensor, tail: Tensor, scale: Tensor, shift: Tensor, tail_scale: Tensor) -> Tensor:
    """Return the Euclidean norm of ``scale * head + shift - tail_scale * tail``, ``(groups, pairs, relations)``.

    Matrix products of squares would be faster, but lose precision for small distances.
    """

    def distance(head: Tensor, tail: Tensor, scale: Tensor, shift: Tensor, tail_scale: Tensor) -> Tensor:
        return torch.linalg.vector_norm(scale * head + shift - tail_scale * tail, dim=-1)

    return by_relation(distance, [head, tail], [scale, shift, tail_scale], 4 * head.shape[-1])


def root(squares: Tensor) -> Tensor:
    """Return the square root, with gradient 0 at 0, where it is undefined."""
    positive = squares > 0
    return torch.where(positive, squares, 1.0).sqrt() * positive


@registry.triples.register("transe")
class TransE(DistanceTriple):
    """``-|h + r - t|``, the sum of absolute values.

    Use it if relations have a direction and no weights are wanted.

    Notes
    -----
    Source: Bordes et al., "Translating Embeddings for Modeling Multi-relational Data", 2013; GLiNER's ``TransE``.
    """

    def typical(self, hidden_size: int) -> float:
        """Return the width: the distance is a sum over all elements."""
        return float(hidden_size)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        distance = torch.cdist((head - tail).float(), -relations.float(), p=1.0)
        return self.nearness(distance).to(head.dtype)


@registry.triples.register("transf")
class TransF(DistanceTriple):
    """``-|a * h + v - b * t|``, where ``a``, ``b`` and ``v`` are projections of the relation vector.

    Use it if relations have a direction; before training it equals TransE with the Euclidean distance.

    Notes
    -----
    Source: GLiNER's ``TransF``.
    """

    def build(self, hidden_size: int) -> None:
        """Create the projections, initialised to the identity (translation) and to 1 (both scales)."""
        super().build(hidden_size)
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


@registry.triples.register("transh")
class TransH(DistanceTriple):
    """``-|(h - (h . w) w) + v - (t - (t . w) w)|``: translation by ``v`` on the plane with the normal ``w``.

    Use it if relations have a direction and an entity may have several tails. ``v`` and ``w`` (of length 1) are
    projections of the relation vector.

    Notes
    -----
    Source: Wang et al., "Knowledge Graph Embedding by Translating on Hyperplanes", 2014; GLiNER's ``TransH``.
    """

    def build(self, hidden_size: int) -> None:
        """Create the projections to translation and normal."""
        super().build(hidden_size)
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
    # along is (groups, 1, relations, pairs)
    along = along.permute(0, 3, 2, 1)
    return torch.linalg.vector_norm(difference - along * normals + translation, dim=-1)


@registry.triples.register("se")
class SE(DistanceTriple):
    """``-|r * h - r * t|``: the relation weights the dimensions in which head and tail must agree.

    Use it for relations between similar entities. It is symmetric in head and tail.

    Notes
    -----
    Source: GLiNER's ``SE``, after Bordes et al., "Learning Structured Embeddings of Knowledge Bases", 2011, with one
    diagonal matrix for both ends.
    """

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        squares = (head - tail).float().square() @ relations.float().square().transpose(1, 2)
        return self.nearness(root(squares)).to(head.dtype)


@registry.triples.register("um")
class UM(DistanceTriple):
    """``-|h - t|``, whatever the relation.

    For comparison only: all relations of a pair have the same score.

    Notes
    -----
    Source: Bordes et al., "Joint Learning of Words and Meaning Representations", 2012; GLiNER's ``UM``.
    """

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        distance = torch.linalg.vector_norm(head - tail, dim=-1, keepdim=True)
        return self.nearness(distance).expand(-1, -1, relations.shape[1])


@registry.triples.register("pairre")
class PairRE(DistanceTriple):
    """``-|a * h - b * t|``, where ``a`` and ``b`` are projections of the relation vector.

    Use it if relations have a direction and an entity may have several tails.

    Notes
    -----
    Source: Chao et al., "PairRE: Knowledge Graph Embeddings via Paired Relation Vectors", 2021; GLiNER's ``PairRE``.
    As there, entities are not normalised.
    """

    def build(self, hidden_size: int) -> None:
        """Create the projections to both scales."""
        super().build(hidden_size)
        self.r_to_alpha = nn.Linear(hidden_size, hidden_size)
        self.r_to_beta = nn.Linear(hidden_size, hidden_size)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        scale, tail_scale = self.r_to_alpha(relations), self.r_to_beta(relations)
        return self.nearness(affine_distance(head, tail, scale, torch.zeros_like(scale), tail_scale))


@registry.triples.register("triplere")
class TripleRE(DistanceTriple):
    """``-g |a * h + v - b * t|``, where ``a``, ``b``, ``v`` and the scalar ``g`` are projections of the relation.

    Use it if relations have a direction and each relation should have its own scale of scores. ``g`` may be negative:
    then larger distances score higher.

    Notes
    -----
    Source: GLiNER's ``TripleRE``, after Yu et al., "TripleRE: Knowledge Graph Embeddings via Tripled Relation
    Vectors", 2022.
    """

    def build(self, hidden_size: int) -> None:
        """Create the four projections."""
        super().build(hidden_size)
        self.r_to_alpha = nn.Linear(hidden_size, hidden_size)
        self.r_to_beta = nn.Linear(hidden_size, hidden_size)
        self.r_to_delta = nn.Linear(hidden_size, hidden_size)
        self.r_to_gamma = nn.Linear(hidden_size, 1)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        scales = self.r_to_alpha(relations), self.r_to_delta(relations), self.r_to_beta(relations)
        distance = self.cut(affine_distance(head, tail, *scales))
        return self.offset - self.r_to_gamma(relations).transpose(1, 2) * distance
