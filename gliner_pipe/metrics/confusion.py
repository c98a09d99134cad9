"""Confusion matrix of labels over spans with correct boundaries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from spacy.training import Example

from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.base import SpanScorer
from gliner_pipe.metrics.counts import Mention, Pair
from gliner_pipe.registry import registry

#: Labels by boundaries (start, end).
_Labels = Mapping[tuple[int, int], set[str]]

#: Counts by gold and predicted label; None for no label.
_Cells = defaultdict[tuple[str | None, str | None], Fraction]


def confuse(
    documents: Iterable[Pair], *, labels: Sequence[str] | None = None, none_key: str = "none"
) -> dict[str, Any]:
    """Count which labels were predicted for which gold labels.

    Parameters
    ----------
    documents
        A pair of gold and predicted mentions for each document.
    labels
        Fixed label set; mentions of other labels are ignored. None for all labels of the data.
    none_key
        Name of the row of spurious spans and of the column of missed spans.

    Returns
    -------
    dict[str, Any]
        ``matrix``: number of spans by gold and predicted label, a row for each label and for `none_key`. A row sums to
        the gold spans of its label, a column to the predicted spans of its label. ``near``: number of missed spans that
        overlap a spurious span, by gold and predicted label.

    Raises
    ------
    ConfigError
        If a label equals `none_key`.

    Notes
    -----
    Gold and predicted spans are compared if both boundaries match. Where a span has several labels, those on both sides
    are correct. Each of its other gold labels may have been confused with each of its other predicted labels: the span
    is shared evenly among these cells. Cells are whole numbers as long as each span has one label.
    """
    cells: _Cells = defaultdict(Fraction)
    near: _Cells = defaultdict(Fraction)
    for mentions in documents:
        gold, predicted = (_by_boundaries(side, labels) for side in mentions)
        for span in gold.keys() | predicted.keys():
            _add_span(gold.get(span, set()), predicted.get(span, set()), cells)
        _add_near_misses(
            {span: names for span, names in gold.items() if span not in predicted},
            {span: names for span, names in predicted.items() if span not in gold},
            near,
        )
    found = {label for pair in cells for label in pair if label is not None}
    order = sorted(found) if labels is None else list(labels)
    if none_key in order:
        raise ConfigError("none_key", f"is {none_key!r}, which is also a label", "a name no label has")
    named: list[tuple[str | None, str]] = [*((label, label) for label in order), (None, none_key)]
    matrix = {
        row: {column: _number(cells[gold, guess]) for guess, column in named if (gold, guess) != (None, None)}
        for gold, row in named
    }
    rows = {row: {col: _number(near[row, col]) for col in order if near[row, col]} for row in order}
    return {"matrix": matrix, "near": {row: columns for row, columns in rows.items() if columns}}


def _by_boundaries(
    mentions: Iterable[Mention], labels: Sequence[str] | None
) -> dict[tuple[int, int], set[str]]:
    groups: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
    for label, start, end in mentions:
        if labels is None or label in labels:
            groups[start, end].add(label)
    return dict(groups)


def _add_span(gold: set[str], predicted: set[str], cells: _Cells) -> None:
    """Add one span: its correct labels, and even shares for the others."""
    for label in gold & predicted:
        cells[label, label] += 1
    missed, spurious = sorted(gold - predicted), sorted(predicted - gold)
    most = max(len(missed), len(spurious))
    for label in missed:
        for other in spurious:
            cells[label, other] += Fraction(1, most)
        cells[label, None] += 1 - Fraction(len(spurious), most)
    for other in spurious:
        cells[None, other] += 1 - Fraction(len(missed), most)


def _add_near_misses(missed: _Labels, spurious: _Labels, near: _Cells) -> None:
    """Add, for each missed span, the spurious span with the largest Dice overlap; on a tie, one of the same label."""
    for (start, end), names in missed.items():
        for label in names:
            ranked = [
                (2 * shared / (end - start + last - first), other == label, -first, other)
                for (first, last), others in spurious.items()
                if (shared := min(end, last) - max(start, first)) > 0
                for other in others
            ]
            if ranked:
                near[label, max(ranked)[3]] += 1


def _number(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(value)


@registry.scorers.register("gliner_pipe.confusion")
@dataclass(eq=False)
class ConfusionScorer(SpanScorer):
    """Counts which labels are confused, over spans with correct boundaries; see `confuse` for the result.

    Use it to see what to distinguish better: two labels that are often confused may need clearer names or descriptions;
    a label that is often missed may need more examples or a lower threshold.

    Parameters
    ----------
    span_getter, predicted_getter, labels
        See `SpanScorer`.
    none_key
        Name of the row of spurious spans and of the column of missed spans.
    """

    none_key: str = "none"

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        return confuse(self.pairs(examples), labels=self.labels, none_key=self.none_key)
