"""How many spans of a document are right: pure functions over (label, start, end) triples.

Every function takes two sets, so a span that stands twice counts once, and nested, overlapping and
multi-label spans are separate elements. What a "unit" is (token or character) is the caller's matter.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

#: Label, first unit, unit after the last.
Mention = tuple[str, int, int]


class Counts(NamedTuple):
    """Elements of one label.

    Parameters
    ----------
    right
        Predicted elements that count as right (numerator of precision).
    found
        Gold elements that count as found (numerator of recall). Equals `right` except under partial overlap,
        where two predictions may meet the same gold span.
    support
        Gold elements.
    positives
        Predicted elements.
    """

    right: int = 0
    found: int = 0
    support: int = 0
    positives: int = 0

    def plus(self, other: Counts) -> Counts:
        """Element-wise sum."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


#: Counts per label of one document, from its gold and its predicted mentions.
CountFunction = Callable[[AbstractSet[Mention], AbstractSet[Mention]], Mapping[str, Counts]]


def count_exact(gold: AbstractSet[Mention], predicted: AbstractSet[Mention]) -> dict[str, Counts]:
    """Count spans whose label and both boundaries agree.

    Parameters
    ----------
    gold
        Gold mentions of one document.
    predicted
        Predicted mentions of the same document.

    Returns
    -------
    dict[str, Counts]
        Counts by label.
    """
    golds, guesses = _by_label(gold), _by_label(predicted)
    counts = {}
    for label in golds.keys() | guesses.keys():
        right = len(golds[label] & guesses[label])
        counts[label] = Counts(right, right, len(golds[label]), len(guesses[label]))
    return counts


def count_overlap(
    gold: AbstractSet[Mention], predicted: AbstractSet[Mention], threshold: float = 0.5
) -> dict[str, Counts]:
    """Count spans that overlap enough with a span of the same label.

    A predicted span is right when its Dice overlap ``2 |A & B| / (|A| + |B|)`` with any gold span of its
    label reaches the threshold; a gold span is found when any predicted span of its label does. Below a
    threshold of about 2/3, several predictions may so meet one gold span.

    Parameters
    ----------
    gold
        Gold mentions of one document.
    predicted
        Predicted mentions of the same document.
    threshold
        Least Dice overlap, above 0 and at most 1. At 1 the counts are those of `count_exact`.

    Returns
    -------
    dict[str, Counts]
        Counts by label.
    """
    golds, guesses = _by_label(gold), _by_label(predicted)
    counts = {}
    for label in golds.keys() | guesses.keys():
        counts[label] = Counts(
            _meeting(guesses[label], golds[label], threshold),
            _meeting(golds[label], guesses[label], threshold),
            len(golds[label]),
            len(guesses[label]),
        )
    return counts


def count_token(gold: AbstractSet[Mention], predicted: AbstractSet[Mention]) -> dict[str, Counts]:
    """Count units (tokens) that lie inside a span of a label; a token below two labels counts once for each.

    Parameters
    ----------
    gold
        Gold mentions of one document.
    predicted
        Predicted mentions of the same document.

    Returns
    -------
    dict[str, Counts]
        Counts by label.
    """
    golds, guesses = _by_label(gold), _by_label(predicted)
    counts = {}
    for label in golds.keys() | guesses.keys():
        gold_units, guessed_units = _units(golds[label]), _units(guesses[label])
        right = len(gold_units & guessed_units)
        counts[label] = Counts(right, right, len(gold_units), len(guessed_units))
    return counts


def _by_label(mentions: Iterable[Mention]) -> defaultdict[str, set[tuple[int, int]]]:
    groups: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
    for label, start, end in mentions:
        groups[label].add((start, end))
    return groups


def _units(spans: Iterable[tuple[int, int]]) -> set[int]:
    return {unit for start, end in spans for unit in range(start, end)}


def _meeting(spans: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]], threshold: float) -> int:
    """Number of `spans` whose best Dice overlap with `others` reaches the threshold."""
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
