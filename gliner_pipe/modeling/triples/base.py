"""Base class of triple scorers, which classify the relations of entity pairs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.block import Block, described

#: Maximum number of elements held at once by scorers without a factored form: 64 MiB in fp32.
AT_ONCE = 2**24


class Triple(Block):
    """Scores pairs of entities against relations."""

    family = "triples"
    #: Number of equal parts into which the scorer splits each vector.
    parts: ClassVar[int] = 1

    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width; none by default.

        Raises
        ------
        ConfigError
            If the vectors cannot be split into equal parts.
        """
        if hidden_size % self.parts:
            raise ConfigError(
                "components.*.model.triple",
                f"found {described(self)} with vectors of width {hidden_size}",
                f"a width divisible by {self.parts}, or another block",
            )

    @abstractmethod
    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations.

        Parameters
        ----------
        head, tail
            Vectors of the two entities of each pair, ``(groups, pairs, hidden)``.
        relations
            Vectors of the relation labels, ``(groups, relations, hidden)``.

        Returns
        -------
        Tensor
            Logits, ``(groups, pairs, relations)``.
        """


def by_relation(
    score: Callable[..., Tensor], pairs: list[Tensor], relations: list[Tensor], width: int
) -> Tensor:
    """Score pairs in chunks of relations, for scores that are not a matrix product.

    Parameters
    ----------
    score
        Takes tensors that broadcast over ``(groups, pairs, relations, ...)`` and returns ``(groups, pairs,
        relations)``.
    pairs
        Inputs for each pair, ``(groups, pairs, ...)``.
    relations
        Inputs for each relation, ``(groups, relations, ...)``.
    width
        Number of elements that `score` holds for one pair and one relation.

    Returns
    -------
    Tensor
        ``(groups, pairs, relations)``. Several chunks are recomputed in the backward pass, so that memory does not grow
        with the number of relations.
    """
    n_groups, n_pairs = pairs[0].shape[:2]
    n_relations = relations[0].shape[1]
    step = max(1, AT_ONCE // max(1, n_groups * n_pairs * width))
    wide = [part[:, :, None] for part in pairs]
    if n_relations <= step:
        return score(*wide, *(part[:, None] for part in relations))
    scores = []
    for start in range(0, n_relations, step):
        few = [part[:, None, start : start + step] for part in relations]
        if torch.is_grad_enabled():
            scores.append(checkpoint(score, *wide, *few, use_reentrant=False))
        else:
            scores.append(score(*wide, *few))
    return torch.cat(scores, 2)
