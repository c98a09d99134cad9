"""Which labels are taken for which others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from fractions import Fraction
from typing import Any

from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.alignment import SpanGetter, paired_mentions
from gliner_pipe.metrics.base import ExampleScorer, LabelScorer
from gliner_pipe.metrics.counts import Mention
from gliner_pipe.registry import registry

#: First unit and unit after the last, with the labels that stand there.
_Places = Mapping[tuple[int, int], AbstractSet[str]]

#: Numbers by gold and predicted label; None for no label.
_Cells = defaultdict[tuple[str | None, str | None], Fraction]


def confuse(
    documents: Iterable[tuple[AbstractSet[Mention], AbstractSet[Mention]]],
    *,
    labels: Sequence[str] | None = None,
    none_key: str = "none",
) -> dict[str, Any]:
    """Count which gold labels were given which predicted labels.

    Parameters
    ----------
    documents
        One pair of gold and predicted mentions a document.
    labels
        The fixed set of labels: anything else is left out. None takes all labels of the whole data set.
    none_key
        Name of the row of invented spans and of the column of missed ones.

    Returns
    -------
    dict[str, Any]
        ``matrix``: number of spans by gold and predicted label, a row for each label and `none_key`; the sum of a row
        is the number of gold spans of its label, the sum of a column that of predicted ones. ``near``: of the missed
        spans, how many overlap an invented one, by gold and predicted label.

    Raises
    ------
    ConfigError
        If a label has the name of `none_key`.

    Notes
    -----
    Gold and predicted spans meet where both boundaries are equal. Where a span has several labels, those on both sides
    are right; of the others each gold label may have been taken for each predicted one, and one span is shared evenly
    among these cells. So numbers are whole as long as spans have one label each.
    """
    cells: _Cells = defaultdict(Fraction)
    near: _Cells = defaultdict(Fraction)
    for mentions in documents:
        gold, predicted = (_by_place(side, labels) for side in mentions)
        for place in gold.keys() | predicted.keys():
            _share(gold.get(place, set()), predicted.get(place, set()), cells)
        _near(
            {place: names for place, names in gold.items() if place not in predicted},
            {place: names for place, names in predicted.items() if place not in gold},
            near,
        )
    found = {label for pair in cells for label in pair if label is not None}
    order = sorted(found) if labels is None else list(labels)
    if none_key in order:
        raise ConfigError(
            "none_key", f"is {none_key!r}, which is a label too", "a name no label has", "Set none_key"
        )
    named: list[tuple[str | None, str]] = [*((label, label) for label in order), (None, none_key)]
    matrix = {
        row: {column: _number(cells[gold, guess]) for guess, column in named if (gold, guess) != (None, None)}
        for gold, row in named
    }
    rows = {label: {other: _number(near[label, other]) for other in order} for label in order}
    return {"matrix": matrix, "near": {row: some for row, cols in rows.items() if (some := _some(cols))}}


def _by_place(mentions: Iterable[Mention], labels: Sequence[str] | None) -> dict[tuple[int, int], set[str]]:
    places: dict[tuple[int, int], set[str]] = {}
    for label, start, end in mentions:
        if labels is None or label in labels:
            places.setdefault((start, end), set()).add(label)
    return places


def _share(gold: AbstractSet[str], predicted: AbstractSet[str], cells: _Cells) -> None:
    """Add what stands at one place: right labels, and an even share for each gold label without and each other."""
    for label in gold & predicted:
        cells[label, label] += 1
    missed, invented = sorted(gold - predicted), sorted(predicted - gold)
    most = max(len(missed), len(invented))
    for label in missed:
        for other in invented:
            cells[label, other] += Fraction(1, most)
        cells[label, None] += 1 - Fraction(len(invented), most)
    for other in invented:
        cells[None, other] += 1 - Fraction(len(missed), most)


def _near(missed: _Places, invented: _Places, near: _Cells) -> None:
    """Add, for each missed span, the invented one that shares most with it, if any does; of its label if equal."""
    for (start, end), names in missed.items():
        for label in names:
            ranked = [
                (2 * shared / (end - start + last - first), other == label, -first, other)
                for (first, last), others in invented.items()
                if (shared := min(end, last) - max(start, first)) > 0
                for other in others
            ]
            if ranked:
                near[label, max(ranked)[3]] += 1


def _number(value: Fraction) -> int | float:
    return value.numerator if value.denominator == 1 else float(value)


def _some(columns: Mapping[str, int | float]) -> dict[str, int | float]:
    return {column: number for column, number in columns.items() if number}


class ConfusionScorer(LabelScorer):
    """Scores examples by `confuse`.

    Parameters
    ----------
    span_getter, predicted_getter, labels
        See `LabelScorer`.
    none_key
        See `confuse`.
    """

    def __init__(
        self,
        span_getter: SpanGetter = "gliner",
        predicted_getter: SpanGetter | None = None,
        labels: Sequence[str] | None = None,
        none_key: str = "none",
    ) -> None:
        super().__init__(span_getter, predicted_getter, labels)
        self.none_key = none_key

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        pairs = (
            paired_mentions(example, self.span_getter, self.predicted_getter, "boundaries")
            for example in examples
        )
        return confuse(pairs, labels=self.labels, none_key=self.none_key)


@registry.scorers.register("gliner_pipe.confusion")
def make_confusion(
    span_getter: SpanSetter = "gliner",
    predicted_getter: SpanSetter | None = None,
    labels: list[str] | None = None,
    none_key: str = "none",
) -> ExampleScorer:
    """Count which labels are taken for which others, in spans whose boundaries are right.

    Use it to see what to tell apart better: two labels that are confused often want clearer names or descriptions, a
    label that is missed often more examples or a lower threshold.

    Parameters
    ----------
    span_getter
        Where the spans stand: the key of a span group, ``"ents"``, a list, or a mapping to labels.
    predicted_getter
        Where the predicted spans stand, if elsewhere.
    labels
        The fixed set of labels; None for all labels of the whole data set.
    none_key
        Name of the row of invented spans and of the column of missed ones.

    Returns
    -------
    ExampleScorer
        A scorer with the result of `confuse`.
    """
    return ConfusionScorer(span_getter, predicted_getter, labels, none_key)
