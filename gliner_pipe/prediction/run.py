"""Predicts on shards in one process: reads chunks, predicts, and writes finished rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

from spacy.language import Language

from gliner_pipe.errors import DataError
from gliner_pipe.metrics.alignment import SpanGetter
from gliner_pipe.prediction.chunks import Chunk, Outcome, predict_chunks
from gliner_pipe.prediction.job import Job
from gliner_pipe.prediction.progress import MOST_SHOWN
from gliner_pipe.prediction.shards import CHUNK_ROWS, Columns, Shard, read_chunks


@dataclass(frozen=True)
class ShardOptions:
    """How shards are read, predicted on and written.

    Parameters
    ----------
    columns
        Roles of the columns.
    skip
        Whether to continue after a bad row.
    save_every
        Seconds between two writes of finished rows.
    span_getter, batch_size, n_process
        As in ``predict_texts``.
    format
        ``"parquet"``, ``"jsonl"`` or ``"jsonl.gz"``; by default the format of each input file, and JSON Lines for text
        files.
    lines
        Whether text files hold one text per line.
    shard_size
        Maximum number of rows of an output file; by default one output file per input file.
    engine
        ``"local"``, ``"ray"`` or ``"spark"``. A cluster must see input and output under the same paths.
    workers
        Number of Ray workers; by default the number of CPUs, or of GPUs, in the cluster.
    quiet
        Whether to report nothing on standard error.
    """

    columns: Columns = field(default_factory=Columns)
    skip: bool = False
    save_every: float = 10.0
    span_getter: SpanGetter | None = None
    batch_size: int | None = None
    n_process: int = 1
    format: str | None = None
    lines: bool = False
    shard_size: int | None = None
    engine: Literal["local", "ray", "spark"] = "local"
    workers: int | None = None
    quiet: bool = False


def run_shards(
    nlp: Language,
    job: Job,
    shards: Sequence[Shard],
    options: ShardOptions,
    report: Callable[[Chunk], None] = lambda chunk: None,
) -> None:
    """Predict on the missing rows of some shards, as one stream of texts.

    Parameters
    ----------
    nlp
        The pipeline.
    job
        The output folder.
    shards
        The unfinished shards.
    options
        How they are processed.
    report
        Called after each chunk.

    Raises
    ------
    DataError
        If data is invalid. All rows before it are written; with ``options.skip`` also those of the other shards.
    """
    errors: list[DataError] = []
    held: list[tuple[Chunk, Sequence[Outcome]]] = []
    written = time.monotonic()

    def write() -> None:
        nonlocal held, written
        now, held = held, []
        job.write(now)
        written = time.monotonic()

    def chunks() -> Iterator[Chunk]:
        for shard in shards:
            start = job.next_row(shard)
            read: Iterable[Chunk] = read_chunks(
                shard, options.columns, start=start, limit=nlp.max_length, skip=options.skip
            )
            if error := job.changed(shard):
                read = [Chunk(shard, start, start, [], [], error=error)]
            for chunk in read:
                yield chunk
                if chunk.error is not None and not options.skip:
                    return

    predicted = predict_chunks(
        nlp,
        chunks(),
        span_getter=options.span_getter,
        batch_size=options.batch_size or min(nlp.batch_size, CHUNK_ROWS),
        n_process=options.n_process,
        skip=options.skip,
    )
    try:
        with closing(predicted):
            for chunk, outcomes in predicted:
                held.append((chunk, outcomes))
                ends = chunk.last or chunk.error is not None
                if ends or time.monotonic() - written >= options.save_every:
                    write()
                if chunk.error is not None:
                    job.mark_unusable(chunk.shard)
                    if not options.skip:
                        raise chunk.error
                    errors.append(chunk.error)
                elif chunk.last:
                    job.finish(chunk.shard)
                report(chunk)
    finally:
        write()
    if errors:
        raise _together(errors)


def _together(errors: Sequence[DataError]) -> DataError:
    """Return the first error, which also names the files of the others."""
    first, *others = errors
    if not others:
        return first
    names = ", ".join(error.where for error in others[:MOST_SHOWN])
    more = ", ..." if len(others) > MOST_SHOWN else ""
    found = f"{first.found} (further unreadable files: {names}{more})"
    return DataError(first.where, found, first.allowed, first.do)
