"""The predictor that goes where the data is: a batch of Arrow in, a batch of Arrow with predictions out."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spacy.language import Language

from gliner_pipe.arguments import split_labels
from gliner_pipe.data.files import Place
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.getters import SpanGetter
from gliner_pipe.overrides import override
from gliner_pipe.prediction.arrow import Schema, arrow
from gliner_pipe.prediction.chunks import Chunk, predict_chunks
from gliner_pipe.prediction.shards import Columns, add_batch, check_columns, refuse_names

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger("gliner_pipe")


class ArrowPredictor:
    """Adds predictions to tables of texts; for ``ds.map_batches`` of Ray, ``df.mapInArrow`` of Spark, and pyarrow.

    It travels to other processes as its arguments, and loads the pipeline in each of them once, when the first batch
    comes.

    Parameters
    ----------
    pipeline
        Folder, package or hub id of a pipeline; the processes must find it there.
    text_column
        Column of the text.
    labels_column
        Column with a list of labels to ask for in the row; null for those of all.
    id_column
        Column that names a row in messages.
    labels, relations, threshold, device
        As for ``predict``: what to change in the pipeline's ``gliner`` component.
    span_getter, batch_size
        As for ``predict_texts``.
    on_error
        What to do about a row that cannot be predicted on: ``"stop"``, or ``"skip"``,
        which gives it null instead of entities and the reason as ``error``, and logs how many there are.
    trust_remote_code
        As for ``gliner_pipe.load``.

    Examples
    --------
    >>> predictor = ArrowPredictor("artifacts/model-best", threshold=0.4)  # doctest: +SKIP
    >>> predictor(pyarrow.table({"text": ["Ada Lovelace left London."]}))  # doctest: +SKIP
    """

    def __init__(
        self,
        pipeline: str | Path,
        *,
        text_column: str = "text",
        labels_column: str | None = None,
        id_column: str | None = None,
        labels: str | Sequence[Any] | None = None,
        relations: str | Sequence[Any] | None = None,
        threshold: float | None = None,
        device: str | None = None,
        span_getter: SpanGetter | None = None,
        batch_size: int | None = None,
        on_error: Literal["stop", "skip"] = "stop",
        trust_remote_code: bool = False,
    ) -> None:
        if not isinstance(pipeline, (str, Path)):
            raise ConfigError(
                "pipeline",
                f"is {type(pipeline).__name__}",
                "a folder, a package or a hub id, which other processes can load",
                "Write it with nlp.to_disk(folder) and give the folder",
            )
        if on_error not in ("stop", "skip"):
            raise ConfigError("on_error", f"is {on_error!r}", "stop, skip")
        self.pipeline = str(pipeline)
        self.columns = Columns(text_column, labels_column, id_column)
        self.settings = {
            "labels": split_labels(labels),
            "relations": split_labels(relations),
            "threshold": threshold,
            "device": device,
        }
        self.span_getter, self.batch_size, self.on_error = span_getter, batch_size, on_error
        self.trust_remote_code = trust_remote_code
        self._token = secrets.token_hex(8)
        self._loaded: tuple[Language, ExitStack] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    @property
    def nlp(self) -> Language:
        """The pipeline, loaded on first use."""
        if self._loaded is None:
            self._loaded = load_once(
                self._token, self.pipeline, json.dumps(self.settings), self.trust_remote_code
            )
        return self._loaded[0]

    @property
    def schema(self) -> Schema:
        """The columns that are added."""
        return Schema.of(self.nlp, skip=self.on_error == "skip")

    def __call__(self, batch: pa.Table | pa.RecordBatch) -> pa.Table:
        """Return a table with the columns of `batch`, and those of `schema`.

        Raises
        ------
        DataError
            If there is no column of texts, one of the columns to add is there already, or a row cannot be predicted on.
        """
        pa = arrow()
        table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        schema = self.schema
        fields = pa.schema([*table.schema, *schema.fields()])
        batches = [schema.extend(rows, found) for rows, found in self._predict(table)]
        return pa.Table.from_batches([one.cast(fields) for one in batches], schema=fields)

    def batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Predict on a stream of batches: the function for ``df.mapInArrow``."""
        for batch in batches:
            yield from self(batch).to_batches()

    def _predict(self, table: pa.Table) -> Iterator[tuple[pa.RecordBatch, Any]]:
        check_columns("the batch", table.schema, self.columns)
        skip = self.on_error == "skip"
        refuse_names("the batch", table.schema.names, skip)
        chunks, row = [], 0
        for rows in table.to_batches():
            chunk = Chunk(None, row, row + len(rows), rows, [])
            add_batch(
                chunk, rows, self.columns, self.nlp.max_length, lambda n: Place(f"row {n} of the batch")
            )
            chunks.append(chunk)
            row = chunk.stop
        bad = [one for chunk in chunks for one in chunk.bad]
        if bad and not skip:
            raise bad[0].error()
        predicted = predict_chunks(
            self.nlp, chunks, span_getter=self.span_getter, batch_size=self.batch_size, skip=skip
        )
        yield from ((chunk.rows, found) for chunk, found in predicted)
        bad = [one for chunk in chunks for one in chunk.bad]
        if bad:
            logger.warning(
                "%d of %d rows without prediction; %s %s", len(bad), row, bad[0].where, bad[0].found
            )


@lru_cache(maxsize=1)
def load_once(
    token: str, pipeline: str, settings: str, trust_remote_code: bool = False
) -> tuple[Language, ExitStack]:
    """Load a pipeline, unless it was the last one that was asked for in this process.

    Spark sends a function anew with each task, many to one process, which must not load the pipeline as often.

    Parameters
    ----------
    token
        Of the predictor: another one loads the pipeline anew.
    pipeline
        As for ``gliner_pipe.load``.
    settings
        For ``override``, as JSON.
    trust_remote_code
        As for ``gliner_pipe.load``.

    Returns
    -------
    tuple
        The pipeline, and what holds its settings in force as long as it is kept.
    """
    from gliner_pipe.hub.download import load

    stack = ExitStack()
    nlp = load(pipeline, trust_remote_code=trust_remote_code)
    stack.enter_context(override(nlp, **json.loads(settings)))
    return nlp, stack
