"""Scores as tables for a ``rich`` console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

#: Rows of a curve that are shown at most.
CURVE_ROWS = 11


def all_tables(scores: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Lay out all that `evaluate_pipeline` returned, and what was found about thresholds.

    Parameters
    ----------
    scores
        The result; scorers are told by what they give, whatever their names are.
    """
    if "thresholds" in scores:
        yield from threshold_tables(scores["thresholds"])
    if _of_spans(scores):
        yield score_table(scores)
    for name, value in scores.items():
        if not isinstance(value, Mapping):
            continue
        if "per_class" in value:
            yield class_table(name, value)
        elif {"unseen", "seen"} <= value.keys():
            yield from (
                _table(f"{name}: labels {group}", "label", value, [group]) for group in ("unseen", "seen")
            )
        elif {"strict", "boundary"} <= value.keys():
            yield relation_table(value)
        elif "matrix" in value:
            yield confusion_table(value)
    if "negatives" in scores:
        yield Text(
            f"Each document was asked for its own labels and {scores['negatives']} others, if there are as many"
        )
    for key, remark in (
        ("unasked_labels", "not asked for, so all missed (ask with labels)"),
        ("left_out", "not among the labels, so left out"),
    ):
        if scores[key]:
            counts = ", ".join(f"{label} ({count})" for label, count in scores[key].items())
            yield Text(f"Gold spans {remark}: {counts}")


def score_table(scores: Mapping[str, Any]) -> Table:
    """Lay out scores: a line for each label, then the averages; P, R and F in percent for each metric.

    Parameters
    ----------
    scores
        What `evaluate_pipeline` returned.

    Returns
    -------
    Table
        Support is the number of gold spans.
    """
    title = f"{scores['docs']} documents, {scores['words_per_second']:.0f} words/s"
    return _table(title, "label", scores, _of_spans(scores))


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


def class_table(title: str, scores: Mapping[str, Any]) -> Table:
    """Lay out scores of tags as ``seqeval`` reports them: a line for each class, then three averages.

    Parameters
    ----------
    title
        Name of the scores.
    scores
        What the scorer ``gliner_pipe.seqeval`` returned.
    """
    accuracy, overlapping = scores["accuracy"], scores.get("overlapping", {})
    facts = [f"token accuracy {_decimal(accuracy)}"]
    facts += [f"{count} overlapping {side} spans left out" for side, count in overlapping.items() if count]
    table = Table(title=Text(title), caption=Text(", ".join(facts)))
    table.add_column("class", no_wrap=True)
    for name in ("precision", "recall", "f1-score", "support"):
        table.add_column(name, justify="right")
    rows = list(scores["per_class"].items())
    for number, (name, row) in enumerate(rows, 1):
        table.add_row(Text(name), *_decimals(row), str(row["support"]), end_section=number == len(rows))
    support = str(scores["micro"]["support"])
    for name in ("micro", "macro", "weighted"):
        table.add_row(f"{name} avg", *_decimals(scores[name]), support, style="bold")
    return table


def confusion_table(scores: Mapping[str, Any]) -> Table:
    """Lay out a confusion matrix: a row for each gold label, a column for each predicted one.

    Parameters
    ----------
    scores
        What the scorer ``gliner_pipe.confusion`` returned.
    """
    matrix = scores["matrix"]
    near = sum(number for row in scores["near"].values() for number in row.values())
    caption = f"{_count(near)} missed spans overlap an invented one" if near else None
    table = Table(title="Gold labels in rows, predicted ones in columns", caption=caption)
    table.add_column("gold", no_wrap=True)
    columns = list(matrix)
    for name in columns:
        table.add_column(Text(name), justify="right")
    for name, row in matrix.items():
        cells = (
            Text(_count(row[column]), style="bold" if column == name else "") if column in row else Text("")
            for column in columns
        )
        table.add_row(Text(name), *cells)
    return table


def threshold_tables(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Lay out a search for thresholds: some of the curve, the best row, the labels, and what was kept.

    Parameters
    ----------
    found
        ``ThresholdSearch.to_dict()``.
    """
    table = Table(title=f"Thresholds by {found['metric']} F1, {len(found['curve'])} tried")
    _threshold_columns(table)
    for row in _some(found["curve"]):
        table.add_row(*_threshold_cells(row), "")
    table.add_section()
    table.add_row(*_threshold_cells(found["before"]), "before")
    table.add_row(*_threshold_cells(found["best"]), "best", style="bold")
    if found["together"] is not None:
        table.add_row("by label", *(_percent(found["together"][key]) for key in "prf"), "all labels' own")
    yield table
    if found["labels"]:
        table = Table(title="Thresholds of labels")
        table.add_column("label", no_wrap=True)
        _threshold_columns(table)
        for label, row in found["labels"].items():
            table.add_row(Text(label), *_threshold_cells(row), f"{row['support']} gold spans")
        yield table
    if found["kept"]:
        kept = ", ".join(f"{label} ({count})" for label, count in found["kept"].items())
        yield Text(f"Labels that keep their threshold, with too few gold spans or no better one: {kept}")
    if found.get("not_stored"):
        names = ", ".join(found["not_stored"])
        yield Text(f"Thresholds not kept, as the labels are not among the component's: {names}")


def _of_spans(scores: Mapping[str, Any]) -> list[str]:
    """Names of scores that have a row for each label and two averages."""
    return [
        name
        for name, value in scores.items()
        if isinstance(value, Mapping) and "micro" in value and "per_class" not in value
    ]


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


def _by_spans(names: Sequence[str]) -> list[str]:
    """Metrics that count spans come first: they say what the support is."""
    return sorted(names, key=lambda name: name == "token")


def _threshold_columns(table: Table) -> None:
    for name in ("threshold", "P", "R", "F"):
        table.add_column(name, justify="right")
    table.add_column("")


def _threshold_cells(row: Mapping[str, Any]) -> list[str]:
    return [f"{row['threshold']:g}", *(_percent(row[key]) for key in "prf")]


def _some(curve: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows evenly spread over a curve, the first and the last among them."""
    step = max(1, (len(curve) - 1) / (CURVE_ROWS - 1))
    places = {min(round(number * step), len(curve) - 1) for number in range(CURVE_ROWS)}
    return [curve[place] for place in sorted(places)]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _decimals(row: Mapping[str, Any]) -> list[str]:
    return [_decimal(row[key]) for key in "prf"]


def _count(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.2f}"
