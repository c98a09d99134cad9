"""Inputs and outputs of a training step, and span vectors for relation layers and label generators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gliner_pipe.modeling.backbones.base import TensorBatch, Window
from gliner_pipe.modeling.encoders.base import EncoderBatch


@dataclass(frozen=True)
class RelationTargets(TensorBatch):
    """Gold relations and candidate pairs of a batch.

    Attributes
    ----------
    spans
        First and last word of the distinct gold entities of each row, ``(rows, entities, 2)``.
    span_mask
        False for padding, and for all entities of a row whose relations are not annotated, ``(rows, entities)``.
    triples
        Row, head, tail and relation label of each gold relation, ``(relations, 4)``; head and tail are indices into
        `spans`. The label is -1 if it is not among the labels of the batch: the pair then counts as adjacent only.
    pairs
        Row, head and tail of the distinct pairs to classify, ``(pairs, 3)``: those of `triples`, and sampled pairs
        without a relation.
    """

    spans: Tensor
    span_mask: Tensor
    triples: Tensor
    pairs: Tensor


@dataclass(frozen=True)
class LabelGenerationTargets(TensorBatch):
    """Labels that the label generator learns to generate.

    Attributes
    ----------
    spans
        Row, first and last word of the span of each label, ordered by row, ``(labels, 3)``; in mode ``prompt`` row,
        slot and slot.
    words
        Words of each span; empty in mode ``prompt``.
    labels
        Gold label of each span or slot.
    """

    spans: Tensor
    words: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class TaskTargets(TensorBatch):
    """Gold classes, records and relations of a batch, for models that read them as tasks.

    Attributes
    ----------
    labels
        Row, task and field of each label of a classification in each row, then the classification in `values` and the
        position of the label there, ``(labels, 5)``.
    weights
        Share of the words of its text that the row of a label owns, ``(labels,)``.
    values
        Value of each label of the classifications of each text, from 0 to 1, ``(classifications, labels)``.
    value_mask
        False for padding, ``(classifications, labels)``.
    single
        Whether exactly one label is true, ``(classifications,)``.
    counts
        Row, task and number of instances of each record or relation that was looked for, ``(tasks, 3)``.
    columns
        Row, task, instance and field of each query, and the first row of its choices in `choices`, or -1 for spans,
        ``(queries, 5)``; ordered by row.
    places
        Row of each query for spans, and its number in this row, ``(queries for spans, 2)``.
    spans
        Row, first word, width - 1 and number of the query in its row of each gold value, ``(values, 4)``.
    choices
        Position in the row of each choice of the queries with choices; -1 for padding, ``(queries, choices)``. None
        if there are none.
    chosen
        Whether a choice is the gold value, ``(queries, choices)``.
    outside
        Words that are not in the text, ``(rows, words)``; None if there are none.
    unnamed
        Row, task, instance and field of each value of which nothing is known, ``(values, 4)``; None if there are none.
    """

    labels: Tensor
    weights: Tensor
    values: Tensor
    value_mask: Tensor
    single: Tensor
    counts: Tensor
    columns: Tensor
    places: Tensor
    spans: Tensor
    choices: Tensor | None
    chosen: Tensor | None
    outside: Tensor | None
    unnamed: Tensor | None = None


@dataclass(frozen=True)
class TrainingBatch(TensorBatch):
    """Windows with their gold annotations.

    Attributes
    ----------
    inputs
        Encoder input.
    gold
        Row, first word, width - 1 and label of each gold span, ``(spans, 4)``.
    n_words, n_pieces
        Number of words of the texts, and of subword tokens of the padded windows.
    count
        Number of elements in the span loss, known before the forward pass.
    relations
        Relation targets; None if the model has no relation layer or no relations are annotated.
    label_generation
        Label generation targets; None if the model has no label generator.
    tasks
        Targets of tasks; None if the model reads none, or the texts have none.
    dropped
        Reasons why gold annotations are missing from the targets, with counts.
    outside
        Words that are not in the text, ``(rows, words)``; None if there are none.
    """

    inputs: EncoderBatch
    gold: Tensor
    n_words: int
    n_pieces: int
    count: float
    relations: RelationTargets | None = None
    label_generation: LabelGenerationTargets | None = None
    tasks: TaskTargets | None = None
    dropped: Counter[str] = field(default_factory=Counter)
    outside: Tensor | None = None


class LossTerms(NamedTuple):
    """Loss of a batch: the `total`, a sum not yet divided, and its named `parts` without gradient."""

    total: Tensor
    parts: dict[str, Tensor]

    @classmethod
    def of(cls, parts: Mapping[str, Tensor]) -> LossTerms:
        """Sum the parts."""
        return cls(
            torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}
        )


@dataclass
class Drawn(ABC):
    """A batch before padding: labels are sampled and words are tokenized.

    It can be padded in several parts. Labels were sampled for the batch as a whole, so the parts together have the same
    loss as the whole batch.

    Attributes
    ----------
    windows
        Of all texts, in their order.
    n_texts
        Number of texts.
    n_specials
        Number of special tokens that a row has in addition to those of its window.
    dropped
        Reasons why gold annotations are missing, as far as known before padding, with counts.
    """

    windows: Sequence[Window]
    n_texts: int
    n_specials: int
    dropped: Counter[str]

    @abstractmethod
    def lay_out(self, texts: Sequence[int]) -> Any:
        """Build the padded batch of some of the texts, on the CPU."""

    def whole(self) -> Any:
        """Build the padded batch of all texts."""
        batch = self.lay_out(range(self.n_texts))
        return replace(batch, dropped=batch.dropped + self.dropped)

    def sizes(self) -> list[tuple[int, int]]:
        """Return, for each text, the number of rows and of subword tokens in its longest row."""
        sizes = [(0, 0)] * self.n_texts
        for window in self.windows:
            rows, longest = sizes[window.text]
            sizes[window.text] = (rows + 1, max(longest, window.n_pieces + self.n_specials))
        return sizes

    def rows_of(self, texts: Sequence[int]) -> list[Window]:
        """Return the windows of some texts, which are renumbered from 0."""
        number = {text: index for index, text in enumerate(texts)}
        rows: list[list[Window]] = [[] for _ in texts]
        for window in self.windows:
            if window.text in number:
                rows[number[window.text]].append(replace(window, text=number[window.text]))
        return [window for some in rows for window in some]


class SpanVectors(NamedTuple):
    """Vectors of one window that relation layer and label generator need.

    Attributes
    ----------
    spans
        First and last word, counted in the text, of the distinct spans above a threshold, sorted, ``(spans, 2)``.
    vectors
        Their vectors, ``(spans, hidden)``.
    labels, relations
        Vectors of the entity labels and of the relation labels in this window, ``(labels, hidden)``.
    """

    spans: Tensor
    vectors: Tensor
    labels: Tensor
    relations: Tensor
