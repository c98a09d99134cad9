"""The contract of an encoder: the vectors of the words and labels of a text."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gliner_pipe.modeling.backbones.base import Backbone, Pieces, Prompt, TensorBatch, Window, WindowBatch
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.tasks import KINDS, Task


class Query(NamedTuple):
    """What to predict for a text.

    Attributes
    ----------
    entities, relations
        The string that the model reads for each entity label and relation label.
    tasks
        Records, relations and classes that the model reads as tasks; for encoders with ``reads_tasks``.
    descriptions
        Description of each entity label, or None; empty if there are none. For encoders with ``reads_descriptions``;
        others read the description in place of the label.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = ()
    descriptions: tuple[str | None, ...] = ()


@dataclass(frozen=True, slots=True)
class QueryPrompt(Prompt):
    """The prompt of a query.

    Attributes
    ----------
    query
        The query. ``positions`` holds those of the entity labels, those of the relation labels, and for each task its
        own and those of its fields; it is empty for an encoder that encodes labels separately from the text.
    """

    query: Query

    @property
    def n_labels(self) -> int:
        """Number of entity and relation labels."""
        return len(self.query.entities) + len(self.query.relations)


@dataclass(frozen=True)
class TaskLayout(TensorBatch):
    """Where the tasks of each row stand among the positions of its prompt.

    Attributes
    ----------
    places
        Index of the task, then those of its fields; 0 for padding, ``(rows, tasks, 1 + fields)``.
    mask
        False for padding, ``(rows, tasks, fields)``.
    kinds
        Index of the kind of each task in ``KINDS``; -1 for padding, ``(rows, tasks)``.
    """

    places: Tensor
    mask: Tensor
    kinds: Tensor


@dataclass(frozen=True)
class EncoderBatch(TensorBatch):
    """Input of an encoder.

    Attributes
    ----------
    windows
        Windows of the texts.
    label_mask, relation_mask
        True for the labels of each row, ``(rows, labels)`` and ``(rows, relation labels)``.
    queries
        Query of each row.
    tasks
        The tasks of the rows; None if no row has any.
    """

    windows: WindowBatch
    label_mask: Tensor
    relation_mask: Tensor
    queries: tuple[Query, ...]
    tasks: TaskLayout | None = None


class TaskVectors(NamedTuple):
    """The vectors of the tasks of a batch, in the order of ``Query.tasks``.

    Attributes
    ----------
    groups
        Vector of each task, ``(rows, tasks, hidden)``.
    fields
        Vectors of the fields of each task, ``(rows, tasks, fields, hidden)``; zero for padding.
    mask
        False for padding, ``(rows, tasks, fields)``.
    kinds
        Index of the kind of each task in ``KINDS``; -1 for padding, ``(rows, tasks)``.
    """

    groups: Tensor
    fields: Tensor
    mask: Tensor
    kinds: Tensor

    def places(self, kind: str) -> Tensor:
        """Return row, task and field of all fields of the tasks of a kind, ordered, ``(fields, 3)``."""
        return (self.mask & (self.kinds == KINDS.index(kind))[:, :, None]).nonzero()


class Encoded(NamedTuple):
    """The output of an encoder.

    Attributes
    ----------
    words
        Vectors of the words of each window, ``(rows, words, hidden)``.
    labels
        Vectors of the entity labels of each window, ``(rows, labels, hidden)``; zero for padding.
    relations
        Vectors of the relation labels of each window, ``(rows, relation labels, hidden)``.
    tasks
        Vectors of the tasks; None if no window has any.
    """

    words: Tensor
    labels: Tensor
    relations: Tensor
    tasks: TaskVectors | None = None


class Encoder(Block):
    """Computes the vectors of words and labels; each window is a row of its batch.

    Attributes
    ----------
    reads_relations
        Whether relation labels are supported.
    reads_bare_labels
        Whether a label may be the empty string, a placeholder for an unknown label.
    reads_tasks
        Kinds of tasks that are supported, of ``KINDS``.
    reads_descriptions
        Whether labels and their descriptions are read apart (``Query.descriptions``).
    """

    family = "encoders"

    backbone: Backbone
    reads_relations: bool = True
    reads_bare_labels: bool = False
    reads_tasks: Collection[str] = ()
    reads_descriptions: bool = False

    @property
    def label_mark(self) -> Tensor | None:
        """A tensor that is changed or replaced with the label vectors; None where these depend on the text."""
        return None

    @property
    def output_size(self) -> int:
        """Width of word and label vectors, known once built."""
        return self.backbone.output_size

    @abstractmethod
    def build(self) -> None:
        """Load the pretrained weights and create the other layers."""

    @abstractmethod
    def prompt(self, query: Query) -> QueryPrompt:
        """Return the prompt before the words of a text with this query."""

    def prepare(
        self,
        texts: Sequence[Sequence[str]],
        queries: Sequence[Query],
        min_overlap: int,
        report: Counter[str] | None = None,
        pieces: Sequence[Pieces] | None = None,
        training: bool = False,
    ) -> list[Window]:
        """Cut texts into windows, each with the prompt of its query.

        Parameters
        ----------
        texts
            The words of each text.
        queries
            Query of each text.
        min_overlap
            Smallest number of words that neighbouring windows share.
        report
            Counts truncations.
        pieces
            Subword tokens of the texts, if already computed.
        training
            Cut windows for training; see ``Backbone.windows``.
        """
        # by identity first: hashing a query of 100,000 labels for each text is slow
        distinct = {id(query): query for query in queries}
        by_query = {query: self.prompt(query) for query in dict.fromkeys(distinct.values())}
        by_id = {key: by_query[query] for key, query in distinct.items()}
        prompts = [by_id[id(query)] for query in queries]
        cut = self.backbone.tokenize(texts) if pieces is None else pieces
        return self.backbone.windows(cut, prompts, min_overlap, report, training)

    def collate(self, windows: Sequence[Window]) -> EncoderBatch:
        """Pad windows into one batch, on the CPU."""
        queries = tuple(_query(window.prompt) for window in windows)
        return EncoderBatch(
            windows=self.backbone.collate(windows),
            label_mask=_mask([len(query.entities) for query in queries]),
            relation_mask=_mask([len(query.relations) for query in queries]),
            queries=queries,
            tasks=_task_layout(queries) if any(query.tasks for query in queries) else None,
        )

    @abstractmethod
    def forward(self, batch: EncoderBatch) -> Encoded:
        """Run a batch."""

    def save_assets(self, path: Path) -> None:
        """Write configurations and tokenizers, but no weights, to the folder `path`."""
        self.backbone.save_assets(path / "backbone")

    @abstractmethod
    def load_assets(self, path: Path) -> None:
        """Build the modules from what ``save_assets`` wrote; their weights are loaded afterwards."""


def task_vectors(prompt: Tensor, layout: TaskLayout) -> TaskVectors:
    """Select the vectors of the tasks.

    Parameters
    ----------
    prompt
        Vectors at the positions of the prompts, ``(rows, positions, hidden)``.
    layout
        Where the tasks stand among them.
    """
    rows = torch.arange(len(prompt), device=prompt.device)[:, None, None]
    groups, fields = prompt[rows, layout.places].split([1, layout.mask.shape[2]], 2)
    return TaskVectors(groups[:, :, 0], fields * layout.mask[..., None], layout.mask, layout.kinds)


def _task_layout(queries: Sequence[Query]) -> TaskLayout:
    n_tasks = max(len(query.tasks) for query in queries)
    n_fields = max(len(task.fields) for query in queries for task in query.tasks)
    places = np.zeros((len(queries), n_tasks, 1 + n_fields), np.int64)
    lengths = np.zeros((len(queries), n_tasks), np.int64)
    kinds = np.full((len(queries), n_tasks), -1)
    done: dict[int, int] = {}
    for row, query in enumerate(queries):
        before = done.setdefault(id(query), row)
        if before != row:
            places[row], lengths[row], kinds[row] = places[before], lengths[before], kinds[before]
            continue
        at = len(query.entities) + len(query.relations)
        for number, task in enumerate(query.tasks):
            lengths[row, number] = size = len(task.fields)
            kinds[row, number] = KINDS.index(task.kind)
            places[row, number, : 1 + size] = np.arange(at, at + 1 + size)
            at += 1 + size
    mask = np.arange(n_fields) < lengths[..., None]
    return TaskLayout(torch.from_numpy(places), torch.from_numpy(mask), torch.from_numpy(kinds))


def _query(prompt: Prompt) -> Query:
    assert isinstance(prompt, QueryPrompt)
    return prompt.query


def _mask(lengths: Sequence[int]) -> Tensor:
    return torch.arange(max(lengths, default=0)) < torch.tensor(lengths, dtype=torch.long)[:, None]
