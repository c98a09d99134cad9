"""The contract of an encoder: the vectors of the words and labels of a text."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gliner_pipe.modeling.backbones.base import Backbone, Pieces, Prompt, TensorBatch, Window, WindowBatch
from gliner_pipe.modeling.block import Block


class Query(NamedTuple):
    """The labels to predict for a text: the string that the model reads for each entity label and relation label."""

    entities: tuple[str, ...]
    relations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueryPrompt(Prompt):
    """The prompt of a query.

    Attributes
    ----------
    query
        The query. ``positions`` holds those of the entity labels, then those of the relation labels; it is empty for an
        encoder that encodes labels separately from the text.
    """

    query: Query

    @property
    def n_labels(self) -> int:
        """Number of entity and relation labels."""
        return len(self.query.entities) + len(self.query.relations)


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
    """

    windows: WindowBatch
    label_mask: Tensor
    relation_mask: Tensor
    queries: tuple[Query, ...]


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
    """

    words: Tensor
    labels: Tensor
    relations: Tensor


class Encoder(Block):
    """Computes the vectors of words and labels; each window is a row of its batch.

    Attributes
    ----------
    reads_relations
        Whether relation labels are supported.
    reads_bare_labels
        Whether a label may be the empty string, a placeholder for an unknown label.
    """

    family = "encoders"

    backbone: Backbone
    reads_relations: bool = True
    reads_bare_labels: bool = False

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


def _query(prompt: Prompt) -> Query:
    assert isinstance(prompt, QueryPrompt)
    return prompt.query


def _mask(lengths: Sequence[int]) -> Tensor:
    return torch.arange(max(lengths, default=0)) < torch.tensor(lengths, dtype=torch.long)[:, None]
