"""Base class of span decoders, and ``span``: greedy selection of spans, best score first."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

from gliner_pipe.modeling.block import Block
from gliner_pipe.registry import registry


class Candidate(NamedTuple):
    """A span above its threshold: words `start` to `end` (inclusive), index of the label, score in [0, 1]."""

    start: int
    end: int
    label: int
    score: float


class Decoder(Block):
    """Selects entities among candidates."""

    family = "decoders"

    @abstractmethod
    def decode(self, candidates: Sequence[Candidate], *, flat: bool, multi_label: bool) -> list[Candidate]:
        """Select candidates that do not conflict with each other.

        Parameters
        ----------
        candidates
            Candidates of one text, ordered by start, then end, then label.
        flat
            True: no two entities overlap. False: an entity may be nested inside another, but not cross its boundary.
        multi_label
            True: a span may have several labels.

        Returns
        -------
        list of Candidate
            Ordered by start.
        """


@registry.decoders.register("span")
class SpanDecoder(Decoder):
    """Goes through candidates by descending score and keeps each that conflicts with none kept before.

    Ties are broken by start, end and label, as in GLiNER. Time is ``n log n`` in the number of candidates, however long
    they are: a candidate is checked against an index of words, not against every candidate kept before.
    """

    def decode(self, candidates: Sequence[Candidate], *, flat: bool, multi_label: bool) -> list[Candidate]:
        """Select candidates that do not conflict with each other."""
        if len(candidates) < 2:
            return list(candidates)
        ranked = sorted(candidates, key=attrgetter("score"), reverse=True)
        n_words = max(candidate.end for candidate in ranked) + 1
        taken: _Flat | _Nested = _Flat(n_words) if flat else _Nested(n_words)
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
