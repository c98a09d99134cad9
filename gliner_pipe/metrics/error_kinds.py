"""Kinds of errors of spans: wrong boundaries, wrong label, missed, spurious."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from spacy.training import Example

from gliner_pipe.metrics.base import SpanScorer
from gliner_pipe.metrics.counts import Mention, Pair
from gliner_pipe.registry import registry

#: Kinds of matches and errors. ``both``: wrong label and wrong boundaries.
KINDS = ("correct", "boundary", "type", "both", "missed", "spurious")
#: For each way to count: the kinds that are correct, and those that are half correct.
MEASURES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "strict": (("correct",), ()),
    "exact": (("correct", "type"), ()),
    "partial": (("correct", "type"), ("boundary", "both")),
    "type": (("correct", "boundary"), ()),
}


def error_kinds(documents: Iterable[Pair], labels: Sequence[str] | None = None) -> dict[str, Any]:
    """Count the kinds of errors of spans, each gold and each predicted span once.

    A predicted span is compared with one gold span: first with the same one, then with one of the same boundaries, then
    with the one of its label that it overlaps most, then with any other one that it overlaps.

    Parameters
    ----------
    documents
        A pair of gold and predicted mentions for each document.
    labels
        Fixed label set; mentions of other labels are ignored. None for all labels of the data.

    Returns
    -------
    dict[str, Any]
        A row for each label, and ``micro`` for all: the number of each kind, under the gold label (``spurious``: the
        predicted label); and precision, recall and F1 of four measures. ``strict``: label and boundaries are correct;
        ``exact``: boundaries; ``partial``: boundaries, where an overlap counts half; ``type``: the label of a span that
        overlaps. None where nothing is defined.

    Notes
    -----
    Source of the measures: Segura-Bedmar et al., "SemEval-2013 Task 9" (2013).
    """
    rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for label in labels or ():
        rows[label] = Counter()
    for mentions in documents:
        gold, predicted = ({one for one in side if labels is None or one[0] in labels} for side in mentions)
        for one in matches(gold, predicted):
            rows[one.label][one.kind] += 1
    order = sorted(rows) if labels is None else list(labels)
    found = {label: _row(rows[label]) for label in order}
    found["micro"] = _row(sum((rows[label] for label in order), Counter[str]()))
    return found


class Match(NamedTuple):
    """A gold span and the predicted span that it is compared with; None for a span without a partner."""

    kind: str
    gold: Mention | None
    predicted: Mention | None

    @property
    def label(self) -> str:
        """The gold label; of a spurious span the predicted one."""
        return (self.gold or self.predicted or ("",))[0]


def matches(gold: AbstractSet[Mention], predicted: AbstractSet[Mention]) -> Iterator[Match]:
    """Yield each pair of spans of a document, and each span without a partner, as `error_kinds` compares them."""
    left, right = set(gold), set(predicted)
    for one in left & right:
        yield Match("correct", one, one)
    left, right = left - right, right - left
    for kind, same_label, same_place in (
        ("type", False, True),
        ("boundary", True, False),
        ("both", False, False),
    ):
        pairs = sorted(
            (-_overlap(one, other), one, other)
            for one in left
            for other in right
            if (one[0] == other[0]) == same_label
            and (one[1:] == other[1:] if same_place else _overlap(one, other) > 0)
        )
        for _, one, other in pairs:
            if one in left and other in right:
                left.remove(one)
                right.remove(other)
                yield Match(kind, one, other)
    for one in left:
        yield Match("missed", one, None)
    for one in right:
        yield Match("spurious", None, one)


def _overlap(one: Mention, other: Mention) -> int:
    return min(one[2], other[2]) - max(one[1], other[1])


def _row(counts: Counter[str]) -> dict[str, Any]:
    row: dict[str, Any] = {kind: counts[kind] for kind in KINDS}
    support, positives = counts.total() - counts["spurious"], counts.total() - counts["missed"]
    for measure, (full, half) in MEASURES.items():
        right = sum(counts[kind] for kind in full) + sum(counts[kind] for kind in half) / 2
        row[f"{measure}_p"] = right / positives if positives else None
        row[f"{measure}_r"] = right / support if support else None
        row[f"{measure}_f"] = 2 * right / (support + positives) if support + positives else None
    return row


@registry.scorers.register("gliner_pipe.error_kinds")
class ErrorKindScorer(SpanScorer):
    """Counts the kinds of errors: wrong boundaries, wrong label, both, missed and spurious spans; see `error_kinds`.

    Use it to see what to improve: boundaries, labels, or what is found at all. Parameters: see `SpanScorer`.
    """

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        return error_kinds(self.pairs(examples), self.labels)
