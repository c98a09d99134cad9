"""Chunks of rows through a pipeline: the one loop behind shards, Ray and Spark."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.annotate import install_extensions
from gliner_pipe.errors import DataError, GlinerPipeError
from gliner_pipe.labels import parse_labels
from gliner_pipe.metrics.getters import SpanGetter, prediction_getter
from gliner_pipe.prediction.rendering import Entity, RelationRecord, entities_of, relations_of


class Ask(NamedTuple):
    """A text to predict on: its position among the rows of the chunk, where it stands, and the labels of its own if it
    has any.
    """

    position: int
    text: str
    where: object
    labels: list[Any] | None = None


class BadRow(NamedTuple):
    """A row without prediction: where it stands, what was found there and what is allowed; its number in the shard, and
    how many rows of the chunk are carried along before it.
    """

    where: str
    found: str
    allowed: str
    number: int
    position: int

    def error(self) -> DataError:
        """Return the error that tells of it."""
        return DataError(
            self.where, self.found, self.allowed, "Mend it, or go on without such rows: --on-error skip"
        )


class Found(NamedTuple):
    """What was found in a text; relations are None where none were looked for."""

    entities: list[Entity]
    relations: list[RelationRecord] | None = None


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
    if not isinstance(text, str):
        return f"has a text that is {type(text).__name__}", "a string"
    if len(text) > limit:
        return f"has {len(text)} characters", f"at most {limit} (nlp.max_length)"
    if labels is not None:
        if not isinstance(labels, list) or not labels:
            return f"has labels that are {str(labels)[:40]!r}", "a list of at least one label, or null"
        try:
            parse_labels(labels, "labels")
        except GlinerPipeError as error:
            return f"has labels that cannot be: {error}", "labels as in the component's config"
    return None


def predict_chunks(
    nlp: Language,
    chunks: Iterable[Chunk],
    *,
    span_getter: SpanGetter | None = None,
    batch_size: int | None = None,
    n_process: int = 1,
) -> Iterator[tuple[Chunk, list[Found | None]]]:
    """Run a pipeline over a stream of chunks, in one stream of texts; no more than some batches are in memory.

    Parameters
    ----------
    nlp
        Any pipeline that writes ``doc.spans`` or ``doc.ents``.
    chunks
        The rows.
    span_getter, batch_size, n_process
        As for ``predict_texts``.

    Yields
    ------
    tuple
        Each chunk in order, with what was found in each of its rows; None for a row without text to predict on.
    """
    getter = prediction_getter(nlp) if span_getter is None else span_getter
    waiting: deque[_Waiting] = deque()

    def texts() -> Iterator[tuple[str | Doc, int]]:
        start = 0
        for chunk in chunks:
            waiting.append(_Waiting(chunk, start))
            for number, ask in enumerate(chunk.asks, start):
                yield _asked(nlp, ask), number
            start += len(chunk.asks)

    stream = nlp.pipe(texts(), as_tuples=True, batch_size=batch_size or nlp.batch_size, n_process=n_process)
    for doc, number in stream:
        yield from _before(waiting, number)
        entities = entities_of(doc, getter)
        waiting[0].add(number, Found(entities, relations_of(doc, entities)))
        yield from _before(waiting, number + 1)
    yield from _before(waiting, None)


class _Waiting:
    """A chunk whose documents are under way; `start` is the number of the first in the stream."""

    def __init__(self, chunk: Chunk, start: int) -> None:
        self.chunk, self.start, self.stop = chunk, start, start + len(chunk.asks)
        self.found: list[Found | None] = [None] * len(chunk.rows)

    def add(self, number: int, found: Found) -> None:
        self.found[self.chunk.asks[number - self.start].position] = found

    def done(self) -> tuple[Chunk, list[Found | None]]:
        """The chunk with what was found; documents that an error handler of the pipeline took out are bad rows."""
        for ask in self.chunk.asks:
            if self.found[ask.position] is None:
                found = "could not be predicted on: the pipeline's error handler was told why"
                self.chunk.bad.append(BadRow(str(ask.where), found, "", self.chunk.stop, ask.position))
        return self.chunk, self.found


def _before(waiting: deque[_Waiting], number: int | None) -> Iterator[tuple[Chunk, list[Found | None]]]:
    """Chunks that end before a document of the stream; all at its end."""
    while waiting and (number is None or waiting[0].stop <= number):
        yield waiting.popleft().done()


def _asked(nlp: Language, ask: Ask) -> str | Doc:
    if ask.labels is None:
        return ask.text
    install_extensions()
    doc = nlp.make_doc(ask.text)
    doc._.gliner_labels = ask.labels
    return doc


def fields_of(found: Found) -> dict[str, Any]:
    """Return what was found as the fields of a JSON object, which the reader ``jsonl`` takes.

    ``entities`` (start, end, label, score, text); where relations were looked for also ``relations`` (head and tail as
    positions in ``entities``, label), with ``relation_scores``.
    """
    fields: dict[str, Any] = {"entities": found.entities}
    if found.relations is not None:
        fields["relations"] = [list(relation[:3]) for relation in found.relations]
        fields["relation_scores"] = [relation.score for relation in found.relations]
    return fields


#: Fields that a prediction may add to a row.
ADDED = ("entities", "relations", "relation_scores")


def names_added(columns: Sequence[str]) -> list[str]:
    """Return which of the columns of the data are in the way of what is added."""
    return [name for name in columns if name in ADDED]
