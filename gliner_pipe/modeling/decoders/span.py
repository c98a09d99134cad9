"""The contract of a decoder, and ``span``: greedy selection of spans, best score first."""

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
    """Chooses among candidates."""

    family = "decoders"

    @abstractmethod
    def decode(self, candidates: Sequence[Candidate], *, flat: bool, multi_label: bool) -> list[Candidate]:
        """Keep the candidates that can stand together.

        Parameters
        ----------
        candidates
            Of one text, ordered by start, then end, then label.
        flat
            True: no two entities overlap. False: an entity may lie inside another, but not across its border.
        multi_label
            True: a span may have several labels.

        Returns
        -------
        list of Candidate
            Ordered by start.
        """


@registry.decoders.register("span")
class SpanDecoder(Decoder):
    """Takes candidates by falling score and keeps each that conflicts with none kept before.

    Equal scores keep the order of start, end and label, as in GLiNER. Time grows with ``n log n``, however long and
    however many the candidates: each is held against what is known of its words, never against those kept before.
    """

    def decode(self, candidates: Sequence[Candidate], *, flat: bool, multi_label: bool) -> list[Candidate]:
        """Keep the candidates that can stand together."""
        if len(candidates) < 2:
            return list(candidates)
        ranked = sorted(candidates, key=attrgetter("score"), reverse=True)
        n_words = max(candidate.end for candidate in ranked) + 1
        borders: _Flat | _Nested = _Flat(n_words) if flat else _Nested(n_words)
        spans: set[tuple[int, int]] = set()
        kept: list[Candidate] = []
        for candidate in ranked:
            span = candidate[:2]
            if span in spans:
                if multi_label:
                    kept.append(candidate)
            elif not borders.conflict(*span):
                borders.add(*span)
                spans.add(span)
                kept.append(candidate)
        return sorted(kept, key=attrgetter("start"))


class _Flat:
    """Words that are taken. A kept span takes each of its words once, and the search for one runs at memory's pace."""

    def __init__(self, n_words: int) -> None:
        self.taken = bytearray(n_words)

    def conflict(self, start: int, end: int) -> bool:
        """Whether a word of the span is taken."""
        return self.taken.find(1, start, end + 1) >= 0

    def add(self, start: int, end: int) -> None:
        """Take the words of the span."""
        self.taken[start : end + 1] = b"\1" * (end + 1 - start)


class _Nested:
    """How far the spans reach that start, or end, at each word."""

    def __init__(self, n_words: int) -> None:
        self.ends = _Maxima(n_words)  # the furthest end of the spans that start at a word
        self.starts = _Maxima(n_words)  # the nearest start, less than zero, of the spans that end at a word

    def conflict(self, start: int, end: int) -> bool:
        """Whether another span crosses a border of this one."""
        return self.ends.over(start + 1, end + 1) > end or -self.starts.over(start, end) < start

    def add(self, start: int, end: int) -> None:
        """Note where the span starts and ends."""
        self.ends.put(start, end)
        self.starts.put(end, -start)


class _Maxima:
    """Largest number put at any of a stretch of places, in a tree: both calls take steps with their logarithm."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tree = [-size] * (2 * size)

    def put(self, place: int, number: int) -> None:
        """Put a number, above ``-size``, at a place; the largest there counts."""
        at = place + self.size
        while at and self.tree[at] < number:
            self.tree[at] = number
            at >>= 1

    def over(self, low: int, high: int) -> int:
        """Return the largest number at ``low`` to ``high - 1``; ``-size`` where there is none."""
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
