"""Predictions on Ray and Spark: of their own data sets, and of shards that all machines see."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy.language import Language

from gliner_pipe.consent import is_stated
from gliner_pipe.data.tables import optional_package
from gliner_pipe.errors import GlinerPipeError
from gliner_pipe.prediction.arrow import arrow
from gliner_pipe.prediction.arrow_predictor import ArrowPredictor, load_once
from gliner_pipe.prediction.job import STATE, Job
from gliner_pipe.prediction.progress import Report
from gliner_pipe.prediction.sharded import Work, run_shards
from gliner_pipe.prediction.shards import Shard
from gliner_pipe.saving import replace_directory
from gliner_pipe.torch_pipe import TorchPipe

if TYPE_CHECKING:
    import pyarrow as pa

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
