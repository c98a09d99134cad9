"""Predicts on shards on Ray or Spark: one task per shard, each of which resumes where an earlier one stopped."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from spacy.language import Language

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
from gliner_pipe.util.optional import library

if TYPE_CHECKING:
    import pyarrow as pa


class ShardError(GlinerPipeError, ValueError):
    """Invalid data, as reported by a task of a cluster."""


def run_on_cluster(
    nlp: Language,
    job: Job,
    shards: Sequence[Shard],
    options: ShardOptions,
    report: Report,
) -> None:
    """Predict on the missing rows of some shards, with one task of a cluster per shard.

    Parameters
    ----------
    nlp
        The pipeline; a copy of it is in the output folder during the run.
    job, shards, options
        As in ``run_shards``; ``n_process`` is ignored.
    report
        Receives the shards that are complete; Spark returns none before the last one.

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
    errors: list[str] = []
    with closing(_run_ray(nlp, task) if options.engine == "ray" else _run_spark(task)) as results:
        for number, error in results:
            if (counts := job.counts(shards[number])) is not None:
                report.update(shards[number].name, 1.0, counts["rows"])
            if error is not None:
                errors.append(error)
                if not options.skip:
                    break
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

    def batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Predict on the shards whose positions are in the column ``id``: the function for ``df.mapInArrow``."""
        pa = arrow()
        for batch in batches:
            errors = pa.array(map(self.error, batch.column("id").to_pylist()), "string")
            yield pa.RecordBatch.from_arrays([batch.column("id"), errors], names=["id", "error"])

    def error(self, number: int) -> str | None:
        """Predict on one shard; return the message if its data is invalid."""
        try:
            nlp = load_once(self.token, self.pipeline, "{}", self.trust_remote_code)
            run_shards(nlp, self.job, [self.shards[number]], self.options)
        except GlinerPipeError as error:
            return str(error)
        return None


#: Position of a shard that was processed, and its error.
_Results = Generator[tuple[int, str | None], None, None]


def _run_ray(nlp: Language, task: ShardTask) -> _Results:
    ray = library("ray", "engine", "ray")
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    running: dict[Any, int] = {}
    try:
        resources = ray.cluster_resources()
        gpus = int(wants_gpu(nlp, resources))
        # a process keeps the pipeline for its next shard, also on a GPU (max_calls)
        run = ray.remote(num_cpus=1, num_gpus=gpus, max_calls=0)(ShardTask.error)
        most = max(1, task.options.workers or int(resources.get("GPU" if gpus else "CPU", 1)))
        shared, waiting = ray.put(task), iter(range(len(task.shards)))
        running = {run.remote(shared, number): number for number in islice(waiting, most)}
        while running:
            (done,), _ = ray.wait(list(running))
            yield running.pop(done), ray.get(done)
            running |= {run.remote(shared, number): number for number in islice(waiting, 1)}
    finally:
        for one in running:
            ray.cancel(one)
        if started_here:
            ray.shutdown()


def wants_gpu(nlp: Language, resources: dict[str, float]) -> bool:
    """Return whether a model of a pipeline runs on a GPU, on a cluster with these resources."""
    available = resources.get("GPU", 0) >= 1
    settings = [pipe.cfg for _, pipe in nlp.pipeline if isinstance(pipe, TorchPipe)]
    return any(
        str(one["device"]).startswith("cuda")
        or (one["device"] == "auto" and one["quantize"] is None and available)
        for one in settings
    )


def _run_spark(task: ShardTask) -> _Results:
    sql = library("pyspark.sql", "engine", "spark")
    started_here = sql.SparkSession.getActiveSession() is None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else any python3, which may lack this package
    builder = sql.SparkSession.builder.appName("gliner_pipe").config("spark.ui.showConsoleProgress", "false")
    spark = builder.getOrCreate()
    try:
        numbers = spark.range(0, len(task.shards), 1, numPartitions=len(task.shards))
        for row in numbers.mapInArrow(task.batches, "id long, error string").collect():
            yield row["id"], row["error"]
    finally:
        if started_here:
            spark.stop()
