"""Tables of scores for a ``rich`` console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from gliner_pipe.evaluation.tables import NumberTable
from gliner_pipe.metrics.error_kinds import KINDS, MEASURES
from gliner_pipe.util.plurals import number_of

#: Threshold from which the evenly spaced ones are shown, and those below it from the best or the earlier one on.
SHOWN_FROM = 0.5
#: Said below the scores of fitted thresholds.
FITTED = "The best threshold is fitted to these documents: the scores with it are too high. Report those on other data."

#: Ends of the names of numbers that are never shares.
_NO_SHARES = ("loss", "threshold", "second", "seconds")

#: Rows over all labels.
LABEL_SUMMARIES = ("micro", "macro")


def all_tables(scores: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the tables of an evaluation, and of a threshold search if it has one.

    Parameters
    ----------
    scores
        Result of `evaluate_pipeline`; the table of a scorer depends on the keys of its result, not on its name.
    """
    if "thresholds" in scores:
        yield from threshold_tables(scores["thresholds"])
    if _label_scores(scores):
        yield score_table(scores)
        for name in _label_scores(scores):
            if "accuracy" in scores[name]:
                yield Text(f"{name}: accuracy {percent(scores[name]['accuracy'])}")
    for name, value in scores.items():
        if not isinstance(value, Mapping):
            continue
        if _has_kinds(value):
            yield error_table(name, value)
        elif "per_class" in value:
            yield class_table(name, value)
        elif {"unseen", "seen"} <= value.keys():
            for group in ("unseen", "seen"):
                yield _table(f"{name}: {group} labels", "label", value, [group])
        elif {"strict", "boundary"} <= value.keys():
            yield relation_table(value)
        elif {"all", "tasks"} <= value.keys():
            yield from (task_table(task, of_task) for task, of_task in value["tasks"].items())
        elif {"fields", "records"} <= value.keys():
            title = f"Records of {number_of(value['examples'], 'document')}"
            yield _table(title, "field", value, ["fields"])
            yield _table("", "record", value, ["records"])
        elif "matrix" in value:
            yield confusion_table(value)
    if "negatives" in scores:
        yield Text(
            f"Labels predicted for each document: its gold labels and {scores['negatives']} sampled others"
        )
    for key, remark in (
        ("unasked_labels", "with labels that were not predicted, all missed"),
        ("left_out", "outside the label set, left out"),
    ):
        if scores[key]:
            counts = ", ".join(f"{label} ({count})" for label, count in scores[key].items())
            yield Text(f"Gold spans {remark}: {counts}")


def score_table(scores: Mapping[str, Any]) -> NumberTable:
    """Return a table with a row for each label, then the averages: P, R and F in percent for each metric.

    Parameters
    ----------
    scores
        Result of `evaluate_pipeline`. ``gold`` is the number of gold spans.
    """
    title = f"{number_of(scores['docs'], 'document')}, {scores['words_per_second']:.0f} words/s"
    return _table(title, "label", scores, _label_scores(scores))


def relation_table(scores: Mapping[str, Any]) -> NumberTable:
    """Return a table with a row for each relation, as `score_table`.

    Parameters
    ----------
    scores
        Result of the scorer ``gliner_pipe.relations``.
    """
    skipped = f", {scores['skipped']} skipped" if scores["skipped"] else ""
    title = f"Relations of {number_of(scores['examples'], 'document')}{skipped}"
    return _table(title, "relation", scores, ("strict", "boundary"))


def task_table(task: str, scores: Mapping[str, Any]) -> NumberTable:
    """Return a table with a row for each label of a task of classification, as `score_table`.

    Parameters
    ----------
    task
        Name of the task.
    scores
        Result of `score_classes`.
    """
    title = f"{task}: {number_of(scores['examples'], 'document')}, accuracy {percent(scores['accuracy'])}"
    rows = {**scores["labels"], "micro": scores["micro"], "macro": scores["macro"]}
    return _table(title, "class", {"classes": rows}, ["classes"])


def class_table(title: str, scores: Mapping[str, Any]) -> NumberTable:
    """Return the table of a ``seqeval`` report, in percent: a row for each class, then three averages.

    Parameters
    ----------
    title
        Name of the scores.
    scores
        Result of the scorer ``gliner_pipe.seqeval``.
    """
    facts = [f"token accuracy {percent(scores['accuracy'])}"]
    overlapping = scores.get("overlapping", {})
    facts += [
        f"{number_of(count, f'overlapping {side} span')} dropped"
        for side, count in overlapping.items()
        if count
    ]
    columns = ("P", "R", "F", "gold")
    table = NumberTable(title, "class", columns, caption=", ".join(facts))
    rows = list(scores["per_class"].items())
    for number, (name, row) in enumerate(rows, 1):
        table.add_row(name, *_percents(row), str(row["support"]), end_section=number == len(rows))
    support = str(scores["micro"]["support"])
    for name in ("micro", "macro", "weighted"):
        table.add_row(f"{name} avg", *_percents(scores[name]), support, style="bold")
    return table


def confusion_table(scores: Mapping[str, Any]) -> NumberTable:
    """Return a confusion matrix: a row for each gold label, a column for each predicted label.

    Parameters
    ----------
    scores
        Result of the scorer ``gliner_pipe.confusion``.
    """
    matrix = scores["matrix"]
    near = sum(number for row in scores["near"].values() for number in row.values())
    caption = f"missed spans that overlap a spurious span: {_count(near)}" if near else None
    columns = list(matrix)
    table = NumberTable("Gold labels in rows, predicted labels in columns", "gold", columns, caption=caption)
    for name, row in matrix.items():
        cells = (
            Text(_count(row[column]), style="bold" if column == name else "") if column in row else Text("")
            for column in columns
        )
        table.add_row(name, *cells)
    return table


def error_table(title: str, scores: Mapping[str, Any]) -> NumberTable:
    """Return the table of kinds of errors: a row for each label, then all labels, with the F1 of four measures.

    Parameters
    ----------
    title
        Name of the scores.
    scores
        Result of the scorer ``gliner_pipe.error_kinds``.
    """
    table = NumberTable(
        f"{title}: number of spans, and F1", "label", [*KINDS, *(f"F1\n{name}" for name in MEASURES)]
    )
    for name, row in scores.items():
        measures = (percent(row[f"{measure}_f"]) for measure in MEASURES)
        style = "bold" if name == "micro" else ""
        table.add_row(name, *(str(row[kind]) for kind in KINDS), *measures, style=style)
    return table


def _has_kinds(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("micro"), Mapping) and "spurious" in value["micro"]


def threshold_tables(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the tables of a threshold search: evenly spaced thresholds, the best one, the labels, and a warning.

    Parameters
    ----------
    found
        ``ThresholdSearch.to_dict()``.
    """
    title = f"Thresholds by {found['metric']} F1, {len(found['curve'])} tried"
    table = NumberTable(title, "threshold", ("P", "R", "F", ""))
    for row in shown_thresholds(found):
        table.add_row(*_threshold_cells(row), "")
    table.add_section()
    table.add_row(*_threshold_cells(found["before"]), "before")
    table.add_row(*_threshold_cells(found["best"]), "best", style="bold")
    if found["together"] is not None:
        table.add_row("by label", *_percents(found["together"]), "a threshold for each label")
    yield table
    if not found["best"]["f"]:
        yield Text("Threshold unchanged: no threshold finds a gold span")
    if found["labels"]:
        table = NumberTable("Thresholds of labels", "label", ("threshold", "P", "R", "F", ""))
        for label, row in found["labels"].items():
            table.add_row(label, *_threshold_cells(row), number_of(row["support"], "gold span"))
        yield table
    if found["kept"]:
        kept = ", ".join(f"{label} ({count})" for label, count in found["kept"].items())
        yield Text(f"Threshold unchanged (too few gold spans, none found, or no better threshold): {kept}")
    if found.get("not_stored"):
        names = ", ".join(found["not_stored"])
        yield Text(f"Threshold not stored (not a label of the component): {names}")
    yield Text(FITTED, style="bold")


def shown_thresholds(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the rows of evenly spaced thresholds to show: 0.5 to 0.95, and lower ones if the best is lower.

    Parameters
    ----------
    found
        ``ThresholdSearch.to_dict()``.
    """
    low = min(SHOWN_FROM, found["best"]["threshold"], found["before"]["threshold"])
    below = [row for row in found["even"] if row["threshold"] <= low][-1:]
    return [*below, *(row for row in found["even"] if row["threshold"] > low)]


def _label_scores(scores: Mapping[str, Any]) -> list[str]:
    """Return the names of scores with a row for each label and two averages."""
    return [
        name
        for name, value in scores.items()
        if isinstance(value, Mapping)
        and "micro" in value
        and "per_class" not in value
        and not _has_kinds(value)
    ]


def _table(title: str, first: str, scores: Mapping[str, Any], names: Sequence[str]) -> NumberTable:
    columns = ["gold", *(f"{name}\n{part}" for name in names for part in "PRF")]
    table = NumberTable(title, first, columns)
    labels = dict.fromkeys(
        row
        for name in names
        for row, value in scores[name].items()
        if row not in LABEL_SUMMARIES and isinstance(value, Mapping)
    )
    rows = [*labels, *LABEL_SUMMARIES]
    for number, row in enumerate(rows, 1):
        cells = {name: scores[name].get(row, {}) for name in names}
        # the support of spans if possible, not that of tokens
        by_support = sorted(
            (name for name in names if "support" in cells[name]), key=lambda name: name == "token"
        )
        table.add_row(
            row,
            str(cells[by_support[0]]["support"]) if by_support else "",
            *(percent(cell.get(key)) for cell in cells.values() for key in "prf"),
            style="bold" if row in LABEL_SUMMARIES else "",
            end_section=number == len(labels),
        )
    return table


def _threshold_cells(row: Mapping[str, Any]) -> list[str]:
    return [f"{row['threshold']:g}", *_percents(row)]


def score_text(name: str, value: float | None) -> str:
    """Format the score of a name: in percent, but a loss, a threshold, a time or a number of things as it is."""
    if value is None:
        return "undefined"
    is_share = not name.endswith(_NO_SHARES) and not isinstance(value, int) and 0 <= value <= 1
    return percent(value) if is_share else f"{value:.4g}"


def percent(value: float | None, *, sign: bool = False) -> str:
    """Format a score in percent, or with a `sign` a difference of scores."""
    if value is None:
        return "-"
    return f"{100 * value:+.2f}" if sign else f"{100 * value:.1f}"


def _percents(row: Mapping[str, Any]) -> list[str]:
    return [percent(row[key]) for key in "prf"]


def _count(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:.2f}"
