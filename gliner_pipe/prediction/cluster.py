"""Predicts on shards on Ray or Spark: one task per shard, each of which resumes where an earlier one stopped."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import TYPE_CHECKING

from spacy.language import Language

from gliner_pipe.data.readers.tables import optional_package
from gliner_pipe.errors import GlinerPipeError
from gliner_pipe.pipeline.base import TorchPipe
from gliner_pipe.prediction.arrow_predictor import load_once
from gliner_pipe.prediction.job import STATE, Job
from gliner_pipe.prediction.progress import Report
from gliner_pipe.prediction.run import ShardOptions, run_shards
from gliner_pipe.prediction.shard_writers import arrow
from gliner_pipe.prediction.shards import Shard
from gliner_pipe.util.atomic import replace_directory
from gliner_pipe.util.consent import is_stated

if TYPE_CHECKING:
    import pyarrow as pa

#: Seconds between two checks for completed shards.
CHECK_EVERY = 1.0


class ShardError(GlinerPipeError, ValueError):
    """Invalid data, as reported by a task of a cluster."""


def run_on_cluster(
    nlp: Language,
    job: Job,
    shards: Sequence[Shard],
    options: ShardOptions,
    engine: str,
    workers: int | None,
    report: Report,
) -> None:
    """Predict on the missing rows of some shards, with one task of a cluster per shard.

    Parameters
    ----------
    nlp
        The pipeline; a copy of it is in the output folder during the run.
    job, shards, options
        As in ``run_shards``; ``n_process`` is ignored.
    engine
        ``"ray"`` or ``"spark"``.
    workers
        Number of Ray workers.
    report
        Receives the shards that are complete.

    Raises
    ------
    ShardError
        For the first shard with invalid data.
    """
    here = replace(job, folder=job.folder.resolve())
    copy = here.folder / STATE / "pipeline"
    with replace_directory(copy, marker="meta.json") as folder:
        nlp.to_disk(folder)
    resolved = tuple(replace(shard, path=shard.path.resolve()) for shard in shards)
    one_process = replace(options, n_process=1)
    task = ShardTask(str(copy), here, one_process, resolved, secrets.token_hex(8), is_stated(nlp))
    with (
        _report_completed(job, shards, report),
        closing(_run_ray(nlp, task, workers) if engine == "ray" else _run_spark(task)) as results,
    ):
        failed = (error for error in results if error is not None)
        errors = list(failed) if options.skip else list(islice(failed, 1))
    if errors:
        others = f" (and {len(errors) - 1} more shards)" if len(errors) > 1 else ""
        raise ShardError(errors[0] + others)


@dataclass(frozen=True)
class ShardTask:
    """Predicts on one shard in a process of a cluster.

    Parameters
    ----------
    pipeline
        Folder of the pipeline.
    job, options
        The output folder, and how shards are processed.
    shards
        All unfinished shards; a task is the position of one of them.
    token
        Identifies the run, for ``load_once``.
    trust_remote_code
        Whether the caller consented when the pipeline was loaded.
    """

    pipeline: str
    job: Job
    options: ShardOptions
    shards: tuple[Shard, ...]
    token: str
    trust_remote_code: bool = False

    def __call__(self, batch: pa.Table | pa.RecordBatch) -> pa.Table:
        """Predict on the shards whose positions are in the column ``id``; return an error, or null, for each."""
        numbers = batch.column("id").to_pylist()
        return arrow().table({"id": numbers, "error": arrow().array(map(self.error, numbers), "string")})

    def batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Predict on the shards of a partition: the function for ``df.mapInArrow``."""
        for batch in batches:
            yield from self(batch).to_batches()

    def error(self, number: int) -> str | None:
        """Predict on one shard; return the message if its data is invalid."""
        try:
            nlp, _ = load_once(self.token, self.pipeline, "{}", self.trust_remote_code)
            run_shards(nlp, self.job, [self.shards[number]], self.options)
        except GlinerPipeError as error:
            return str(error)
        return None


def _run_ray(nlp: Language, task: ShardTask, workers: int | None) -> Generator[str | None, None, None]:
    ray = optional_package("ray", "engine", "ray")
    data = optional_package("ray.data", "engine", "ray")
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray_logger = logging.getLogger("ray.data")
    level = ray_logger.level
    try:
        ray_logger.setLevel(logging.ERROR)
        data.DataContext.get_current().enable_progress_bars = False
        resources = ray.cluster_resources()
        gpus = int(_wants_gpu(nlp, resources))
        most = workers or int(resources.get("GPU" if gpus else "CPU", 1))
        count = len(task.shards)
        results = data.from_items(
            [{"id": number} for number in range(count)], override_num_blocks=count
        ).map_batches(
            ShardTask,
            fn_constructor_args=tuple(getattr(task, field.name) for field in fields(task)),
            batch_size=1,
            batch_format="pyarrow",
            num_gpus=gpus or None,
            compute=data.ActorPoolStrategy(size=max(min(most, count), 1)),
        )
        for row in results.iter_rows():
            yield row["error"]
    finally:
        ray_logger.setLevel(level)
        if started_here:
            ray.shutdown()


def _wants_gpu(nlp: Language, resources: dict[str, float]) -> bool:
    available = resources.get("GPU", 0) >= 1
    settings = [pipe.cfg for _, pipe in nlp.pipeline if isinstance(pipe, TorchPipe)]
    return any(
        str(one["device"]).startswith("cuda")
        or (one["device"] == "auto" and one["quantize"] is None and available)
        for one in settings
    )


def _run_spark(task: ShardTask) -> Generator[str | None, None, None]:
    sql = optional_package("pyspark.sql", "engine", "spark")
    started_here = sql.SparkSession.getActiveSession() is None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else any python3, which may lack this package
    builder = sql.SparkSession.builder.appName("gliner_pipe").config("spark.ui.showConsoleProgress", "false")
    spark = builder.getOrCreate()
    try:
        count = len(task.shards)
        numbers = spark.range(0, count, 1, numPartitions=count)
        for row in numbers.mapInArrow(task.batches, "id long, error string").collect():
            yield row["error"]
    finally:
        if started_here:
            spark.stop()


@contextlib.contextmanager
def _report_completed(job: Job, shards: Sequence[Shard], report: Report) -> Iterator[None]:
    """Report completed shards from a thread: Spark returns no result before the last one."""
    ended = threading.Event()
    missing = list(shards)

    def check() -> None:
        for shard in list(missing):
            counts = job.counts(shard)
            if counts is not None:
                missing.remove(shard)
                report.update(shard.name, 1.0, counts["rows"])

    def watch() -> None:
        while not ended.wait(CHECK_EVERY):
            check()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        check()
