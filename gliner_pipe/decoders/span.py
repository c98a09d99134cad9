"""Greedy choice of spans, the best first."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from gliner_pipe.decoders.base import Candidate, Decoder
from gliner_pipe.registry import registry


@registry.decoders.register("span")
class SpanDecoder(Decoder):
    """Takes candidates by falling score and keeps each that conflicts with none kept before.

    Equal scores keep the order of start, end and label, as in GLiNER. Each candidate is held against its neighbours
    in a sorted list (flat) or against what starts or ends inside it (nested), never against all kept ones.
    """

    def decode(self, candidates: Sequence[Candidate], *, flat: bool, multi_label: bool) -> list[Candidate]:
        """Keep the candidates that can stand together."""
        ranked = sorted(candidates, key=lambda candidate: -candidate.score)
        kept = _flat(ranked, multi_label) if flat else _nested(ranked, multi_label)
        return sorted(kept, key=lambda candidate: candidate.start)


def _flat(ranked: list[Candidate], multi_label: bool) -> list[Candidate]:
    kept: list[Candidate] = []
    starts: list[int] = []  # sorted, of disjoint spans
    ends: list[int] = []
    for candidate in ranked:
        start, end = candidate.start, candidate.end
        at = bisect_left(starts, start)
        if at < len(starts) and starts[at] == start and ends[at] == end:
            if multi_label:
                kept.append(candidate)
            continue
        if (at > 0 and ends[at - 1] >= start) or (at < len(starts) and starts[at] <= end):
            continue
        starts.insert(at, start)
        ends.insert(at, end)
        kept.append(candidate)
    return kept


def _nested(ranked: list[Candidate], multi_label: bool) -> list[Candidate]:
    kept: list[Candidate] = []
    spans: set[tuple[int, int]] = set()
    n_words = max((candidate.end for candidate in ranked), default=0) + 1
    furthest_end = [-1] * n_words  # of the kept spans that start at a word
    nearest_start = [n_words] * n_words  # of the kept spans that end at a word
    for candidate in ranked:
        start, end = candidate.start, candidate.end
        if (start, end) in spans:
            if multi_label:
                kept.append(candidate)
            continue
        crosses_right = max(furthest_end[start + 1 : end + 1], default=-1) > end
        crosses_left = min(nearest_start[start:end], default=n_words) < start
        if crosses_right or crosses_left:
            continue
        spans.add((start, end))
        furthest_end[start] = max(furthest_end[start], end)
        nearest_start[end] = min(nearest_start[end], start)
        kept.append(candidate)
    return kept
