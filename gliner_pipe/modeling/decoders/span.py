"""Base class of span decoders, and ``span``: greedy selection of spans, best score first."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from operator import attrgetter
from typing import Literal, NamedTuple

from gliner_pipe.modeling.block import Block
from gliner_pipe.registry import registry


class Candidate(NamedTuple):
    """A span above its threshold: words `start` to `end` (inclusive), index of the label, score in [0, 1]."""

    start: int
    end: int
    label: int
    score: float


#: Which of several conflicting spans is kept.
Preference = Literal["score", "longest"]


class Decoder(Block):
    """Selects entities among candidates."""

    family = "decoders"

    @abstractmethod
    def decode(
        self,
        candidates: Sequence[Candidate],
        *,
        flat: bool,
        multi_label: bool,
        prefer: Preference = "score",
        partial_overlaps: bool = False,
    ) -> list[Candidate]:
        """Select candidates that do not conflict with each other.

        Parameters
        ----------
        candidates
            Candidates of one text, ordered by start, then end, then label.
        flat
            True: no entity lies inside another. False: an entity may be nested inside another.
        multi_label
            True: a span may have several labels.
        prefer
            Which of several conflicting candidates is kept: the one with the best score, or the longest (of equally
            long ones the one with the best score).
        partial_overlaps
            True: two entities may overlap if neither lies inside the other. False: they may not. With `flat` false and
            `partial_overlaps` true, entities conflict only if they have the same words.

        Returns
        -------
        list of Candidate
            Ordered by start.
        """


@registry.decoders.register("span")
class SpanDecoder(Decoder):
    """Goes through candidates, the best first, and keeps each that conflicts with none kept before.

    Ties are broken by start, end and label, as in GLiNER. Time is ``n log n`` in the number of candidates, however long
    they are: a candidate is checked against an index of words, not against every candidate kept before.

    Parameters
    ----------
    across_labels
        False: only candidates of the same label conflict, as in GLiNER2; a span may then have several labels.
    """

    def __init__(self, across_labels: bool = True) -> None:
        super().__init__()
        self.across_labels = across_labels

    def decode(
        self,
        candidates: Sequence[Candidate],
        *,
        flat: bool,
        multi_label: bool,
        prefer: Preference = "score",
        partial_overlaps: bool = False,
    ) -> list[Candidate]:
        """Select candidates that do not conflict with each other."""
        if len(candidates) < 2:
            return list(candidates)
        if not self.across_labels:
            by_label: dict[int, list[Candidate]] = {}
            for candidate in candidates:
                by_label.setdefault(candidate.label, []).append(candidate)
            options = flat, prefer, partial_overlaps
            chosen = (_select(some, multi_label, *options) for some in by_label.values())
            return sorted(itertools.chain.from_iterable(chosen))
        return _select(candidates, multi_label, flat, prefer, partial_overlaps)


def _select(
    candidates: Sequence[Candidate], multi_label: bool, flat: bool, prefer: Preference, partial_overlaps: bool
) -> list[Candidate]:
    """Select candidates of labels that conflict with each other."""
    ranked = sorted(candidates, key=attrgetter("score"), reverse=True)
    if prefer == "longest":
        ranked.sort(key=lambda candidate: candidate.start - candidate.end)  # stable: then by score
    n_words = max(candidate.end for candidate in ranked) + 1
    taken = _INDICES[flat, partial_overlaps](n_words)
    spans: set[tuple[int, int]] = set()
    kept: list[Candidate] = []
    for candidate in ranked:
        span = candidate[:2]
        if span in spans:
            if multi_label:
                kept.append(candidate)
        elif not taken.conflict(*span):
            taken.add(*span)
            spans.add(span)
            kept.append(candidate)
    return sorted(kept, key=attrgetter("start"))


class _Flat:
    """Words that kept spans cover, as a byte array that is searched at memory speed."""

    def __init__(self, n_words: int) -> None:
        self.taken = bytearray(n_words)

    def conflict(self, start: int, end: int) -> bool:
        """Whether a word of the span is covered."""
        return self.taken.find(1, start, end + 1) >= 0

    def add(self, start: int, end: int) -> None:
        """Mark the words of the span as covered."""
        self.taken[start : end + 1] = b"\1" * (end + 1 - start)


class _Nested:
    """How far the kept spans that start, or end, at each word reach."""

    def __init__(self, n_words: int) -> None:
        self.ends = _MaxTree(n_words)  # last end of the spans that start at a word
        self.starts = _MaxTree(n_words)  # negated first start of the spans that end at a word

    def conflict(self, start: int, end: int) -> bool:
        """Whether a kept span crosses a boundary of this one."""
        return self.ends.over(start + 1, end + 1) > end or -self.starts.over(start, end) < start

    def add(self, start: int, end: int) -> None:
        """Add the span to both trees."""
        self.ends.put(start, end)
        self.starts.put(end, -start)


class _Partial:
    """How far the kept spans that start at each word reach, at most and at least."""

    def __init__(self, n_words: int) -> None:
        self.ends = _MaxTree(n_words)  # last end of the spans that start at a word
        self.nearest = _MaxTree(n_words)  # negated first end of the spans that start at a word

    def conflict(self, start: int, end: int) -> bool:
        """Whether a kept span holds this one, or lies inside it."""
        return self.ends.over(0, start + 1) >= end or -self.nearest.over(start, end + 1) <= end

    def add(self, start: int, end: int) -> None:
        """Add the span to both trees."""
        self.ends.put(start, end)
        self.nearest.put(start, -end)


class _Free:
    """No index: spans of different words never conflict."""

    def __init__(self, n_words: int) -> None:
        """Keep nothing."""

    def conflict(self, start: int, end: int) -> bool:
        """Whether the span conflicts with a kept one: never."""
        return False

    def add(self, start: int, end: int) -> None:
        """Keep nothing."""


#: The index of kept spans, by `flat` and `partial_overlaps`.
_INDICES: dict[tuple[bool, bool], type[_Flat | _Nested | _Partial | _Free]] = {
    (True, False): _Flat,
    (False, False): _Nested,
    (True, True): _Partial,
    (False, True): _Free,
}


class _MaxTree:
    """Segment tree of maxima over ranges of positions: both methods take a logarithmic number of steps."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tree = [-size] * (2 * size)

    def put(self, place: int, number: int) -> None:
        """Raise the value at a position to `number`, which must be above ``-size``."""
        at = place + self.size
        while at and self.tree[at] < number:
            self.tree[at] = number
            at >>= 1

    def over(self, low: int, high: int) -> int:
        """Return the maximum over ``low`` to ``high - 1``; ``-size`` if nothing is there."""
        best = -self.size
        low, high = low + self.size, high + self.size
        while low < high:
            if low & 1:
                best = max(best, self.tree[low])
                low += 1
            if high & 1:
                high -= 1
                best = max(best, self.tree[high])
            low >>= 1
            high >>= 1
        return best
