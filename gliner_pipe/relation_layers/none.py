"""Every pair of entities, unscored."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.relation_layers.base import RelationLayer, pairs_of


@registry.relation_layers.register("none")
class AllPairs(RelationLayer):
    """1 for every ordered pair of two different entities: the triple scorer decides alone.

    Use it where the entities of a text are few, as the pairs grow with their square. There are no weights, and the
    pairs have no loss.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "none"``.
    """

    proposes_all: ClassVar[bool] = True

    def build(self, hidden_size: int) -> None:
        """Nothing to make."""

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Propose all ordered pairs."""
        other = ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        return (pairs_of(mask) & other).to(entities.dtype)
