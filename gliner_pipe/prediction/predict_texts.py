"""Predicts entities in a stream of texts."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing

from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.errors import DataError
from gliner_pipe.metrics.alignment import SpanGetter, prediction_getter
from gliner_pipe.pipeline.records import entities_of
from gliner_pipe.pipeline.stream import annotate
from gliner_pipe.prediction.chunks import check_text
from gliner_pipe.prediction.outputs import Prediction
from gliner_pipe.prediction.texts import TextItem

_FIX_TEXT = "Fix the text or remove it"


def predict_texts(
    nlp: Language,
    texts: Iterable[str | TextItem],
    *,
    span_getter: SpanGetter | None = None,
    batch_size: int | None = None,
    n_process: int = 1,
) -> Generator[Prediction, None, None]:
    """Run a pipeline over a stream of texts; at most a few batches are in memory.

    Parameters
    ----------
    nlp
        Any pipeline that sets ``doc.spans`` or ``doc.ents``.
    texts
        Strings, or texts with their origin.
    span_getter
        Where the pipeline stores its spans; detected by default.
    batch_size
        Texts per batch; the pipeline's own by default.
    n_process
        Number of processes.

    Yields
    ------
    Prediction
        The text, the document and its entities, in the order of the texts. Texts that were passed to the pipeline's own
        error handler are left out.

    Raises
    ------
    DataError
        If a text is longer than ``nlp.max_length`` or contains an unpaired surrogate, or the pipeline fails on it
        (``PredictionError``). The predictions of the texts before it are yielded first.
    WorkerError
        If a worker process dies.

    Notes
    -----
    Close the iterator if it is not read to its end (``contextlib.closing``): that ends its worker processes.
    """
    getter = prediction_getter(nlp) if span_getter is None else span_getter
    pending: deque[TextItem] = deque()

    def checked() -> Iterator[str]:
        for number, text in enumerate(texts, 1):
            item = TextItem.of(text, number)
            invalid = check_text(item.text, None, nlp.max_length)
            if invalid is not None:
                raise DataError(item.where, *invalid, _FIX_TEXT)
            pending.append(item)
            yield item.text

    with closing(annotate(nlp, checked(), batch_size=batch_size, n_process=n_process)) as results:
        for result in results:
            item = pending.popleft()
            if isinstance(result, Doc):
                yield item, result, entities_of(result, getter)
            elif not result.handled:
                result.raise_for(item.where, _FIX_TEXT)
