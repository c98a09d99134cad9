"""The contract of an encoder: how labels meet the text."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gliner_pipe.modeling.backbones.base import Backbone
from gliner_pipe.modeling.backbones.windows import Pieces, Prompt, TensorBatch, Window, WindowBatch
from gliner_pipe.modeling.block import Block


class Query(NamedTuple):
    """What a text is asked for: what the model reads for each entity label and for each relation label."""

    entities: tuple[str, ...]
    relations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class QueryPrompt(Prompt):
    """The prompt of a query.

    Attributes
    ----------
    query
        What is asked. Of ``positions``, those of the entity labels come first, then those of the relation labels; an
        encoder that reads labels apart from the text has none.
    """

    query: Query

    @property
    def n_labels(self) -> int:
        """Number of labels that are asked for, of relations too."""
        return len(self.query.entities) + len(self.query.relations)


@dataclass(frozen=True)
class EncoderBatch(TensorBatch):
    """Input of an encoder.

    Attributes
    ----------
    windows
        Of the texts.
    label_mask, relation_mask
        True for the labels of each row, ``(rows, labels)`` and ``(rows, relation labels)``.
    queries
        What each row is asked for.
    """

    windows: WindowBatch
    label_mask: Tensor
    relation_mask: Tensor
    queries: tuple[Query, ...]


class Encoded(NamedTuple):
    """What an encoder hands on.

    Attributes
    ----------
    words
        Vectors of the words of each window, ``(rows, words, hidden)``.
    labels
        Vectors of the entity labels of each window, ``(rows, labels, hidden)``; zero where there is none.
    relations
        Vectors of the relation labels of each window, ``(rows, relation labels, hidden)``.
    """

    words: Tensor
    labels: Tensor
    relations: Tensor


class Encoder(Block):
    """Lets words and labels meet; works on windows, each a row of its batch.

    Attributes
    ----------
    reads_relations
        Whether relation labels can be asked for.
    reads_bare_labels
        Whether a label may be the empty string: a place for a label that is not known.
    """

    family = "encoders"

    backbone: Backbone
    reads_relations: bool = True
    reads_bare_labels: bool = False

    @property
    def reads_labels_apart(self) -> bool:
        """Whether the vectors of labels depend on nothing but the labels."""
        return False

    @property
    def output_size(self) -> int:
        """Width of word and label vectors, known once built."""
        return self.backbone.output_size

    @abstractmethod
    def build(self) -> None:
        """Load the pretrained weights and make the encoder's own."""

    @abstractmethod
    def prompt(self, query: Query) -> QueryPrompt:
        """Return what stands before the words of a text that is asked `query`."""

    def prepare(
        self,
        texts: Sequence[Sequence[str]],
        queries: Sequence[Query],
        min_overlap: int,
        report: Counter[str] | None = None,
        pieces: Sequence[Pieces] | None = None,
    ) -> list[Window]:
        """Cut texts into windows, each with the prompt of its query.

        Parameters
        ----------
        texts
            The words of each text.
        queries
            What each text is asked for.
        min_overlap
            Words that neighbouring windows share.
        report
            Counts what is cut off.
        pieces
            Of the words, where they are known already.
        """
        distinct = {
            id(query): query for query in queries
        }  # a query of 100,000 labels is not hashed for each text
        made = {query: self.prompt(query) for query in dict.fromkeys(distinct.values())}
        shared = {key: made[query] for key, query in distinct.items()}
        prompts = [shared[id(query)] for query in queries]
        cut = self.backbone.tokenize(texts) if pieces is None else pieces
        return self.backbone.windows(cut, prompts, min_overlap, report)

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
        """Write what is needed beside the weights into the folder `path`."""
        self.backbone.save_assets(path / "backbone")

    @abstractmethod
    def load_assets(self, path: Path) -> None:
        """Make the modules from what ``save_assets`` wrote, with weights still to be filled in."""


def _query(prompt: Prompt) -> Query:
    assert isinstance(prompt, QueryPrompt)
    return prompt.query


def _mask(lengths: Sequence[int]) -> Tensor:
    return torch.arange(max(lengths, default=0)) < torch.tensor(lengths, dtype=torch.long)[:, None]
