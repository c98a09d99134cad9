"""The door between spaCy and torch: what a training step gets and gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from gliner_pipe.backbones.base import TensorBatch
from gliner_pipe.encoders.base import EncoderBatch
from gliner_pipe.model.relations import RelationTargets
from gliner_pipe.model.writing import WritingTargets


@dataclass(frozen=True)
class TrainingBatch(TensorBatch):
    """Windows with their gold spans.

    Attributes
    ----------
    inputs
        What the encoder reads.
    gold
        Row, first word, width - 1 and label of each gold span, ``(spans, 4)``.
    n_words, n_pieces
        Words of the texts, and pieces of the padded windows.
    count
        Spans that the loss is over, known before the forward pass.
    relations
        What is known about relations; None where the model has none, or nothing is known.
    writing
        Labels to be written; None where the model writes none.
    dropped
        Why gold annotations are missing from the targets, with their numbers.
    """

    inputs: EncoderBatch
    gold: Tensor
    n_words: int
    n_pieces: int
    count: float
    relations: RelationTargets | None = None
    writing: WritingTargets | None = None
    dropped: Counter[str] = field(default_factory=Counter)


class LossTerms(NamedTuple):
    """Loss of a batch: the `total` as a sum still to be divided, and its named `parts` without gradient."""

    total: Tensor
    parts: dict[str, Tensor]

    @classmethod
    def of(cls, parts: Mapping[str, Tensor]) -> LossTerms:
        """Add the parts up."""
        return cls(
            torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}
        )
