"""Score a pipeline on annotated data: ``python -m gliner_pipe.evaluate --help``."""

# no postponed annotations here: confit's --help shows the types of a signature
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from confit import Cli
from rich.console import Console
from rich.table import Table
from rich.text import Text
from spacy.language import Language
from spacy.training import Corpus, Example

from gliner_pipe.arguments import literal, split_labels
from gliner_pipe.cli import run
from gliner_pipe.data.files import find_files, read_json
from gliner_pipe.data.readers import ConllReader
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.metrics.evaluation import evaluate_pipeline, gold_span_getter
from gliner_pipe.metrics.spans import METRICS
from gliner_pipe.overrides import override
from gliner_pipe.pipeline import PipelineArg
from gliner_pipe.registry import registry
from gliner_pipe.saving import replace_file

app = Cli(pretty_exceptions_enable=False)

__all__ = [
    "evaluate",
    "evaluate_pipeline",
    "guess_reader",
    "main",
    "read_examples",
    "relation_table",
    "score_table",
]

#: Readers that `guess_reader` tells apart.
READERS = ("gliner_json", "jsonl", "conll", "standoff", "spacy")

#: Options whose values are text whatever they look like.
LITERALS = (
    "pipeline",
    "data",
    "reader",
    "labels",
    "relations",
    "metrics",
    "output",
    "device",
    "span_getter",
    "predicted_getter",
)


@app.command(name="evaluate", registry=registry)
def evaluate(
    *,
    pipeline: PipelineArg,
    data: Any,
    reader: str = "auto",
    labels: str | list[Any] | None = None,
    relations: str | list[Any] | None = None,
    threshold: float | None = None,
    metrics: str | list[str] | dict[str, Any] = "exact,overlap,token",
    overlap_threshold: float = 0.5,
    span_getter: str | list[str] | None = None,
    predicted_getter: str | list[str] | None = None,
    output: Path | None = None,
    batch_size: int | None = None,
    n_process: int = 1,
    device: str | None = None,
    show: bool = True,
) -> dict[str, Any]:
    """Score a pipeline on annotated data.

    Parameters
    ----------
    pipeline
        Folder or package of a spaCy pipeline, or an ``[nlp]`` section.
    data
        File, folder or pattern of annotated data; in a config also a reader, in Python also a list of
        examples.
    reader
        ``gliner_json``, ``jsonl``, ``conll``, ``standoff``, ``spacy``, or ``auto`` to tell by ending and
        content.
    labels
        Labels to ask for and to score: ``person,organization``, or a JSON list if a label has a comma in it.
        When not given, the component's own labels, or all of the data if it has none.
    relations
        Relations to ask for and to score, likewise.
    threshold
        Least score of an entity, from 0 to 1.
    metrics
        Some of ``exact,overlap,token``; in a config also a section of scorers by name.
    overlap_threshold
        Least Dice overlap of a span that the overlap metric counts as right.
    span_getter
        Where gold spans stand: the key of a span group or ``ents``; the component's own when not given.
    predicted_getter
        Where the pipeline writes its spans; found out when not given.
    output
        JSON file for the scores.
    batch_size
        Texts a batch.
    n_process
        Processes.
    device
        Where the model runs, e.g. ``cpu`` or ``cuda:0``.
    show
        Whether to print the table of scores.

    Returns
    -------
    dict[str, Any]
        See `evaluate_pipeline`.
    """
    gold_getter = gold_span_getter(pipeline) if span_getter is None else span_getter
    scorers = metrics if isinstance(metrics, Mapping) else None
    names = [] if isinstance(metrics, Mapping) else _metric_names(metrics)
    examples = read_examples(data, pipeline, reader=reader, span_setter=gold_getter)
    with override(pipeline, device=device):
        scores = evaluate_pipeline(
            pipeline,
            examples,
            scorers=scorers,
            metrics=names,
            labels=split_labels(labels),
            relations=split_labels(relations),
            threshold=threshold,
            batch_size=batch_size,
            n_process=n_process,
            span_getter=gold_getter,
            predicted_getter=predicted_getter,
            overlap_threshold=overlap_threshold,
        )
    if output is not None:
        with replace_file(output) as path:
            path.write_text(json.dumps(scores, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if show:
        _print(scores)
    return scores


def read_examples(
    data: Any, nlp: Language, *, reader: str = "auto", span_setter: str | Sequence[str] = "gliner"
) -> list[Example]:
    """Read annotated data.

    Parameters
    ----------
    data
        A path or pattern; or a reader, called with the pipeline; or examples, which are returned as they are.
    nlp
        Gives vocabulary and tokenizer.
    reader
        Name of a reader, or ``"auto"``.
    span_setter
        Where the reader puts gold spans.

    Returns
    -------
    list[Example]
        The examples.

    Raises
    ------
    DataError
        If the data cannot be read, or ``"auto"`` cannot tell the format.
    """
    if callable(data):
        return list(data(nlp))
    if not isinstance(data, (str, Path)):
        return list(data)
    name = guess_reader(data) if reader == "auto" else reader
    if name == "spacy":
        return [example for file in find_files(str(data), (".spacy",)) for example in Corpus(file)(nlp)]
    setter = span_setter if isinstance(span_setter, str) else list(span_setter)
    make: Callable[..., Any] = registry.readers.get(name)
    return list(make(path=str(data), span_setter=setter)(nlp))


def guess_reader(path: str | Path) -> str:
    """Tell the format of annotated data by its ending and, for JSON, by its first record.

    Parameters
    ----------
    path
        File, folder or pattern. A folder is judged by its first file.

    Returns
    -------
    str
        One of `READERS`.

    Raises
    ------
    DataError
        If there is no such file, or its format is none of these.
    """
    json_endings, endings = (".json", ".jsonl", ".ndjson"), set(ConllReader.suffixes)
    files = find_files(str(path), (".ann", ".spacy", *json_endings, *sorted(endings - {".txt"})))
    first, suffix = files[0], files[0].suffix.lower()
    if suffix == ".ann" or (suffix == ".txt" and first.with_suffix(".ann").exists()):
        return "standoff"
    if suffix == ".spacy":
        return "spacy"
    if suffix in endings:
        return "conll"
    if suffix in json_endings:
        _, record = next(read_json(first))
        if isinstance(record, dict) and {"tokenized_text", "text"} & record.keys():
            return "gliner_json" if "tokenized_text" in record else "jsonl"
    raise DataError(
        f"{first}:", "has a format that was not recognised", ", ".join(READERS), "Say which: --reader"
    )


def score_table(scores: Mapping[str, Any]) -> Table:
    """Lay out scores: a line for each label, then the averages; P, R and F in percent for each metric.

    Parameters
    ----------
    scores
        What `evaluate_pipeline` returned.

    Returns
    -------
    Table
        For a ``rich`` console. Support is the number of gold spans.
    """
    names = [name for name, value in scores.items() if isinstance(value, Mapping) and "micro" in value]
    title = f"{scores['docs']} documents, {scores['words_per_second']:.0f} words/s"
    return _table(title, "label", scores, names)


def _table(title: str, first: str, scores: Mapping[str, Any], names: Sequence[str]) -> Table:
    table = Table(title=Text(title))
    table.add_column(first, no_wrap=True)
    table.add_column("support", justify="right")
    for name in names:
        for part in "PRF":
            table.add_column(Text(f"{name} {part}"), justify="right")
    rows = list(dict.fromkeys(row for name in names for row in scores[name] if row not in ("micro", "macro")))
    for row in [*rows, "micro", "macro"]:
        cells = [scores[name].get(row, {}) for name in names]
        counted = next(
            (scores[n][row]["support"] for n in _by_spans(names) if "support" in scores[n].get(row, {})), ""
        )
        values = [_percent(cell.get(key)) for cell in cells for key in "prf"]
        bold = "bold" if row in ("micro", "macro") else ""
        table.add_row(
            Text(row), str(counted), *values, style=bold, end_section=bool(rows) and row == rows[-1]
        )
    return table


def relation_table(scores: Mapping[str, Any]) -> Table:
    """Lay out the scores of relations as `score_table` does those of entities.

    Parameters
    ----------
    scores
        What a scorer of relations returned.
    """
    names = ("strict", "boundary")
    left_out = f", {scores['skipped']} left out" if scores["skipped"] else ""
    return _table(f"Relations of {scores['examples']} documents{left_out}", "relation", scores, names)


def _by_spans(names: Sequence[str]) -> list[str]:
    """Metrics that count spans come first: they say what the support is."""
    return sorted(names, key=lambda name: name == "token")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _print(scores: Mapping[str, Any]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(score_table(scores))
    if "strict" in scores.get("relations", ()):
        console.print(relation_table(scores["relations"]))
    for key, remark in (
        ("unasked_labels", "not asked for, so all missed (ask with labels)"),
        ("left_out", "not among the labels, so left out"),
    ):
        if scores[key]:
            counts = ", ".join(f"{label} ({count})" for label, count in scores[key].items())
            console.print(Text(f"Gold spans {remark}: {counts}"))


def _metric_names(metrics: str | Sequence[str]) -> list[str]:
    names = metrics.split(",") if isinstance(metrics, str) else metrics
    chosen = [name.strip() for name in names if name.strip()]
    if not chosen:
        raise ConfigError("metrics", "names no metric", ", ".join(METRICS))
    return chosen


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; those of the process when not given.
    """
    run(lambda: app(literal(sys.argv[1:] if argv is None else argv, LITERALS)))


if __name__ == "__main__":
    main()
