"""The contract of finders of relations and records, and their queries for the span representation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gliner_pipe.modeling.backbones.base import TensorBatch, Window, WindowBatch
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.counters.base import Counter
from gliner_pipe.modeling.encoders.base import EncoderBatch, QueryPrompt, TaskVectors
from gliner_pipe.modeling.losses.base import Loss
from gliner_pipe.modeling.span_reps.base import (
    MANY_LABELS,
    FoundSpans,
    Representations,
    SpanRep,
    all_alike,
    keep_scores,
    keeps_scores,
    leave_scores,
    left_scores,
)
from gliner_pipe.modeling.tasks import KINDS, Task, choice_places

#: Stands for the last word of a value that is a choice.
CHOICE = -1


class FoundValues(NamedTuple):
    """Values of fields above their thresholds, ``(values,)`` each.

    Attributes
    ----------
    rows, tasks, slots, fields
        Row, number of the task in the query, number of the instance and number of the field.
    starts, ends
        First and last word in the row; of a choice its number, and `CHOICE`.
    scores
        In [0, 1].
    """

    rows: Tensor
    tasks: Tensor
    slots: Tensor
    fields: Tensor
    starts: Tensor
    ends: Tensor
    scores: Tensor


class Columns(NamedTuple):
    """Queries of the fields of tasks, which are scored like labels.

    Attributes
    ----------
    queries
        ``(rows, columns, hidden)``; zero for padding.
    limits
        Threshold of each for spans, ``(rows, columns)``; infinite for padding.
    names
        Number of the task, of the instance and of the field, ``(rows, columns, 3)``; the task is -1 for padding.
    """

    queries: Tensor
    limits: Tensor
    names: Tensor

    @classmethod
    def join(cls, parts: Sequence[Columns]) -> Columns | None:
        """Concatenate the columns of each row."""
        if len(parts) < 2:
            return parts[0] if parts else None
        return cls(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))


@dataclass(frozen=True)
class TaskInputs(TensorBatch):
    """Thresholds and choices of the fields of a batch; a single row if those of all rows are equal.

    Attributes
    ----------
    limits
        Threshold of the spans of each field, ``(rows, tasks, fields)``; infinite for a field with choices.
    choice_limits
        Threshold of the choices of each field, ``(rows, tasks, fields)``; infinite for other fields.
    places
        Position in the row of each choice, ``(rows, tasks, fields, choices)``; -1 for padding. None without choices.
    """

    limits: Tensor
    choice_limits: Tensor
    places: Tensor | None

    @classmethod
    def of(
        cls, windows: Sequence[Window], limits: Sequence[npt.NDArray[np.float64]], batch: EncoderBatch
    ) -> TaskInputs | None:
        """Collect the inputs of windows; None if none of them has tasks with fields.

        Parameters
        ----------
        windows
            The windows.
        limits
            Threshold of each field of each record and relation of their texts, ``(tasks, fields)``.
        batch
            The windows, padded.
        """
        if batch.tasks is None or not any(one.size for one in limits):
            return None
        queries = [cast(QueryPrompt, window.prompt).query for window in windows]
        if all(one is limits[0] for one in limits) and all(query is queries[0] for query in queries):
            queries, limits = queries[:1], limits[:1]
        shape = len(queries), *batch.tasks.mask.shape[1:]
        known = {key: choice_places(query.tasks) for key, query in {id(one): one for one in queries}.items()}
        placed = [known[id(query)] for query in queries]
        most = max((len(some) for one in placed for some in one.values()), default=0)
        of_spans, of_choices = np.full(shape, np.inf), np.full(shape, np.inf)
        places = np.full((*shape, most), -1)
        for row, (one, of_fields) in enumerate(zip(limits, placed, strict=True)):
            of_spans[row, : one.shape[0], : one.shape[1]] = one
            for (task, field), some in of_fields.items():
                of_choices[row, task, field] = of_spans[row, task, field]
                of_spans[row, task, field] = np.inf
                places[row, task, field, : len(some)] = some
        return cls(
            torch.from_numpy(of_spans).float(),
            torch.from_numpy(of_choices).float(),
            torch.from_numpy(places) if most else None,
        )

    def expanded(self, rows: int) -> TaskInputs:
        """Return the inputs with a row for each of a batch."""
        places = None if self.places is None else self.places.expand(rows, -1, -1, -1)
        return TaskInputs(self.limits.expand(rows, -1, -1), self.choice_limits.expand(rows, -1, -1), places)


class GoldValues(NamedTuple):
    """The gold instances of relations or records in a batch.

    Attributes
    ----------
    asked
        Row and task of each that was looked for, ``(tasks, 2)``.
    values
        Row, task, instance and field of each value, and its first and last boundary in the row, ``(values, 6)``,
        ordered. A field may have several values, of which each is right. A choice is a word of the prompt.
    unnamed
        Row, task, instance and field of each value of which nothing is known, ``(values, 4)``.
    """

    asked: Tensor
    values: Tensor
    unnamed: Tensor

    def of_kind(self, kinds: Tensor, kind: str) -> GoldValues:
        """Return those of the tasks of a kind; `kinds` as in ``TaskVectors``."""
        number = KINDS.index(kind)
        return GoldValues(*(part[kinds[part[:, 0], part[:, 1]] == number] for part in self))


class TaskFinder(Block):
    """Finds the instances of relations or records: values for their fields.

    A finder gives queries that the span representation scores in one pass with the entity labels, or has scores of its
    own. What follows is the same for all: the best value of each field or all of them, and of the windows of a text the
    one that owns the first word of an instance.

    Attributes
    ----------
    needs_counter
        Whether the model needs a counter.
    slots_of
        The kind of task of which the counter makes queries for each instance, see ``slot_queries``; None for another
        way. The queries of all finders with slots are made in one pass.
    scores_pairs
        Whether both values of an instance have the score of the instance, and not one each.
    joins_mentions
        Whether relations whose ends are parts of each other, or read the same, are joined; see ``mentions.joined``.
    """

    needs_counter: ClassVar[bool] = False
    slots_of: ClassVar[str | None] = None
    scores_pairs: ClassVar[bool] = False
    joins_mentions: bool = False

    def check(self, span_rep: SpanRep) -> None:
        """Raise a ConfigError if the finder cannot work with the span representation; any will do by default."""

    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width; none by default."""

    def queries(self, counter: Counter | None, tasks: TaskVectors, limits: Tensor) -> Columns | None:
        """Return queries for the span representation; None if there are none.

        Parameters
        ----------
        counter
            Makes queries for instances of a task; None if the model has none.
        tasks
            Vectors of the tasks of all kinds.
        limits
            Threshold of each field in [0, 1], ``(rows, tasks, fields)``; infinite for padding.
        """
        return None

    def find(
        self, vectors: Representations, batch: EncoderBatch, inputs: TaskInputs, span_rep: SpanRep
    ) -> FoundValues | None:
        """Return the values that the finder scores itself; None if it gives queries instead.

        Parameters
        ----------
        vectors
            Words, labels and tasks.
        batch
            The windows, of which each owns all its words.
        inputs
            Thresholds and choices of the fields of each row.
        span_rep
            The span representation of the model.
        """
        return None

    def loss(
        self,
        vectors: Representations,
        inputs: EncoderBatch,
        gold: GoldValues,
        span_rep: SpanRep,
        loss: Loss,
    ) -> Tensor | None:
        """Return the summed loss of the finder's own scores; None if it has none.

        Parameters
        ----------
        vectors
            Words, labels and tasks, after the loss of the span representation.
        inputs
            Encoder input of these vectors.
        gold
            The gold instances.
        span_rep
            The span representation of the model.
        loss
            Loss of each score.
        """
        return None

    def not_found(
        self, task: Task, instances: Sequence[Sequence[Sequence[object] | None]]
    ) -> list[tuple[str, int]]:
        """Return reasons why gold instances of a task in a window cannot be found, and their numbers; none by default.

        Parameters
        ----------
        task
            The task, as the model reads it.
        instances
            Values of each field of each instance; None for a field of which nothing is known.
        """
        return []


def slot_queries(
    counter: Counter | None, tasks: TaskVectors, kinds: Collection[str], limits: Tensor
) -> Columns | None:
    """Return the queries of as many instances of each task as its vector says; None if no task has any.

    Parameters
    ----------
    counter
        Predicts the number of instances, and makes their queries.
    tasks
        Vectors of the tasks.
    kinds
        The kinds of tasks to read.
    limits
        Threshold of each field in [0, 1], ``(rows, tasks, fields)``.

    Notes
    -----
    Source: GLiNER2 (Zaratiana et al., 2025), arXiv:2507.18546.
    """
    assert counter is not None, "checked when the model is built"
    asked = torch.tensor([KINDS.index(kind) for kind in kinds], device=tasks.kinds.device)
    row, task = torch.isin(tasks.kinds, asked).nonzero().unbind(1)
    counts = counter.count(tasks.groups[row, task]).argmax(-1)
    row, task, counts = row[counts > 0], task[counts > 0], counts[counts > 0]
    if not len(row):
        return None
    mask = tasks.mask[row, task]
    mask = mask[:, : int(mask.sum(1).max())]
    fields = tasks.fields[row, task, : mask.shape[1]]
    queries = counter(fields, int(counts.max()), None if bool(mask.all()) else mask)
    slots = torch.arange(queries.shape[1], device=row.device)
    which, slot, field = ((slots < counts[:, None])[:, :, None] & mask[:, None]).nonzero().unbind(1)
    rows, numbers = row[which], task[which]
    order = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)
    shape = len(tasks.groups), int(order.max()) + 1
    columns = Columns(
        queries.new_zeros(*shape, queries.shape[3]),
        limits.new_full(shape, torch.inf),
        rows.new_full((*shape, 3), -1),
    )
    columns.queries[rows, order] = queries[which, slot, field]
    columns.limits[rows, order] = limits[rows, numbers, field]
    columns.names[rows, order] = torch.stack([numbers, slot, field], 1)
    return columns


def find_with_labels(
    span_rep: SpanRep, vectors: Representations, windows: WindowBatch, limits: Tensor, columns: Columns
) -> tuple[FoundSpans, FoundValues]:
    """Find entities and values of fields in one pass, which projects the words once.

    Parameters
    ----------
    span_rep
        Scores spans.
    vectors
        Words and labels.
    windows
        Determines at which words a span may start and end: an entity starts at an own word of its row, a value at any.
    limits
        Threshold of each label, ``(rows, labels)``; infinite for padding.
    columns
        Queries of the fields.
    """
    everywhere = whole_rows(windows)
    n_labels = vectors.labels.shape[1]
    if n_labels >= MANY_LABELS and all_alike(vectors.labels):
        # these have a faster way, for labels that rows share
        spans = span_rep.find(vectors, windows, limits)
        values = span_rep.find(
            vectors._replace(labels=columns.queries, shared=None), everywhere, columns.limits
        )
        return spans, _values(values, columns)
    both = vectors._replace(labels=torch.cat([vectors.labels, columns.queries], 1), shared={})
    if keeps_scores(vectors):
        keep_scores(both)
    found = span_rep.find(both, everywhere, torch.cat([limits, columns.limits], 1))
    scores = left_scores(both)
    if scores is not None:
        leave_scores(vectors, scores[..., :n_labels])
    first, stop = windows.own[found.rows].unbind(1)
    of_labels = found.labels < n_labels
    spans = found.where(of_labels & (found.starts >= first) & (found.starts < stop))
    values = found.where(~of_labels)
    return spans, _values(values._replace(labels=values.labels - n_labels), columns)


def find_choices(
    span_rep: SpanRep,
    vectors: Representations,
    windows: WindowBatch,
    columns: Columns,
    places: Tensor,
    limits: Tensor,
) -> FoundValues:
    """Score the choices of fields, which are words of the prompt.

    Parameters
    ----------
    span_rep
        Scores spans.
    vectors
        Words and labels.
    windows
        The windows.
    columns
        Queries of the fields.
    places
        Position in the row of each choice of each field, ``(rows, tasks, fields, choices)``; -1 for padding.
    limits
        Threshold of each field in [0, 1], ``(rows, tasks, fields)``.
    """
    rows, n_words = len(places), int(places.max()) + 1
    words = torch.arange(n_words, device=places.device)[None, :, None].expand(rows, -1, 2)
    choices = span_rep.represent(vectors.span_words, words, windows.word_mask)
    scores = (columns.queries @ choices.transpose(1, 2)).sigmoid()  # (rows, columns, words of the prompt)
    task, _, field = columns.names.unbind(2)
    row = torch.arange(rows, device=places.device)[:, None].expand_as(task)
    at = places[row, task, field]
    probs = scores.gather(2, at.clamp(min=0))
    keep = (at >= 0) & (task >= 0)[..., None] & (probs >= limits[row, task, field][..., None])
    found, column, choice = keep.nonzero().unbind(1)
    task, slot, field = columns.names[found, column].unbind(1)
    return FoundValues(found, task, slot, field, choice, torch.full_like(choice, CHOICE), probs[keep])


def whole_rows(windows: WindowBatch) -> WindowBatch:
    """Return windows that own all their words."""
    own = torch.stack([torch.zeros_like(windows.own[:, 0]), windows.word_mask.sum(1)], 1)
    return replace(windows, own=own)


def _values(spans: FoundSpans, columns: Columns) -> FoundValues:
    task, slot, field = columns.names[spans.rows, spans.labels].unbind(1)
    return FoundValues(spans.rows, task, slot, field, spans.starts, spans.ends, spans.scores)
