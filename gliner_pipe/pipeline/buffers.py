"""Annotates a stream of documents in buffers; a document that fails is isolated, and all others are returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from spacy.tokens import Doc

from gliner_pipe.util.prefetch import ahead

#: Documents buffered by ``pipe`` for each document of spaCy's batch size.
READ_AHEAD = 16
#: Limits of that buffer: documents, and words (one document at least).
MOST_DOCS, MOST_WORDS = 1024, 1 << 15


class Annotator(Protocol):
    """A component, as far as a stream of documents needs it; see ``TorchPipe``."""

    name: str

    def prepare(self, docs: Sequence[Doc]) -> Any:
        """Return the input of ``run``."""

    def run(self, prepared: Any) -> list[Any]:
        """Return the prediction for each prepared document."""

    def set_annotations(self, docs: Iterable[Doc], predictions: Iterable[Any]) -> None:
        """Write predictions to the documents."""

    def get_error_handler(self) -> Callable[..., Any]:
        """Return what is called with a document that failed."""


def documents_ahead(batch_size: int) -> int:
    """Return the number of documents in a buffer for the batch size of ``nlp.pipe``; 1 for no buffer."""
    return 1 if batch_size == 1 else min(READ_AHEAD * batch_size, MOST_DOCS)


def annotate_buffered(
    component: Annotator, stream: Iterable[Doc], n_docs: int, *, in_thread: bool
) -> Iterator[Doc]:
    """Annotate a stream of documents in order.

    Parameters
    ----------
    component
        Annotates the documents.
    stream
        Documents; may be endless.
    n_docs
        Documents in a buffer. One that reaches ``MOST_WORDS`` words is full, too.
    in_thread
        Whether a thread prepares the next buffer while the model runs.
    """

    def prepared(docs: list[Doc]) -> tuple[list[Doc], Any]:
        try:
            return docs, component.prepare(docs)
        except Exception as error:
            return docs, error

    def annotated(docs: list[Doc], found: Any) -> Iterator[Doc]:
        """Annotate documents; on an error, bisect them until the failing document is isolated."""
        try:
            if isinstance(found, Exception):
                raise found
            predictions = component.run(found)
        except Exception as error:
            if len(docs) == 1:
                component.get_error_handler()(component.name, component, docs, error)
                return
            half = len(docs) // 2
            for part in (docs[:half], docs[half:]):
                yield from annotated(*prepared(part))
            return
        for doc, prediction in zip(docs, predictions, strict=True):
            try:
                component.set_annotations([doc], [prediction])
            except Exception as error:
                component.get_error_handler()(component.name, component, [doc], error)
            else:
                yield doc

    in_order = ahead if in_thread else map
    for docs, found in in_order(prepared, _buffers(stream, n_docs, MOST_WORDS)):
        yield from annotated(docs, found)


def _buffers(stream: Iterable[Doc], n_docs: int, n_words: int) -> Iterator[list[Doc]]:
    """Split a stream into buffers of at most `n_docs` documents; one that reaches `n_words` words is full."""
    buffer: list[Doc] = []
    words = 0
    for doc in stream:
        buffer.append(doc)
        words += len(doc)
        if len(buffer) >= n_docs or words >= n_words:
            yield buffer
            buffer, words = [], 0
    if buffer:
        yield buffer
