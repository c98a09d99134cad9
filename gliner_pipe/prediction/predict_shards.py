"""Predicts on the shards of a file, folder or pattern, on this machine or on a cluster, and resumes earlier runs."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from spacy.language import Language

from gliner_pipe.errors import ConfigError, GlinerPipeError
from gliner_pipe.pipeline.overrides import gliner_components
from gliner_pipe.prediction.cluster import run_on_cluster
from gliner_pipe.prediction.job import STATE, Job, describe_pipeline, total
from gliner_pipe.prediction.progress import Report
from gliner_pipe.prediction.run import ShardOptions, run_shards
from gliner_pipe.prediction.shard_writers import Schema, arrow
from gliner_pipe.prediction.shards import Shard, ending, find_shards
from gliner_pipe.util.plurals import number_of


def predict_shards(nlp: Language, source: str | Path, output: Path, options: ShardOptions) -> Counter[str]:
    """Predict on the shards of a file, folder or pattern; rows that an earlier run has written are kept.

    Parameters
    ----------
    nlp
        The pipeline.
    source
        Parquet, JSON Lines or text files.
    output
        Folder for the predictions.
    options
        How and where the shards are processed.

    Returns
    -------
    Counter
        Of all shards, including those of earlier runs: see ``job.COUNTED``.

    Raises
    ------
    ConfigError
        If a setting is invalid, or differs from the one that the output folder was started with.
    DataError
        If data is invalid.
    """
    columns = options.columns
    if options.shard_size is not None and options.shard_size < 1:
        raise ConfigError("shard_size", f"is {options.shard_size}", "at least 1")
    if columns.labels is not None and not gliner_components(nlp):
        raise ConfigError(
            "labels_column", "is set, but the pipeline has no gliner component", "a pipeline with one"
        )
    shards = find_shards(source, options.format, options.shard_size, lines=options.lines)
    of_text = [shard for shard in shards if ending(shard.path) is None]
    for name in ("labels", "id"):
        if of_text and getattr(columns, name) is not None:
            found = f"is set, but {of_text[0].path} is a text file"
            raise ConfigError(f"{name}_column", found, "files with columns", f"Remove {name}_column")
    if any(".parquet" in (ending(shard.path), Path(shard.name).suffix) for shard in shards):
        arrow()  # fails before any output is written
    job = Job(output, Schema.of(nlp, skip=options.skip))
    settings = {
        **describe_pipeline(nlp),
        "span_getter": options.span_getter,
        "text_column": columns.text,
        "labels_column": columns.labels,
        "id_column": columns.id,
        "keep": None if columns.keep is None else list(columns.keep),
        "format": options.format,
        "lines": options.lines or None,
        "shard_size": options.shard_size,
    }
    with job.opened(settings, shards):
        missing = [shard for shard in shards if job.counts(shard) is None]
        with Report(_weights(missing, shards), quiet=options.quiet) as report:
            if len(missing) < len(shards):
                report.say(f"{len(shards) - len(missing)} of {len(shards)} shards were already complete")
            try:
                if options.engine == "local":
                    run_shards(nlp, job, missing, options, report.add)
                elif missing:
                    run_on_cluster(nlp, job, missing, options, report)
            except GlinerPipeError:
                report.say(_summary(total(map(job.counts, shards)), shards, output))
                raise
            except BaseException as error:
                if not isinstance(error, Exception):  # Ctrl-C, or another signal
                    report.say(f"finished rows are kept in {output}: the same command continues after them")
                raise
        for name in ("parts", "pipeline"):
            shutil.rmtree(output / STATE / name, ignore_errors=True)
        counts = total(map(job.counts, shards))
        report.say(_summary(counts, shards, output))
    return counts


def _weights(missing: Sequence[Shard], shards: Sequence[Shard]) -> dict[str, float]:
    """Return the size of each missing shard, in bytes: an equal part of its file, and more than 0."""
    per_file = Counter(shard.path for shard in shards)
    return {shard.name: (shard.path.stat().st_size + 1) / per_file[shard.path] for shard in missing}


def _summary(counts: Counter[str], shards: Sequence[Shard], output: Path) -> str:
    text = f"{number_of(counts['rows'], 'row')} in {number_of(len(shards), 'shard')}"
    text += f", {number_of(counts['entities'], 'entity')}"
    if counts["relations"]:
        text += f", {number_of(counts['relations'], 'relation')}"
    if counts["bad"]:
        text += f"; {number_of(counts['bad'], 'row')} without prediction: see {output / STATE / 'errors'}"
    return f"{text}, written to {output}"
