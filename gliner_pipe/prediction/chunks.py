"""Chunks of rows through a pipeline: the one loop behind shards, Ray and Spark."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.errors import DataError, GlinerPipeError
from gliner_pipe.metrics.alignment import SpanGetter, prediction_getter
from gliner_pipe.pipeline.labels import parse_labels
from gliner_pipe.pipeline.stream import Failure, Labelled, Source, annotate
from gliner_pipe.prediction.rendering import Entity, RelationRecord, entities_of, relations_of

_HALF = re.compile("[\ud800-\udfff]")
#: What to do about a row that cannot be predicted on.
MEND = "Mend it, or go on without such rows: --on-error skip"


class Ask(NamedTuple):
    """A text to predict on: its position among the rows of the chunk, where it stands, and the labels of its own if it
    has any.
    """

    position: int
    text: str
    where: object
    labels: list[Any] | None = None


class BadRow(NamedTuple):
    """A row without prediction: where it stands, what was found there and what is allowed; its number in the shard, how
    many rows of the chunk are carried along before it, and whether it is carried along itself.
    """

    where: str
    found: str
    allowed: str
    number: int
    position: int
    kept: bool = True

    def error(self) -> DataError:
        """Return the error that tells of it."""
        return DataError(self.where, self.found, self.allowed, MEND)

    @property
    def reason(self) -> str:
        """What the output row says about it."""
        return f"{self.found}; allowed: {self.allowed}" if self.allowed else self.found


class Found(NamedTuple):
    """What was found in a text; relations are None where none were looked for."""

    entities: list[Entity]
    relations: list[RelationRecord] | None = None


class Missed(NamedTuple):
    """Why nothing was looked for in a row."""

    reason: str


#: What became of a row.
Outcome = Found | Missed


@dataclass
class Chunk:
    """Rows of a shard that stand side by side.

    Attributes
    ----------
    shard
        What they belong to.
    start, stop
        Which rows of the shard, the end exclusive.
    rows
        The columns that are carried along: a ``pyarrow.RecordBatch``, or a dictionary a row. Lines that could
        not be read are not among them.
    asks
        The texts to predict on.
    bad
        The rows that are left out, and those that are kept without prediction.
    last
        Whether the shard ends here.
    share
        How much of the shard has been read at the end of it, from 0 to 1.
    error
        Why reading ends here.
    mended
        Rows to predict on in which something beside the text was replaced by U+FFFD.
    """

    shard: Any
    start: int
    stop: int
    rows: Any
    asks: list[Ask]
    bad: list[BadRow] = field(default_factory=list)
    last: bool = False
    share: float = 1.0
    error: DataError | None = None
    mended: int = 0


def check_ask(text: Any, labels: Any, limit: int) -> tuple[str, str] | None:
    """Say what is wrong with the text of a row, or with labels of its own, and what is allowed; None if nothing is.

    Parameters
    ----------
    text
        Of the row.
    labels
        Of the row; None if it has none.
    limit
        Characters of a text at most.
    """
    if text is None:
        return "has no text (null)", "a text"
    if isinstance(text, UnicodeDecodeError):
        return f"has a text that is not UTF-8 (byte {text.start + 1})", "UTF-8 text"
    if not isinstance(text, str):
        return f"has a text that is {type(text).__name__}", "a string"
    if len(text) > limit:
        return f"has {len(text)} characters", f"at most {limit} (nlp.max_length)"
    place = half_character(text)
    if place is not None:
        found = f"has a text with half a character (\\u{ord(text[place]):04x} at {place})"
        return found, "whole characters, not one of a surrogate pair"
    if labels is not None:
        if not isinstance(labels, list) or not labels:
            return f"has labels that are {ascii(labels)[:40]}", "a list of at least one label, or null"
        if (
            "\\ud" in ascii(labels)
            and half_character(json.dumps(labels, ensure_ascii=False, default=str)) is not None
        ):
            return "has labels with half a character", "whole characters, not one of a surrogate pair"
        try:
            parse_labels(labels, "labels")
        except GlinerPipeError as error:
            return f"has labels that cannot be: {error}", "labels as in the component's config"
    return None


def half_character(text: str) -> int | None:
    """Return where a text holds one half of a surrogate pair, which no encoding can write; None if nowhere."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def whole_characters(value: Any) -> Any:
    """Return a JSON value with U+FFFD for each half of a surrogate pair."""
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [whole_characters(item) for item in value]
    if isinstance(value, dict):
        return {whole_characters(name): whole_characters(item) for name, item in value.items()}
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
    """Run a pipeline over a stream of chunks, in one stream of texts; no more than some batches are in memory.

    Close the iterator when it is not read to its end: that ends its processes.

    Parameters
    ----------
    nlp
        Any pipeline that writes ``doc.spans`` or ``doc.ents``.
    chunks
        The rows.
    span_getter, batch_size, n_process
        As for ``predict_texts``.
    skip
        Whether to go on after a text that the pipeline fails on.

    Yields
    ------
    tuple
        Each chunk in order, with what became of each of its rows.

    Raises
    ------
    PredictionError
        If the pipeline fails on a text, unless `skip` is set or an error handler of the pipeline was told.
    """
    getter = prediction_getter(nlp) if span_getter is None else span_getter
    waiting: deque[_Waiting] = deque()

    def texts() -> Iterator[Source]:
        for chunk in chunks:
            waiting.append(_Waiting(chunk))
            for ask in chunk.asks:
                yield ask.text if ask.labels is None else Labelled(ask.text, ask.labels)

    with closing(annotate(nlp, texts(), batch_size=batch_size, n_process=n_process)) as results:
        for result in results:
            yield from _complete(waiting)
            waiting[0].add(result, getter, skip)
            yield from _complete(waiting)
    yield from _complete(waiting)


class _Waiting:
    """A chunk whose documents are under way."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.asks = deque(chunk.asks)
        self.outcomes: list[Outcome] = [Missed("")] * len(chunk.rows)
        for row in chunk.bad:
            if row.kept:
                self.outcomes[row.position] = Missed(row.reason)

    def add(self, result: Doc | Failure, getter: SpanGetter, skip: bool) -> None:
        ask = self.asks.popleft()
        if isinstance(result, Doc):
            entities = entities_of(result, getter)
            self.outcomes[ask.position] = Found(entities, relations_of(result, entities))
            return
        own_labels = ask.labels is not None
        if result.concerns_all(own_labels) or not (skip or result.handled):
            result.raise_for(str(ask.where), MEND, has_own_labels=own_labels)
        told = " (the pipeline's error handler was told)" if result.handled else ""
        found = f"could not be predicted on{told}: {result.reason}"
        bad = BadRow(str(ask.where), found, "", self.chunk.stop, ask.position)
        self.outcomes[ask.position] = Missed(bad.reason)
        self.chunk.bad.append(bad)


def _complete(waiting: deque[_Waiting]) -> Iterator[tuple[Chunk, list[Outcome]]]:
    """The chunks that no document is missing from."""
    while waiting and not waiting[0].asks:
        first = waiting.popleft()
        yield first.chunk, first.outcomes


def fields_of(found: Outcome) -> dict[str, Any]:
    """Return what was found as the fields of a JSON object, which the reader ``jsonl`` takes.

    ``entities`` (start, end, label, score, text); where relations were looked for also ``relations`` (head and tail as
    positions in ``entities``, label), with ``relation_scores``. Of a row that was missed, null as ``entities`` and the
    reason as ``error``.
    """
    if isinstance(found, Missed):
        return {"entities": None, "error": found.reason}
    fields: dict[str, Any] = {"entities": found.entities}
    if found.relations is not None:
        fields["relations"] = [list(relation[:3]) for relation in found.relations]
        fields["relation_scores"] = [relation.score for relation in found.relations]
    return fields


#: Fields that a prediction may add to a row; the last only where bad rows are skipped.
ADDED = ("entities", "relations", "relation_scores", "error")


def names_added(columns: Sequence[str], skip: bool) -> list[str]:
    """Return which of the columns of the data are in the way of what is added."""
    return [name for name in columns if name in (ADDED if skip else ADDED[:-1])]
