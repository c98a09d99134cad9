"""Predicts entities in a stream of texts."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.errors import DataError
from gliner_pipe.metrics.alignment import SpanGetter, prediction_getter
from gliner_pipe.pipeline.stream import annotate
from gliner_pipe.prediction.chunks import check_ask
from gliner_pipe.prediction.outputs import Prediction
from gliner_pipe.prediction.rendering import entities_of
from gliner_pipe.prediction.texts import TextItem


def predict_texts(
    nlp: Language,
    texts: Iterable[str | TextItem],
    *,
    span_getter: SpanGetter | None = None,
    batch_size: int | None = None,
    n_process: int = 1,
) -> Generator[Prediction, None, None]:
    """Run a pipeline over a stream of texts; no more than some batches are in memory.

    Parameters
    ----------
    nlp
        Any pipeline that writes ``doc.spans`` or ``doc.ents``.
    texts
        Strings, or texts with their origin.
    span_getter
        Where the pipeline writes its spans; found out when not given.
    batch_size
        Texts a batch; that of the pipeline when not given.
    n_process
        Processes.

    Yields
    ------
    Prediction
        The text, the document and its entities, in the order of the texts. Texts that the pipeline's own error handler
        was told of are left out.

    Raises
    ------
    DataError
        If a text is longer than ``nlp.max_length``, holds half a surrogate pair, or the pipeline fails on it
        (``PredictionError``). What was read before comes first.
    WorkerError
        If one of several processes dies.

    Notes
    -----
    Close the iterator where it is not read to its end (``contextlib.closing``): that ends its processes.
    """
    getter = prediction_getter(nlp) if span_getter is None else span_getter
    waiting: deque[TextItem] = deque()

    def sources() -> Iterator[str]:
        for item in _items(texts, nlp.max_length):
            waiting.append(item)
            yield item.text

    with closing(annotate(nlp, sources(), batch_size=batch_size, n_process=n_process)) as results:
        for result in results:
            item = waiting.popleft()
            if isinstance(result, Doc):
                yield item, result, entities_of(result, getter)
            elif not result.handled:
                result.raise_for(item.where, "Mend the text or take it out")


def _items(texts: Iterable[str | TextItem], limit: int) -> Iterator[TextItem]:
    for number, text in enumerate(texts, 1):
        item = TextItem.of(text, number)
        if len(item.text) > limit:
            raise DataError(
                item.where, f"has {len(item.text)} characters", f"at most {limit}", "Split the text"
            )
        wrong = check_ask(item.text, None, limit)
        if wrong is not None:
            raise DataError(item.where, *wrong, "Mend the text or take it out")
        yield item
