"""Predict entities and relations in texts: ``python -m gliner_pipe.predict --help``."""

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("predict")

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

from gliner_pipe.cli.application import Cli
from gliner_pipe.cli.options import command_line
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.alignment import check_getter
from gliner_pipe.pipeline.build import pipeline_of
from gliner_pipe.pipeline.labels import split_labels
from gliner_pipe.pipeline.overrides import override
from gliner_pipe.pipeline.reports import reporting
from gliner_pipe.prediction.outputs import write
from gliner_pipe.prediction.predict_shards import predict_shards
from gliner_pipe.prediction.predict_texts import predict_texts
from gliner_pipe.prediction.rendering import HtmlStyle
from gliner_pipe.prediction.run import ShardOptions
from gliner_pipe.prediction.shard_writers import SHARD_FORMATS
from gliner_pipe.prediction.shards import Columns, holds_shards
from gliner_pipe.prediction.texts import TextItem, read_texts
from gliner_pipe.registry import registry
from gliner_pipe.util.console import console_note
from gliner_pipe.util.plurals import number_of
from gliner_pipe.util.ranges import Count, NonNegative, Number, Processes

#: Formats that the suffix of the output file names.
_BY_SUFFIX = ("jsonl", "html", "parquet", "jsonl.gz")

app = Cli()


@app.command(name="predict", registry=registry)
def predict(
    *,
    pipeline: Any,
    text: str | None = None,
    input: str | Path | None = None,
    lines: bool = False,
    labels: str | list[Any] | None = None,
    relations: str | list[Any] | None = None,
    classes: str | dict[str, Any] | list[Any] | None = None,
    records: str | dict[str, Any] | list[Any] | None = None,
    threshold: Number | None = None,
    format: str | None = None,
    html: bool = False,
    html_style: HtmlStyle = "auto",
    output: Path | None = None,
    text_column: str = "text",
    id_column: str | None = None,
    labels_column: str | None = None,
    keep: str | list[str] | None = None,
    shard_size: Count | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    save_every: NonNegative = 10.0,
    engine: Literal["local", "ray", "spark"] = "local",
    workers: Count | None = None,
    quiet: bool = False,
    span_getter: str | list[str] | None = None,
    batch_size: Count | None = None,
    n_process: Processes = 1,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    compile: bool | None = None,
    trust_remote_code: bool = False,
) -> int:
    """Predict entities and relations in texts.

    Parameters
    ----------
    pipeline
        Folder, package or hub id of a spaCy pipeline, or an ``[nlp]`` section.
    text
        One text.
    input
        Instead of `text`: ``-`` (standard input, one text per line), a folder of ``.txt`` files, a ``.jsonl`` file (one
        object with a ``text`` per line), a ``.jsonl.gz`` or ``.parquet`` file, or a text file. For shards: a
        ``.parquet``, ``.jsonl``, ``.jsonl.gz`` or ``.txt`` file, a folder of these, or a pattern such as
        ``"texts/*.parquet"``.
    lines
        Whether a text file holds one text per line; otherwise it is one text.
    labels
        Labels that replace the component's own: ``person,organization``, or a JSON list if a label contains a comma.
    relations
        Relation labels that replace the component's own, in the same form.
    classes
        Classifications that replace the component's own, as in its config: ``{"tone": ["good", "bad"]}``; or names of
        some of its own, ``tone,topics``.
    records
        Records that replace the component's own, likewise: ``{"product": ["name", "price"]}``.
    threshold
        Minimum score of an entity, from 0 to 1.
    format
        ``terminal``, ``jsonl``, ``standoff`` (a folder of ``.txt`` and ``.ann`` files) or ``html``; for shards
        ``parquet``, ``jsonl`` or ``jsonl.gz``. Default: that of the suffix of `output`, else ``terminal``; for shards
        the format of the input, and ``jsonl`` for ``.txt`` files.
    html
        Short for ``--format html``.
    html_style
        ``auto`` for the view that the server shows, too; ``ent`` (labels inside the running text) or ``span`` (lines
        below the tokens) for displaCy.
    output
        Output file or folder; standard output by default. A folder (a name without suffix) receives one file per input
        file, called shards. Run the same command again to resume.
    text_column
        Column or field of the text.
    id_column
        Column or field that identifies a row in messages.
    labels_column
        For shards: column or field with a list of labels for the row; null for the component's own.
    keep
        For shards: columns to keep in the output, ``id,date``; all by default.
    shard_size
        For shards: maximum number of rows of an output file; by default one output file per input file.
    on_error
        For shards: what to do with a row that cannot be read or predicted on. ``stop``, or ``skip``, which lists the
        row and writes the reason to its field ``error``. Files that cannot be read are reported as an error at the end.
    save_every
        For shards: seconds between two writes of finished rows. A killed run loses these rows and those in progress.
    engine
        For shards: ``local``, ``ray`` or ``spark``. A cluster must see input and output under the same paths.
    workers
        Number of Ray workers; by default the number of CPUs (of GPUs, if the model runs on one) in the cluster.
    quiet
        Whether to report neither progress nor what is written on standard error.
    span_getter
        Where the pipeline stores its spans: the key of a span group or ``ents``; detected by default.
    batch_size
        Texts per batch. With ``--input -`` results are written when a batch is full or the input ends.
    n_process
        Number of processes; none outlives the command.
    device
        Device of the model, e.g. ``cpu`` or ``cuda:0``.
    dtype
        Precision of the model: ``fp32``, ``bf16`` or ``fp16``.
    quantize
        ``int8`` for 8-bit linear layers in the text encoder, ``none`` for none.
    compile
        Whether to compile the text encoder with ``torch.compile``.
    trust_remote_code
        Consent to run Python code that comes with the pipeline's models. Read that code first.

    Returns
    -------
    int
        Number of texts.
    """
    if (text is None) == (input is None):
        found = "are both set" if text is not None else "are both missing"
        raise ConfigError("text, input", found, "one of them", 'Write --text "..." or --input PATH')
    if html and format not in (None, "terminal", "html"):
        raise ConfigError("format", f"is {format!r} together with html", "one of them", "Remove one")
    if html:
        format = "html"
    folder = None if input is None or output is None or not _are_shards(input, output) else output
    if format is None and output is not None and folder is None:
        format = next((one for one in _BY_SUFFIX if output.name.lower().endswith(f".{one}")), None)
    if (
        folder is not None
        and format in ("terminal", "html")
        and (Path(str(input)).is_dir() or folder.is_dir())
    ):
        suffix = "html" if format == "html" else "txt"
        raise ConfigError(
            "output",
            f"is {str(folder)!r}, a folder, and {format} is one file for all texts",
            "a file",
            f"Write --output {folder}.{suffix}, or --format jsonl for one file per input file",
        )
    for name, value in (
        ("text_column", text_column if text_column != "text" else None),
        ("id_column", id_column),
    ):
        if text is not None and value is not None:
            raise ConfigError(name, "is set together with text, which has no columns", do=f"Remove {name}")
    pipeline = pipeline_of(pipeline, trust_remote_code)
    if span_getter is not None:
        check_getter(pipeline, span_getter, "span_getter")
    columns = Columns(text_column, labels_column, id_column, _names(keep))
    settings: dict[str, Any] = {
        "labels": split_labels(labels),
        "relations": split_labels(relations),
        "classes": classes,
        "records": records,
        "threshold": threshold,
        "device": device,
        "dtype": dtype,
        "quantize": quantize,
        "compile": compile,
    }
    tell = (lambda _: None) if quiet else partial(console_note, stderr=True)
    with override(pipeline, **settings), reporting(pipeline, tell):
        if input is not None and folder is not None and format in (None, *SHARD_FORMATS):
            return predict_shards(
                pipeline,
                input,
                folder,
                ShardOptions(
                    columns,
                    on_error == "skip",
                    save_every,
                    span_getter,
                    batch_size,
                    n_process,
                    format=format,
                    lines=lines,
                    shard_size=shard_size,
                    engine=engine,
                    workers=workers,
                    quiet=quiet,
                ),
            )["predicted"]
        _refuse_shard_options(
            format=format if format in ("parquet", "jsonl.gz") else None,
            labels_column=labels_column,
            keep=keep,
            shard_size=shard_size,
            on_error=None if on_error == "stop" else on_error,
            engine=None if engine == "local" else engine,
            workers=workers,
        )
        if text is not None:
            items: Iterable[TextItem] = [TextItem(text, "text", "text")]
        else:
            items = read_texts(input or "-", lines=lines, columns=columns)
        predictions = predict_texts(
            pipeline, items, span_getter=span_getter, batch_size=batch_size, n_process=n_process
        )
        with closing(predictions):
            count = write(predictions, "terminal" if format is None else format, output, html_style)
    if output is not None and not quiet:
        console_note(f"{number_of(count, 'text')} written to {output}", stderr=True)
    return count


def _are_shards(input: str | Path, output: Path) -> bool:
    """Return whether the input holds shards, and the output is a folder."""
    folder = output.is_dir() or not (output.suffix or output.exists())
    return folder and str(input) != "-" and holds_shards(input)


def _refuse_shard_options(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(
                name,
                f"is {value!r}, which needs shards",
                "an input of .parquet, .jsonl, .jsonl.gz or .txt files with an output folder (a name without suffix)",
                f"Set input and output accordingly, or remove {name}",
            )


def _names(keep: str | list[str] | None) -> tuple[str, ...] | None:
    if keep is None:
        return None
    names = keep.split(",") if isinstance(keep, str) else keep
    return tuple(name.strip() for name in names if name.strip())


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; the arguments of the process by default."""
    command_line("predict", _until_closed, predict, argv)


def _until_closed(arguments: list[str]) -> None:
    try:
        app(arguments)
        _flush()
    except BrokenPipeError:  # the reader of the output has closed the pipe
        pass
    finally:
        # output that cannot be written now must not raise another error when the interpreter exits
        with suppress(OSError):
            _flush()


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
