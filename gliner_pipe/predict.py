"""Find entities and relations in texts: ``python -m gliner_pipe.predict --help``."""

# no postponed annotations here: confit's --help shows the types of a signature
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal

from confit import Cli

from gliner_pipe.cli.app import run
from gliner_pipe.cli.options import literal
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.build import pipeline_of
from gliner_pipe.pipeline.labels import split_labels
from gliner_pipe.pipeline.overrides import override
from gliner_pipe.prediction.outputs import write
from gliner_pipe.prediction.predict_texts import predict_texts
from gliner_pipe.prediction.rendering import HtmlStyle
from gliner_pipe.prediction.run import Work, predict_shards
from gliner_pipe.prediction.shard_writers import SHARD_FORMATS
from gliner_pipe.prediction.shards import Columns, holds_shards
from gliner_pipe.prediction.texts import TextItem, read_texts
from gliner_pipe.registry import registry

app = Cli(pretty_exceptions_enable=False)

#: Options whose values are text whatever they look like.
LITERALS = (
    "pipeline",
    "text",
    "input",
    "labels",
    "relations",
    "output",
    "device",
    "dtype",
    "quantize",
    "format",
    "span_getter",
    "text_column",
    "id_column",
    "labels_column",
    "keep",
    "on_error",
    "engine",
)


@app.command(name="predict", registry=registry)
def predict(
    *,
    pipeline: Any,
    text: str | None = None,
    input: str | Path | None = None,
    lines: bool = False,
    labels: str | list[Any] | None = None,
    relations: str | list[Any] | None = None,
    threshold: float | None = None,
    format: str | None = None,
    html: bool = False,
    html_style: HtmlStyle = "auto",
    output: Path | None = None,
    text_column: str = "text",
    id_column: str | None = None,
    labels_column: str | None = None,
    keep: str | list[str] | None = None,
    shard_size: int | None = None,
    on_error: Literal["stop", "skip"] = "stop",
    save_every: float = 10.0,
    engine: Literal["local", "ray", "spark"] = "local",
    workers: int | None = None,
    quiet: bool = False,
    span_getter: str | list[str] | None = None,
    batch_size: int | None = None,
    n_process: int = 1,
    device: str | None = None,
    dtype: str | None = None,
    quantize: str | None = None,
    compile: bool | None = None,
    trust_remote_code: bool = False,
) -> int:
    """Find entities in texts.

    Parameters
    ----------
    pipeline
        Folder or package of a spaCy pipeline, or an ``[nlp]`` section.
    text
        One text.
    input
        Instead of `text`: ``-`` (standard input, one text a line), a folder of ``.txt`` files, a ``.jsonl``
        file (one object with a ``text`` a line), a ``.jsonl.gz`` or ``.parquet`` file, or a text file. For shards: a
        ``.parquet``, ``.jsonl`` or ``.jsonl.gz`` file, a folder of these, or a pattern such as ``"texts/*.parquet"``.
    lines
        Whether a text file holds one text a line; else it is one text.
    labels
        Labels to ask for instead of the component's own: ``person,organization``, or a JSON list if a label
        has a comma in it.
    relations
        Relations to ask for instead of the component's own, likewise.
    threshold
        Least score of an entity, from 0 to 1.
    format
        ``terminal``, ``jsonl``, ``standoff`` (a folder of ``.txt`` and ``.ann`` files) or ``html``; of shards
        ``parquet``, ``jsonl`` or ``jsonl.gz``. When not given, ``terminal``; of shards that of the input.
    html
        Short for ``--format html``.
    html_style
        ``ent`` (inside the running text), ``span`` (lines below the tokens) or ``auto`` (``span`` where
        entities overlap).
    output
        File or folder to write to; standard output when not given. A folder (a name without ending) takes
        shards, a file for each input file. Give the same command again to go on where it was broken off.
    text_column
        Column or field of the text.
    id_column
        Column or field that names a row in messages.
    labels_column
        For shards, column or field with a list of labels to ask for in the row; null for those of all.
    keep
        For shards, columns to carry along: ``id,date``; all when not given.
    shard_size
        For shards, rows of an output file at most; an output file for each input file when not given.
    on_error
        For shards, what to do about a row that cannot be read or predicted on: ``stop``, or ``skip``, which lists it
        and writes the reason into its field ``error``. Files that cannot be read come last, as an error.
    save_every
        For shards, seconds between two times that finished rows are written. A kill costs these, and the texts in
        hand.
    engine
        For shards, ``local``, ``ray`` or ``spark``. A cluster must see input and output under the same paths.
    workers
        Processes of Ray that predict; as many as it has CPUs (GPUs, if the model runs there) when not given.
    quiet
        For shards, whether to report no progress on standard error.
    span_getter
        Where the pipeline writes its spans: the key of a span group or ``ents``; found out when not given.
    batch_size
        Texts a batch. With ``--input -`` a result comes when a batch is full or the input ends.
    n_process
        Processes; none of them outlives the command.
    device
        Where the model runs, e.g. ``cpu`` or ``cuda:0``.
    dtype
        Numbers that the model runs with: ``fp32``, ``bf16`` or ``fp16``.
    quantize
        ``int8`` for linear layers of 8 bits in the text encoder, ``none`` for others.
    compile
        Whether torch compiles the text encoder.
    trust_remote_code
        Consent to run Python code that comes with the pipeline's models. Read that code first.

    Returns
    -------
    int
        Number of texts.
    """
    if (text is None) == (input is None):
        found = "are both given" if text is not None else "are both missing"
        raise ConfigError("text, input", found, "one of them", 'Write --text "..." or --input PATH')
    if html and format not in (None, "terminal", "html"):
        raise ConfigError("format", f"is {format!r} together with html", "one of them", "Leave out one")
    pipeline = pipeline_of(pipeline, trust_remote_code)
    columns = Columns(text_column, labels_column, id_column, _names(keep))
    asked: dict[str, Any] = {"labels": split_labels(labels), "relations": split_labels(relations)}
    precision: dict[str, Any] = {"dtype": dtype, "quantize": quantize, "compile": compile}
    with override(pipeline, **asked, threshold=threshold, device=device, **precision):
        if not html and input is not None and output is not None and _are_shards(input, format, output):
            work = Work(columns, on_error == "skip", save_every, span_getter, batch_size, n_process)
            return predict_shards(
                pipeline,
                input,
                output,
                work,
                format=format,
                shard_size=shard_size,
                engine=engine,
                workers=workers,
                quiet=quiet,
            ).predicted
        _refuse(
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
            return write(predictions, "html" if html else format or "terminal", output, html_style)


def _are_shards(input: str | Path, format: str | None, output: Path) -> bool:
    """Tell whether shards go in and a folder of shards comes out."""
    folder = output.is_dir() or not (output.suffix or output.exists())
    return folder and format in (None, *SHARD_FORMATS) and str(input) != "-" and holds_shards(input)


def _refuse(**options: Any) -> None:
    for name, value in options.items():
        if value is not None:
            raise ConfigError(
                name,
                f"is {value!r}, which is for shards",
                "with shards: an input of .parquet, .jsonl or .jsonl.gz files, and an output that is a folder",
                f"Set input and output so (an output without ending), or leave out {name}",
            )


def _names(keep: str | list[str] | None) -> tuple[str, ...] | None:
    if keep is None:
        return None
    names = keep.split(",") if isinstance(keep, str) else keep
    return tuple(name.strip() for name in names if name.strip())


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; those of the process when not given.
    """
    run(lambda: _until_closed(sys.argv[1:] if argv is None else argv))


def _until_closed(argv: Sequence[str]) -> None:
    try:
        app(literal(argv, LITERALS))
        _flush()
    except BrokenPipeError:  # the reader of our output has seen enough
        pass
    finally:
        # what cannot be written now cannot be written at exit either: keep the interpreter from complaining then
        with suppress(OSError):
            _flush()


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


if __name__ == "__main__":
    main()
