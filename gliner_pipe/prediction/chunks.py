"""Predicts on chunks of rows: the one loop behind shards, Ray and Spark."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.data.fields import text_problem
from gliner_pipe.errors import DataError, GlinerPipeError
from gliner_pipe.metrics.alignment import SpanGetter, prediction_getter
from gliner_pipe.pipeline.labels import parse_labels
from gliner_pipe.pipeline.records import Entity, RelationRecord, entities_of, relations_of, task_fields
from gliner_pipe.pipeline.stream import Failure, Labelled, Source, annotate

_SURROGATE = re.compile("[\ud800-\udfff]")
#: What to do about a row without prediction.
FIX_ROW = "Fix the row, or skip such rows: --on-error skip"
#: Fields that a prediction may add to a row; the last one only where bad rows are skipped.
PREDICTION_FIELDS = ("entities", "relations", "relation_scores", "error")


class Request(NamedTuple):
    """A text to predict on: its position among the rows of the chunk, its place in the data, and its own labels."""

    position: int
    text: str
    where: object
    labels: list[Any] | None = None


class BadRow(NamedTuple):
    """A row without prediction.

    Attributes
    ----------
    where, found, allowed
        As in ``DataError``.
    number
        Number of the row in the shard.
    position
        Number of rows of the chunk that are kept before it.
    kept
        Whether the row itself is kept in the output.
    """

    where: str
    found: str
    allowed: str
    number: int
    position: int
    kept: bool = True

    def error(self) -> DataError:
        """Return the error that describes the row."""
        return DataError(self.where, self.found, self.allowed, FIX_ROW)

    @property
    def reason(self) -> str:
        """Text for the field ``error`` of the output row."""
        return f"{self.found}; allowed: {self.allowed}" if self.allowed else self.found


class Found(NamedTuple):
    """Entities and relations of a text, the latter None where the pipeline predicts none, and its ``task_fields``."""

    entities: list[Entity]
    relations: list[RelationRecord] | None = None
    tasks: Mapping[str, Any] = {}

    @classmethod
    def of(cls, doc: Doc, entities: list[Entity]) -> Found:
        """Collect what was found in a document with these entities."""
        return cls(entities, relations_of(doc, entities), task_fields(doc, entities))


class NoPrediction(NamedTuple):
    """Why a row has no prediction."""

    reason: str


#: Result of a row.
Outcome = Found | NoPrediction


@dataclass
class Chunk:
    """Consecutive rows of a shard.

    Attributes
    ----------
    shard
        The shard of the rows.
    start, stop
        Range of row numbers, the end exclusive.
    rows
        The columns that are kept: a ``pyarrow.RecordBatch``, or one dictionary per row. Lines that cannot be parsed are
        not included.
    requests
        The texts to predict on.
    bad
        Rows that are left out, and rows that are kept without prediction.
    last
        Whether this is the last chunk of the shard.
    share
        Fraction of the shard that has been read at the end of the chunk, from 0 to 1.
    error
        Why reading stops after this chunk.
    repaired
        Number of predicted rows in which invalid characters outside the text were replaced by U+FFFD.
    """

    shard: Any
    start: int
    stop: int
    rows: Any
    requests: list[Request]
    bad: list[BadRow] = field(default_factory=list)
    last: bool = False
    share: float = 1.0
    error: DataError | None = None
    repaired: int = 0


def check_text(text: Any, labels: Any, limit: int) -> tuple[str, str] | None:
    """Check the text and the labels of a row.

    Parameters
    ----------
    text
        Text of the row.
    labels
        Labels of the row; None if it has none.
    limit
        Maximum number of characters of a text.

    Returns
    -------
    tuple or None
        What was found and what is allowed; None if the row is valid.
    """
    if text is None:
        return "has no text (null)", "a text"
    if isinstance(text, UnicodeDecodeError):
        return f"has a text that is not UTF-8 (byte {text.start + 1})", "UTF-8 text"
    if not isinstance(text, str):
        return f"has a text of type {type(text).__name__}", "a string"
    if len(text) > limit:
        return f"has {len(text)} characters", f"at most {limit} (nlp.max_length)"
    if problem := text_problem(text):
        return problem[:2]
    place = _unpaired_surrogate(text)
    if place is not None:
        found = f"has a text with an unpaired surrogate (\\u{ord(text[place]):04x} at {place})"
        return found, "characters that UTF-8 can encode"
    if labels is not None:
        if not isinstance(labels, list) or not labels:
            return f"has the labels {ascii(labels)[:40]}", "a list of at least one label, or null"
        if (
            "\\ud" in ascii(labels)
            and _unpaired_surrogate(json.dumps(labels, ensure_ascii=False, default=str)) is not None
        ):
            return "has labels with an unpaired surrogate", "characters that UTF-8 can encode"
        try:
            parse_labels(labels, "labels")
        except GlinerPipeError as error:
            return f"has invalid labels: {error}", "labels as in the component's config"
    return None


def _unpaired_surrogate(text: str) -> int | None:
    """Return the position of the first unpaired surrogate, which no encoding can represent; None if there is none."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def replace_surrogates(value: Any) -> Any:
    """Return a JSON value with U+FFFD in place of each unpaired surrogate."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [replace_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {replace_surrogates(name): replace_surrogates(item) for name, item in value.items()}
    return value


def predict_chunks(
    nlp: Language,
    chunks: Iterable[Chunk],
    *,
    span_getter: SpanGetter | None = None,
    batch_size: int | None = None,
    n_process: int = 1,
    skip: bool = False,
) -> Generator[tuple[Chunk, list[Outcome]], None, None]:
    """Run a pipeline over a stream of chunks, as one stream of texts; at most a few batches are in memory.

    Close the iterator when it is not read to its end: that ends its worker processes.

    Parameters
    ----------
    nlp
        Any pipeline that sets ``doc.spans`` or ``doc.ents``.
    chunks
        The rows.
    span_getter, batch_size, n_process
        As in ``predict_texts``.
    skip
        Whether to continue after a text on which the pipeline fails.

    Yields
    ------
    tuple
        Each chunk in order, with one outcome per row.

    Raises
    ------
    PredictionError
        If the pipeline fails on a text, unless `skip` is set or the pipeline's error handler has handled the failure.
    """
    getter = prediction_getter(nlp) if span_getter is None else span_getter
    pending: deque[_Pending] = deque()

    def texts() -> Iterator[Source]:
        for chunk in chunks:
            pending.append(_Pending(chunk))
            for request in chunk.requests:
                yield request.text if request.labels is None else Labelled(request.text, request.labels)

    with closing(annotate(nlp, texts(), batch_size=batch_size, n_process=n_process)) as results:
        for result in results:
            yield from _complete(pending)
            pending[0].add(result, getter, skip)
            yield from _complete(pending)
    yield from _complete(pending)


class _Pending:
    """A chunk that waits for some of its documents."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.requests = deque(chunk.requests)
        self.outcomes: list[Outcome] = [NoPrediction("")] * len(chunk.rows)
        for row in chunk.bad:
            if row.kept:
                self.outcomes[row.position] = NoPrediction(row.reason)

    def add(self, result: Doc | Failure, getter: SpanGetter, skip: bool) -> None:
        request = self.requests.popleft()
        if isinstance(result, Doc):
            entities = entities_of(result, getter)
            self.outcomes[request.position] = Found.of(result, entities)
            return
        own_labels = request.labels is not None
        if result.concerns_all(own_labels) or not (skip or result.handled):
            result.raise_for(str(request.where), FIX_ROW, has_own_labels=own_labels)
        handled = " (passed to the pipeline's error handler)" if result.handled else ""
        found = f"could not be predicted on{handled}: {result.reason}"
        bad = BadRow(str(request.where), found, "", self.chunk.stop, request.position)
        self.outcomes[request.position] = NoPrediction(bad.reason)
        self.chunk.bad.append(bad)


def _complete(pending: deque[_Pending]) -> Iterator[tuple[Chunk, list[Outcome]]]:
    """Remove and yield the first chunks while they are complete."""
    while pending and not pending[0].requests:
        first = pending.popleft()
        yield first.chunk, first.outcomes


def json_fields(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as the fields of a JSON object, which the reader ``jsonl`` reads back.

    ``entities`` (start, end, label, score, text); if relations were predicted also ``relations`` (head and tail as
    positions in ``entities``, label) and ``relation_scores``; and ``task_fields``. A row without prediction has null as
    ``entities`` and the reason as ``error``.
    """
    if isinstance(outcome, NoPrediction):
        return {"entities": None, "error": outcome.reason}
    fields: dict[str, Any] = {"entities": outcome.entities}
    if outcome.relations is not None:
        fields["relations"] = [list(relation[:3]) for relation in outcome.relations]
        fields["relation_scores"] = [relation.score for relation in outcome.relations]
    return {**fields, **outcome.tasks}


def conflicting_names(columns: Sequence[str], skip: bool) -> list[str]:
    """Return the columns of the data whose names a prediction needs; `skip` if bad rows are skipped."""
    return [name for name in columns if name in (PREDICTION_FIELDS if skip else PREDICTION_FIELDS[:-1])]
