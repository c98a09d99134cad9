"""Adds predictions to tables of texts: in pyarrow, in data sets of Ray, and in data frames of Spark."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spacy.language import Language

from gliner_pipe.data.files import Place
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.alignment import SpanGetter
from gliner_pipe.pipeline.labels import split_labels
from gliner_pipe.pipeline.load import load
from gliner_pipe.pipeline.overrides import override
from gliner_pipe.prediction.chunks import BadRow, Chunk, predict_chunks
from gliner_pipe.prediction.shard_writers import Schema, arrow
from gliner_pipe.prediction.shards import Columns, add_batch, check_columns, refuse_names
from gliner_pipe.util.optional import library

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger("gliner_pipe")


class ArrowPredictor:
    """Adds predictions to tables of texts; for ``ds.map_batches`` of Ray, ``df.mapInArrow`` of Spark, and pyarrow.

    Only its arguments are pickled. Each process loads the pipeline once, at its first batch.

    Parameters
    ----------
    pipeline
        Folder, package or hub id of a pipeline; every process must be able to load it.
    text_column
        Column of the text.
    labels_column
        Column with a list of labels for the row; null for the component's own.
    id_column
        Column that identifies a row in messages.
    labels, relations, classes, records, threshold, device
        As in ``predict``: settings of the pipeline's ``gliner`` component.
    span_getter, batch_size
        As in ``predict_texts``.
    on_error
        What to do with a row that cannot be predicted on: ``"stop"``, or ``"skip"``, which sets its entities to null
        and the column ``error`` to the reason, and logs the number of such rows.
    trust_remote_code
        As in ``gliner_pipe.load``.

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
        classes: Any = None,
        records: Any = None,
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
                "Save it with nlp.to_disk(folder) and pass the folder",
            )
        if on_error not in ("stop", "skip"):
            raise ConfigError("on_error", f"is {on_error!r}", "stop, skip")
        self.pipeline = str(pipeline)
        self.columns = Columns(text_column, labels_column, id_column)
        self.settings = {
            "labels": split_labels(labels),
            "relations": split_labels(relations),
            "classes": classes,
            "records": records,
            "threshold": threshold,
            "device": device,
        }
        self.span_getter, self.batch_size, self.on_error = span_getter, batch_size, on_error
        self.trust_remote_code = trust_remote_code
        self._token = secrets.token_hex(8)
        self._loaded: Language | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None}

    @property
    def nlp(self) -> Language:
        """The pipeline, loaded on first use."""
        if self._loaded is None:
            settings = json.dumps(self.settings)
            self._loaded = load_once(self._token, self.pipeline, settings, self.trust_remote_code)
        return self._loaded

    @property
    def schema(self) -> Schema:
        """The columns that are added."""
        return Schema.of(self.nlp, skip=self.on_error == "skip")

    def __call__(self, batch: pa.Table | pa.RecordBatch) -> pa.Table:
        """Return a table with the columns of `batch`, then those of `schema`.

        Raises
        ------
        DataError
            If the text column is missing, a column to add exists already, or a row cannot be predicted on.
        """
        pa = arrow()
        table = batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])
        check_columns("the batch", table.schema, self.columns)
        skip = self.on_error == "skip"
        refuse_names("the batch", table.schema.names, skip)
        chunks = self._chunks(table)
        bad = _bad_rows(chunks)
        if bad and not skip:
            raise bad[0].error()
        schema = self.schema
        fields = pa.schema([*table.schema, *schema.fields()])
        predicted = predict_chunks(
            self.nlp, chunks, span_getter=self.span_getter, batch_size=self.batch_size, skip=skip
        )
        batches = [schema.extend(chunk.rows, outcomes).cast(fields) for chunk, outcomes in predicted]
        if bad := _bad_rows(chunks):
            logger.warning(
                "%d of %d rows without prediction; %s %s", len(bad), len(table), bad[0].where, bad[0].found
            )
        return pa.Table.from_batches(batches, schema=fields)

    def batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Predict on a stream of batches: the function for ``df.mapInArrow``."""
        for batch in batches:
            yield from self(batch).to_batches()

    def _chunks(self, table: pa.Table) -> list[Chunk]:
        chunks, row = [], 0
        for rows in table.to_batches():
            chunk = Chunk(None, row, row + len(rows), rows, [])
            add_batch(chunk, rows, self.columns, self.nlp.max_length, _place_in_batch)
            chunks.append(chunk)
            row = chunk.stop
        return chunks


def _place_in_batch(row: int) -> Place:
    return Place(f"row {row} of the batch")


def _bad_rows(chunks: Sequence[Chunk]) -> list[BadRow]:
    return [row for chunk in chunks for row in chunk.bad]


@lru_cache(maxsize=1)
def load_once(token: str, pipeline: str, settings: str, trust_remote_code: bool = False) -> Language:
    """Load a pipeline with these settings, unless this process loaded the same one last.

    Spark unpickles a function for each task, and runs many tasks in one process.

    Parameters
    ----------
    token
        Identifies the predictor: another token loads the pipeline again.
    pipeline, trust_remote_code
        As in ``gliner_pipe.load``.
    settings
        For ``override``, as JSON.
    """
    nlp = load(pipeline, trust_remote_code=trust_remote_code)
    override(nlp, **json.loads(settings))  # never restored
    return nlp


def predict_ray(
    dataset: Any,
    pipeline: str | Path,
    *,
    rows: int = 256,
    workers: int | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    **options: Any,
) -> Any:
    """Add predictions to a data set of Ray Data.

    Parameters
    ----------
    dataset
        A ``ray.data.Dataset`` with a column of texts.
    pipeline
        As in `ArrowPredictor`.
    rows
        Rows per batch.
    workers
        Maximum number of actors, each with the pipeline in memory; by default the number of CPUs in the cluster, or of
        GPUs if `num_gpus` is set.
    num_cpus, num_gpus
        Resources of an actor; by default 1 CPU and no GPU. An actor with several CPUs uses as many threads.
    options
        Further options of `ArrowPredictor`.

    Returns
    -------
    ray.data.Dataset
        The rows with their columns and those of the predictions, computed lazily.
    """
    ray = library("ray", "predict_ray", "ray")
    ArrowPredictor(pipeline, **options)  # reports mistakes here, and not on the cluster
    resources = ray.cluster_resources() if ray.is_initialized() else {}
    most = workers or int(resources.get("GPU" if num_gpus else "CPU", 1) / (num_gpus or num_cpus or 1))
    return dataset.map_batches(
        ArrowPredictor,
        fn_constructor_args=(str(pipeline),),
        fn_constructor_kwargs=options,
        batch_size=rows,
        batch_format="pyarrow",
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(most, 1)),
    )


def predict_spark(frame: Any, pipeline: str | Path, **options: Any) -> Any:
    """Add predictions to a data frame of Spark.

    Parameters
    ----------
    frame
        A ``pyspark.sql.DataFrame`` with a column of texts. Its partitions are processed in parallel.
    pipeline
        As in `ArrowPredictor`. It is also loaded here, to determine the columns it adds.
    options
        Further options of `ArrowPredictor`.

    Returns
    -------
    pyspark.sql.DataFrame
        The rows with their columns and those of the predictions, computed lazily.
    """
    types = library("pyspark.sql.types", "predict_spark", "spark")
    predictor = ArrowPredictor(pipeline, **options)
    added = [
        types.StructField(field.name, _spark_type(types, field.type)) for field in predictor.schema.fields()
    ]
    return frame.mapInArrow(predictor.batches, types.StructType([*frame.schema.fields, *added]))


def _spark_type(types: Any, kind: Any) -> Any:
    """Return the Spark type of an Arrow type that `Schema` uses."""
    known = arrow().types
    if known.is_list(kind):
        return types.ArrayType(_spark_type(types, kind.value_type))
    if known.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return types.StructType([types.StructField(one.name, _spark_type(types, one.type)) for one in fields])
    if known.is_int32(kind):
        return types.IntegerType()
    return types.DoubleType() if known.is_float64(kind) else types.StringType()
