"""Precision, recall and F1 from sets of gold and predicted mentions: pure functions over plain data.

All functions take sets, so duplicates count once, and nested, overlapping and multi-label spans are separate elements.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

from gliner_pipe.errors import ConfigError

#: Label, first unit, one past the last unit. The caller chooses the unit: tokens or characters.
Mention = tuple[str, int, int]

#: Gold and predicted mentions of one document. `count_exact` also takes ``(label, a, b)`` with any hashable a and b.
Pair = tuple[AbstractSet[Any], AbstractSet[Any]]


class Counts(NamedTuple):
    """Counted elements of one label.

    Parameters
    ----------
    right
        Correct predicted elements (numerator of precision).
    found
        Gold elements that were found (numerator of recall). Equals `right` except for `count_overlap`, where two
        predictions can match the same gold span.
    support
        Gold elements.
    positives
        Predicted elements.
    """

    right: int = 0
    found: int = 0
    support: int = 0
    positives: int = 0


#: Counts by label, of one document or of many.
LabelCounts = dict[str, Counts]

#: Counts one document by label, given its gold and its predicted mentions.
CountFunction = Callable[[AbstractSet[Any], AbstractSet[Any]], LabelCounts]


def count_exact(gold: AbstractSet[Any], predicted: AbstractSet[Any]) -> LabelCounts:
    """Count spans; a span is correct if its label and both boundaries match.

    Parameters
    ----------
    gold, predicted
        Mentions of one document.
    """
    return {label: _intersection(golds, guesses) for label, golds, guesses in _by_label(gold, predicted)}


def count_overlap(
    gold: AbstractSet[Mention], predicted: AbstractSet[Mention], threshold: float = 0.5
) -> LabelCounts:
    """Count spans; a span is correct if it overlaps enough with a span of the same label.

    The overlap is the Dice coefficient ``2 |A & B| / (|A| + |B|)``. A predicted span is correct if its overlap with any
    gold span of its label reaches the threshold; a gold span is found if any predicted span of its label does. Below a
    threshold of about 2/3, several predictions can match one gold span.

    Parameters
    ----------
    gold, predicted
        Mentions of one document.
    threshold
        Minimum Dice overlap, above 0 and at most 1. At 1 the counts equal those of `count_exact`.
    """
    return {
        label: Counts(
            _matching(guesses, golds, threshold),
            _matching(golds, guesses, threshold),
            len(golds),
            len(guesses),
        )
        for label, golds, guesses in _by_label(gold, predicted)
    }


def count_token(gold: AbstractSet[Mention], predicted: AbstractSet[Mention]) -> LabelCounts:
    """Count the units (tokens) inside spans; a token inside spans of two labels counts once for each label.

    Parameters
    ----------
    gold, predicted
        Mentions of one document.
    """
    return {
        label: _intersection(_units(golds), _units(guesses))
        for label, golds, guesses in _by_label(gold, predicted)
    }


def add_counts(totals: LabelCounts, counts: Mapping[str, Counts], sign: int = 1) -> None:
    """Add counts to `totals` in place, or subtract them with a `sign` of -1."""
    for label, row in counts.items():
        before = totals.get(label, Counts())
        totals[label] = Counts(*(a + sign * b for a, b in zip(before, row, strict=True)))


def sum_counts(counts: Iterable[Counts]) -> Counts:
    """Return the element-wise sum of counts."""
    return Counts(*map(sum, zip(Counts(), *counts, strict=True)))


def score_row(counts: Counts) -> dict[str, Any]:
    """Compute precision, recall and F1.

    Parameters
    ----------
    counts
        Elements of one label, or of all labels.

    Returns
    -------
    dict[str, Any]
        ``p``, ``r``, ``f`` in [0, 1], ``tp``, ``support`` (gold) and ``positives`` (predicted). Without any gold or
        predicted element, ``p``, ``r`` and ``f`` are None; with only one of the two, all three are 0.
    """
    right, found, support, positives = counts
    p: float | None
    r: float | None
    f: float | None
    if not support and not positives:
        p = r = f = None
    else:
        p = right / positives if positives else 0.0
        r = found / support if support else 0.0
        f = 2 * p * r / (p + r) if p + r else 0.0
    return {"p": p, "r": r, "f": f, "tp": right, "support": support, "positives": positives}


def score_mentions(
    documents: Iterable[Pair],
    count: CountFunction = count_exact,
    *,
    labels: Sequence[str] | None = None,
    micro_key: str = "micro",
    macro_key: str = "macro",
) -> dict[str, Any]:
    """Score documents given as pairs of gold and predicted ``(label, start, end)`` sets.

    Parameters
    ----------
    documents
        A pair of gold and predicted mentions for each document.
    count
        Decides which mentions are correct: `count_exact`, `count_overlap` or `count_token`.
    labels
        Fixed label set; gold and predicted mentions of other labels are ignored. With None, all labels of the data
        are scored, and a predicted label without gold lowers precision.
    micro_key
        Key of the scores over all labels together.
    macro_key
        Key of the mean over the labels that occur in the gold data.

    Returns
    -------
    dict[str, Any]
        A row of `score_row` for each label (in the order of `labels`, else sorted) and for `micro_key`. Under
        `macro_key` the means ``p``, ``r``, ``f`` (None without any gold) and ``labels``, the number of labels averaged.

    Raises
    ------
    ConfigError
        If a label equals a summary key.
    """
    totals: LabelCounts = {label: Counts() for label in labels or ()}
    for gold, predicted in documents:
        counts = count(gold, predicted)
        if labels is not None:
            counts = {label: row for label, row in counts.items() if label in totals}
        add_counts(totals, counts)
    for key, option in ((micro_key, "micro_key"), (macro_key, "macro_key")):
        if key in totals:
            raise ConfigError(option, f"is {key!r}, which is also a label", "a name no label has")
    rows = {label: score_row(totals[label]) for label in (sorted(totals) if labels is None else totals)}
    measured = [row for row in rows.values() if row["support"]]
    macro = {
        key: sum(row[key] for row in measured) / len(measured) if measured else None
        for key in ("p", "r", "f")
    }
    return {
        **rows,
        micro_key: score_row(sum_counts(totals.values())),
        macro_key: {**macro, "labels": len(measured)},
    }


def _by_label(
    gold: Iterable[Any], predicted: Iterable[Any]
) -> Iterator[tuple[str, set[tuple[Any, Any]], set[tuple[Any, Any]]]]:
    """Yield each label with its gold and its predicted boundaries."""
    groups: defaultdict[str, tuple[set[Any], set[Any]]] = defaultdict(lambda: (set(), set()))
    for side, mentions in enumerate((gold, predicted)):
        for label, start, end in mentions:
            groups[label][side].add((start, end))
    for label, (golds, guesses) in groups.items():
        yield label, golds, guesses


def _intersection(golds: set[Any], guesses: set[Any]) -> Counts:
    right = len(golds & guesses)
    return Counts(right, right, len(golds), len(guesses))


def _units(spans: Iterable[tuple[int, int]]) -> set[int]:
    return {unit for start, end in spans for unit in range(start, end)}


def _matching(spans: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]], threshold: float) -> int:
    """Return how many of `spans` have a Dice overlap with one of `others` that reaches the threshold."""
    ordered = sorted(others)
    starts = [start for start, _ in ordered]
    longest = max((end - start for start, end in ordered), default=0)
    count = 0
    for start, end in spans:
        # only spans that begin in this range can share a unit with start:end
        low, high = bisect_right(starts, start - longest), bisect_left(starts, end)
        count += any(_dice((start, end), other) >= threshold for other in ordered[low:high])
    return count


def _dice(one: tuple[int, int], other: tuple[int, int]) -> float:
    shared = min(one[1], other[1]) - max(one[0], other[0])
    return 2 * shared / (one[1] - one[0] + other[1] - other[0]) if shared > 0 else 0.0
