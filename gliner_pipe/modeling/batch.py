"""The door between spaCy and torch: what a training step gets and gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gliner_pipe.modeling.backbones.windows import TensorBatch, Window
from gliner_pipe.modeling.encoders.base import EncoderBatch


@dataclass(frozen=True)
class RelationTargets(TensorBatch):
    """What a batch teaches about relations.

    Attributes
    ----------
    spans
        First and last word of the distinct gold entities of each row, ``(rows, entities, 2)``.
    span_mask
        False for padding, and for all entities of a row whose relations are not known, ``(rows, entities)``.
    ties
        Row, head, tail and relation label of each gold relation, heads and tails as places in `spans`, ``(ties, 4)``;
        -1 for a label that is not asked for, so that the two are tied and it is not said how.
    pairs
        Row, head and tail of the pairs that are named in training: those of `ties`, and sampled ones that have no
        relation, ``(pairs, 3)``, without repetition.
    """

    spans: Tensor
    span_mask: Tensor
    ties: Tensor
    pairs: Tensor


@dataclass(frozen=True)
class WritingTargets(TensorBatch):
    """Labels that a language model learns to write.

    Attributes
    ----------
    spans
        Row, first and last word of what each label is written for, ordered by row, ``(labels, 3)``; in mode ``prompt``
        row, slot and slot.
    words
        Words of each span; empty in mode ``prompt``.
    labels
        What is right.
    """

    spans: Tensor
    words: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]


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


@dataclass
class Drawn(ABC):
    """A batch before it is laid out: chance has decided, words are pieces, and nothing is padded yet.

    It can be laid out in parts. What each example is asked for was drawn from the whole, so that the parts together
    teach what the whole teaches.

    Attributes
    ----------
    windows
        Of all texts, in their order.
    n_texts
        How many these are.
    n_specials
        Special pieces that a row has beyond those of its window.
    dropped
        Why gold annotations are missing, as far as it is known without a layout.
    """

    windows: Sequence[Window]
    n_texts: int
    n_specials: int
    dropped: Counter[str]

    @abstractmethod
    def lay_out(self, texts: Sequence[int]) -> Any:
        """Make the batch of some of the texts, on the CPU."""

    def whole(self) -> Any:
        """Make the batch of all texts."""
        batch = self.lay_out(range(self.n_texts))
        return replace(batch, dropped=batch.dropped + self.dropped)

    def sizes(self) -> list[tuple[int, int]]:
        """Rows and pieces of the longest row of each text."""
        found = [(0, 0)] * self.n_texts
        for window in self.windows:
            rows, longest = found[window.text]
            found[window.text] = (rows + 1, max(longest, window.n_pieces + self.n_specials))
        return found

    def rows_of(self, texts: Sequence[int]) -> list[Window]:
        """Windows of some texts, which are counted from 0 on."""
        place = {text: index for index, text in enumerate(texts)}
        rows: list[list[Window]] = [[] for _ in texts]
        for window in self.windows:
            if window.text in place:
                rows[place[window.text]].append(replace(window, text=place[window.text]))
        return [window for some in rows for window in some]


class SpanVectors(NamedTuple):
    """What further heads need of one window.

    Attributes
    ----------
    spans
        First and last word of the distinct spans above a threshold, counted in the text and in this order,
        ``(spans, 2)``.
    vectors
        Their vectors, ``(spans, hidden)``.
    labels, relations
        Vectors of the entity labels and of the relation labels as this window sees them, ``(labels, hidden)``.
    """

    spans: Tensor
    vectors: Tensor
    labels: Tensor
    relations: Tensor
