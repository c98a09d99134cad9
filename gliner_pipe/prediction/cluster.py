"""Predictions on Ray and Spark: a batch of Arrow in, a batch of Arrow with predictions out."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spacy.language import Language

from gliner_pipe.data.files import Place
from gliner_pipe.data.readers.tables import optional_package
from gliner_pipe.errors import ConfigError, GlinerPipeError
from gliner_pipe.metrics.alignment import SpanGetter
from gliner_pipe.pipeline.base import TorchPipe
from gliner_pipe.pipeline.labels import split_labels
from gliner_pipe.pipeline.overrides import override
from gliner_pipe.prediction.chunks import Chunk, predict_chunks
from gliner_pipe.prediction.job import STATE, Job
from gliner_pipe.prediction.progress import Report
from gliner_pipe.prediction.run import Work, run_shards
from gliner_pipe.prediction.shard_writers import Schema, arrow
from gliner_pipe.prediction.shards import Columns, Shard, add_batch, check_columns, refuse_names
from gliner_pipe.util.atomic import replace_directory
from gliner_pipe.util.consent import is_stated

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
    from gliner_pipe.pipeline.load import load

    stack = ExitStack()
    nlp = load(pipeline, trust_remote_code=trust_remote_code)
    stack.enter_context(override(nlp, **json.loads(settings)))
    return nlp, stack


#: Seconds between two looks at which shards are whole.
LOOK_EVERY = 1.0


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
        As for `ArrowPredictor`.
    rows
        Rows of a batch.
    workers
        Actors at most, each with the pipeline in memory; as many as the cluster has CPUs (with `num_gpus`, GPUs).
    num_cpus, num_gpus
        What an actor takes: 1 CPU and no GPU when not given. An actor of several CPUs computes on as many threads.
    options
        Others of `ArrowPredictor`.

    Returns
    -------
    ray.data.Dataset
        The rows with their columns and those of the predictions. Nothing is computed before it is used.
    """
    ray = optional_package("ray", "predict_ray", "ray")
    ArrowPredictor(pipeline, **options)  # tells of mistakes here, and not on the cluster
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
        A ``pyspark.sql.DataFrame`` with a column of texts. Its partitions are predicted on side by side.
    pipeline
        As for `ArrowPredictor`. It is loaded here too, to know which columns it adds.
    options
        Others of `ArrowPredictor`.

    Returns
    -------
    pyspark.sql.DataFrame
        The rows with their columns and those of the predictions. Nothing is computed before it is used.
    """
    types = optional_package("pyspark.sql.types", "predict_spark", "spark")
    predictor = ArrowPredictor(pipeline, **options)
    added = [
        types.StructField(field.name, _spark_type(types, field.type)) for field in predictor.schema.fields()
    ]
    return frame.mapInArrow(predictor.batches, types.StructType([*frame.schema.fields, *added]))


def _spark_type(types: Any, kind: Any) -> Any:
    known = arrow().types
    if known.is_list(kind):
        return types.ArrayType(_spark_type(types, kind.value_type))
    if known.is_struct(kind):
        fields = [kind.field(place) for place in range(kind.num_fields)]
        return types.StructType([types.StructField(one.name, _spark_type(types, one.type)) for one in fields])
    if known.is_int32(kind):
        return types.IntegerType()
    return types.DoubleType() if known.is_float64(kind) else types.StringType()


# -- shards --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardTask:
    """Predicts on one shard in a process of a cluster, and goes on where another process broke off.

    Parameters
    ----------
    pipeline
        Folder.
    job, work
        Where to and how.
    shards
        All that are to be done; one is named by its place among them.
    token
        Of the run, for `load_once`.
    trust_remote_code
        Whether the caller consented when the pipeline was loaded.
    """

    pipeline: str
    job: Job
    work: Work
    shards: tuple[Shard, ...]
    token: str
    trust_remote_code: bool = False

    def __call__(self, batch: pa.Table | pa.RecordBatch) -> pa.Table:
        """Predict on the shards whose numbers stand in a batch; return an error for each, null where there is none."""
        numbers = batch.column("id").to_pylist()
        return arrow().table({"id": numbers, "error": arrow().array(map(self.error, numbers), "string")})

    def batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Predict on the shards of a partition: the function for ``df.mapInArrow``."""
        for batch in batches:
            yield from self(batch).to_batches()

    def error(self, number: int) -> str | None:
        """Predict on a shard; return what is wrong with its data."""
        try:
            nlp, _ = load_once(self.token, self.pipeline, "{}", self.trust_remote_code)
            run_shards(nlp, self.job, [self.shards[number]], self.work)
        except GlinerPipeError as error:
            return str(error)
        return None


def run_on_cluster(
    nlp: Language,
    job: Job,
    shards: Sequence[Shard],
    work: Work,
    engine: str,
    workers: int | None,
    report: Report,
) -> None:
    """Predict on what is missing of some shards, a process of a cluster for each shard.

    Parameters
    ----------
    nlp
        The pipeline; a copy of it stands in the output folder meanwhile.
    job, shards, work
        As for ``run_shards``; ``n_process`` is not used.
    engine
        ``"ray"`` or ``"spark"``.
    workers
        Processes of Ray.
    report
        Told of shards that are whole.

    Raises
    ------
    GlinerPipeError
        If data cannot be used, of the first such shard.
    """
    here = replace(job, folder=job.folder.resolve())
    copy = here.folder / STATE / "pipeline"
    with replace_directory(copy, marker="meta.json") as folder:
        nlp.to_disk(folder)
    placed = tuple(replace(shard, path=shard.path.resolve()) for shard in shards)
    task = ShardTask(
        str(copy), here, replace(work, n_process=1), placed, secrets.token_hex(8), is_stated(nlp)
    )
    with (
        _watching(job, shards, report),
        closing(_ray(nlp, task, workers) if engine == "ray" else _spark(task)) as errors,
    ):
        told = (error for error in errors if error is not None)
        found = list(told) if work.skip else list(islice(told, 1))
    if found:
        others = f" (and {len(found) - 1} more shards)" if len(found) > 1 else ""
        raise ShardError(found[0] + others)


class ShardError(GlinerPipeError, ValueError):
    """Data that could not be used, as a process of a cluster told of it."""


def _ray(nlp: Language, task: ShardTask, workers: int | None) -> Generator[str | None, None, None]:
    ray = optional_package("ray", "engine", "ray")
    data = optional_package("ray.data", "engine", "ray")
    mine = not ray.is_initialized()
    if mine:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    speaks = logging.getLogger("ray.data")
    level = speaks.level
    try:
        speaks.setLevel(logging.ERROR)
        data.DataContext.get_current().enable_progress_bars = False
        resources, gpus = ray.cluster_resources(), int(_wants_gpu(nlp, ray.cluster_resources()))
        most = workers or int(resources.get("GPU" if gpus else "CPU", 1))
        done = data.from_items(
            [{"id": number} for number in range(len(task.shards))], override_num_blocks=len(task.shards)
        ).map_batches(
            _RayShards,
            fn_constructor_args=(task,),
            batch_size=1,
            batch_format="pyarrow",
            num_gpus=gpus or None,
            compute=data.ActorPoolStrategy(size=max(min(most, len(task.shards)), 1)),
        )
        for row in done.iter_rows():
            yield row["error"]
    finally:
        speaks.setLevel(level)
        if mine:
            ray.shutdown()


class _RayShards:
    """An actor of Ray Data, which are made of classes."""

    def __init__(self, task: ShardTask) -> None:
        self.task = task

    def __call__(self, batch: pa.Table) -> pa.Table:
        return self.task(batch)


def _wants_gpu(nlp: Language, resources: dict[str, float]) -> bool:
    devices = [str(pipe.cfg["device"]) for _, pipe in nlp.pipeline if isinstance(pipe, TorchPipe)]
    there = resources.get("GPU", 0) >= 1
    return any(one.startswith("cuda") or (one == "auto" and there) for one in devices)


def _spark(task: ShardTask) -> Generator[str | None, None, None]:
    sql = optional_package("pyspark.sql", "engine", "spark")
    mine = sql.SparkSession.getActiveSession() is None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else any python3, which may lack this package
    builder = sql.SparkSession.builder.appName("gliner_pipe").config("spark.ui.showConsoleProgress", "false")
    spark = builder.getOrCreate()
    try:
        count = len(task.shards)
        shards = spark.range(0, count, 1, numPartitions=count)
        for row in shards.mapInArrow(task.batches, "id long, error string").collect():
            yield row["error"]
    finally:
        if mine:
            spark.stop()


@contextlib.contextmanager
def _watching(job: Job, shards: Sequence[Shard], report: Report) -> Iterator[None]:
    """Report from another thread the shards that become whole."""
    ended = threading.Event()
    missing = list(shards)

    def look() -> None:
        for shard in list(missing):
            numbers = job.numbers(shard)
            if numbers is not None:
                missing.remove(shard)
                report.update(shard.name, 1.0, numbers["rows"])

    def watch() -> None:
        while not ended.wait(LOOK_EVERY):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        look()
