"""Predicts over shards, on this machine or on a cluster, and goes on where it was broken off."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from spacy.language import Language

from gliner_pipe.errors import ConfigError, DataError, GlinerPipeError
from gliner_pipe.metrics.alignment import SpanGetter
from gliner_pipe.pipeline.overrides import gliner_components
from gliner_pipe.prediction.chunks import Chunk, predict_chunks
from gliner_pipe.prediction.job import STATE, Job, Numbers, ShardWriter, describe_pipeline, total
from gliner_pipe.prediction.progress import Report
from gliner_pipe.prediction.shard_writers import SHARD_FORMATS, Schema, arrow
from gliner_pipe.prediction.shards import CHUNK_ROWS, Columns, Shard, ending, find_shards, read_chunks

#: Where a prediction over shards may run.
ENGINES = ("local", "ray", "spark")
#: Bad rows that are shown; all are in the folder ``_predict/errors``.
SHOWN = 10


@dataclass(frozen=True)
class Work:
    """How shards are read, predicted on and written.

    Parameters
    ----------
    columns
        What the columns of the data mean.
    skip
        Whether to go on after a bad row.
    save_every
        Seconds between two times that finished rows are written.
    span_getter, batch_size, n_process
        As for ``predict_texts``.
    """

    columns: Columns = field(default_factory=Columns)
    skip: bool = False
    save_every: float = 10.0
    span_getter: SpanGetter | None = None
    batch_size: int | None = None
    n_process: int = 1


def run_shards(
    nlp: Language,
    job: Job,
    shards: Sequence[Shard],
    work: Work,
    tell: Callable[[Chunk], None] = lambda chunk: None,
) -> None:
    """Predict on what is missing of some shards, in one stream of texts.

    Parameters
    ----------
    nlp
        The pipeline.
    job
        Where predictions go.
    shards
        Those that are not whole.
    work
        How.
    tell
        Called after each chunk.

    Raises
    ------
    DataError
        If data cannot be used. All rows before are written; with ``work.skip`` those of the other shards, too.
    """
    writer = ShardWriter(job, work.save_every, work.skip)

    def chunks() -> Iterator[Chunk]:
        for shard in shards:
            start = job.next_row(shard)
            for chunk in read_chunks(shard, work.columns, start=start, limit=nlp.max_length, skip=work.skip):
                yield chunk
                if chunk.error is not None and not work.skip:
                    return

    found = predict_chunks(
        nlp,
        chunks(),
        span_getter=work.span_getter,
        batch_size=work.batch_size or min(nlp.batch_size, CHUNK_ROWS),
        n_process=work.n_process,
        skip=work.skip,
    )
    try:
        with closing(found):
            for chunk, predictions in found:
                writer.add(chunk, predictions)
                tell(chunk)
    finally:
        writer.flush()
    if writer.errors:
        raise _joined(writer.errors)


def _joined(errors: Sequence[DataError]) -> DataError:
    """The error about the first of several files that cannot be used, which names the others."""
    first, *others = errors
    if not others:
        return first
    names = ", ".join(error.where for error in others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
    return DataError(first.where, f"{first.found} (so it is with {names})", first.allowed, first.do)


def predict_shards(
    nlp: Language,
    source: str | Path,
    output: Path,
    work: Work,
    *,
    format: str | None = None,
    shard_size: int | None = None,
    engine: str = "local",
    workers: int | None = None,
    quiet: bool = False,
) -> Numbers:
    """Predict on the shards of a file, folder or pattern, or on what an earlier run has not done of them.

    Parameters
    ----------
    nlp
        The pipeline.
    source
        Parquet and JSON Lines files.
    output
        Folder for the predictions.
    work
        How they are made.
    format
        ``"parquet"``, ``"jsonl"`` or ``"jsonl.gz"``; that of each input file when not given.
    shard_size
        Rows of an output file at most; an output file for each input file when not given.
    engine
        ``"local"``, ``"ray"`` or ``"spark"``. A cluster must see the input and the output under the same paths.
    workers
        Processes of Ray that predict; as many as it has CPUs, or GPUs, when not given.
    quiet
        Whether to report nothing on standard error.

    Returns
    -------
    Numbers
        Of all shards, whichever run they were done in.

    Raises
    ------
    ConfigError
        If a setting cannot be, or is another than the one that the folder was begun with.
    DataError
        If data cannot be used.
    """
    _check(nlp, work, format, shard_size, engine)
    shards = find_shards(source, format, shard_size)
    if any(".parquet" in (ending(shard.path), Path(shard.name).suffix) for shard in shards):
        arrow()
    job = Job(output, Schema.of(nlp, skip=work.skip))
    settings = {
        **describe_pipeline(nlp),
        "span_getter": work.span_getter,
        "text_column": work.columns.text,
        "labels_column": work.columns.labels,
        "id_column": work.columns.id,
        "keep": None if work.columns.keep is None else list(work.columns.keep),
        "format": format,
        "shard_size": shard_size,
    }
    with job.begun(settings, shards):
        missing = [shard for shard in shards if job.numbers(shard) is None]
        with Report(_weights(missing, shards), quiet=quiet) as report:
            if len(missing) < len(shards):
                report.say(f"{len(shards) - len(missing)} of {len(shards)} shards were whole before")
            try:
                if engine == "local":
                    run_shards(nlp, job, missing, work, _Teller(report))
                elif missing:
                    from gliner_pipe.prediction.cluster import run_on_cluster  # which needs this module

                    run_on_cluster(nlp, job, missing, work, engine, workers, report)
            except GlinerPipeError:
                report.say(_summary(total(map(job.numbers, shards)), shards, output))
                raise
        for name in ("parts", "pipeline"):
            shutil.rmtree(output / STATE / name, ignore_errors=True)
        numbers = total(map(job.numbers, shards))
        report.say(_summary(numbers, shards, output))
    return numbers


class _Teller:
    """Reports the chunks of a run on this machine, and its first bad rows."""

    def __init__(self, report: Report) -> None:
        self.report, self.shown = report, 0

    def __call__(self, chunk: Chunk) -> None:
        """Report a chunk."""
        for row in chunk.bad:
            if self.shown < SHOWN:
                self.report.say(f"no prediction: {row.where} {row.found}")
            elif self.shown == SHOWN:
                self.report.say("no prediction: and others")
            self.shown += 1
        share = 1.0 if chunk.last else min(chunk.share, 0.999)
        self.report.update(chunk.shard.name, share, chunk.stop - chunk.start)


def _weights(missing: Sequence[Shard], shards: Sequence[Shard]) -> dict[str, float]:
    """How large shards are: their part of the size of the file, and at least something."""
    pieces = Counter(shard.path for shard in shards)
    return {shard.name: (shard.path.stat().st_size + 1) / pieces[shard.path] for shard in missing}


def _summary(numbers: Numbers, shards: Sequence[Shard], output: Path) -> str:
    text = f"{numbers.rows:,} rows in {len(shards):,} shards, {numbers.entities:,} entities"
    if numbers.relations:
        text += f", {numbers.relations:,} relations"
    if numbers.bad:
        text += f"; {numbers.bad:,} rows without prediction: see {output / STATE / 'errors'}"
    return text


def _check(nlp: Language, work: Work, format: str | None, shard_size: int | None, engine: str) -> None:
    if engine not in ENGINES:
        raise ConfigError("engine", f"is {engine!r}", ", ".join(ENGINES))
    if format is not None and format not in SHARD_FORMATS:
        raise ConfigError("format", f"is {format!r}", ", ".join(SHARD_FORMATS))
    if shard_size is not None and shard_size < 1:
        raise ConfigError("shard_size", f"is {shard_size}", "at least 1")
    if work.columns.labels is not None and not gliner_components(nlp):
        raise ConfigError(
            "labels_column", "is set, but the pipeline has no gliner component", "a pipeline with one"
        )
