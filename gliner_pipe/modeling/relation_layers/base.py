"""Base class of relation layers, which score the adjacency of each ordered pair of entities."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from gliner_pipe.modeling.block import Block
from gliner_pipe.util.ranges import Size


class RelationLayer(Block):
    """Proposes related entity pairs; a triple scorer then classifies their relations.

    Attributes
    ----------
    proposes_all
        Whether every pair is proposed, so that there is no adjacency loss.
    """

    family = "relation_layers"

    proposes_all: ClassVar[bool] = False

    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width; none by default."""

    @abstractmethod
    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs.

        Parameters
        ----------
        entities
            ``(groups, entities, hidden)``.
        mask
            False for padding, ``(groups, entities)``. A group may have no entities.

        Returns
        -------
        Tensor
            Adjacency scores in [0, 1], ``(groups, entities, entities)``: entry ``[g, i, j]`` is head ``i`` and tail
            ``j``, 0 if either is padding. The diagonal is undefined.
        """


class SizedLayer(RelationLayer):
    """A relation layer with a width of its own.

    Parameters
    ----------
    size
        Width of the hidden vectors; that of the entity vectors by default.
    """

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.size = size


def pairs_of(mask: Tensor) -> Tensor:
    """Return the mask of pairs without padding, ``(groups, entities, entities)``."""
    return mask[:, :, None] & mask[:, None, :]


def masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Set the scores of pairs with padding to 0."""
    return scores.masked_fill(~pairs_of(mask), 0.0)


def inner_products(vectors: Tensor, mask: Tensor) -> Tensor:
    """Return the sigmoid of the inner products of all pairs, which is symmetric; 0 for pairs with padding."""
    return masked((vectors @ vectors.transpose(1, 2)).sigmoid(), mask)
