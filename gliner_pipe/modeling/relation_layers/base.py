"""The contract of a relation layer: how strongly each ordered pair of entities is tied."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from gliner_pipe.modeling.block import Block


class RelationLayer(Block):
    """Proposes pairs of entities, whatever their relation; a triple scorer then names it.

    Attributes
    ----------
    proposes_all
        True where every pair is proposed: there is nothing to learn, and the pairs have no loss.
    """

    family = "relation_layers"

    proposes_all: ClassVar[bool] = False

    @abstractmethod
    def build(self, hidden_size: int) -> None:
        """Make the weights for vectors of this width."""

    @abstractmethod
    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs.

        Parameters
        ----------
        entities
            ``(groups, entities, hidden)``.
        mask
            False for padding, ``(groups, entities)``. A group may have no entity at all.

        Returns
        -------
        Tensor
            Strengths in [0, 1], ``(groups, entities, entities)``: entry ``[g, i, j]`` is head ``i`` and tail ``j``.
            0 where either is padding. The diagonal carries numbers without meaning.
        """


def pairs_of(mask: Tensor) -> Tensor:
    """True where both ends are no padding, ``(groups, entities, entities)``."""
    return mask[:, :, None] & mask[:, None, :]


def among_valid(strengths: Tensor, mask: Tensor) -> Tensor:
    """`strengths` with 0 where either end is padding."""
    return strengths.masked_fill(~pairs_of(mask), 0.0)


def inner_products(vectors: Tensor) -> Tensor:
    """Sigmoid of the inner products of all pairs: the same for both directions."""
    return (vectors @ vectors.transpose(1, 2)).sigmoid()
