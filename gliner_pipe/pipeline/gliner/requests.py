"""What is asked of the model for documents: words, labels and tasks, and their minimum scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from spacy.tokens import Doc

from gliner_pipe.modeling.backbones.base import Window
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.inference import GivenSpans
from gliner_pipe.pipeline.gliner.class_choice import ClassChoice
from gliner_pipe.pipeline.gliner.task_settings import ClassesItem, RecordItem
from gliner_pipe.pipeline.labels import LabelItem, RelationItem
from gliner_pipe.pipeline.word_splitters import ReadWords, Words
from gliner_pipe.util.patterns import Pattern


class Request(NamedTuple):
    """A document, its words, what to find, the prompt, and the minimum score and pattern of each label.

    The tasks of the query are the records, the relations if the model reads them as tasks, and the classes.
    """

    doc: Doc
    words: Words
    labels: tuple[LabelItem, ...]
    relations: tuple[RelationItem, ...]
    records: tuple[RecordItem, ...]
    classes: tuple[ClassesItem, ...]
    query: Query
    limits: npt.NDArray[np.float64]
    relation_limits: list[float]
    patterns: Mapping[str, Pattern]
    field_limits: npt.NDArray[np.float64]
    choice: ClassChoice | None


#: The last six fields of a ``Request``, which documents with the same labels share.
Asked = tuple[
    Query,
    npt.NDArray[np.float64],
    list[float],
    Mapping[str, Pattern],
    npt.NDArray[np.float64],
    ClassChoice | None,
]


class Prepared(NamedTuple):
    """Requests for several documents, the words that the model reads, their windows, and counts of what was cut.

    ``given`` holds the only spans of each document to score, where the caller gave some.
    """

    requests: list[Request]
    read: list[ReadWords]
    windows: list[Window]
    report: Counter[str]
    given: list[GivenSpans] | None = None
