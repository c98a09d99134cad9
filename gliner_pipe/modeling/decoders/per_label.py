"""The decoder ``per_label``: selects among the spans of each label by itself, those with the largest sum of scores."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain
from typing import Literal

from gliner_pipe.modeling.decoders.span import Candidate, Decoder, Preference, SpanDecoder
from gliner_pipe.registry import registry


@registry.decoders.register("per_label")
class PerLabel(Decoder):
    """Selects among the candidates of each label by itself: a span, or a part of it, may have several labels.

    Use it for models whose labels are independent of each other. Settings of the component that ask for nested or
    partially overlapping entities, or prefer the longest, take precedence over `policy`.

    Parameters
    ----------
    policy
        ``flat``: the candidates without overlap that have the largest sum of scores. ``nested``: the best first, none
        that crosses another. ``longest``: all that do not lie inside another.

    Notes
    -----
    Source: the overlap policies of GLiNER2.5.
    """

    def __init__(self, policy: Literal["flat", "nested", "longest"] = "flat") -> None:
        super().__init__()
        self.policy = policy
        self._greedy = SpanDecoder()

    def decode(
        self,
        candidates: Sequence[Candidate],
        *,
        flat: bool,
        multi_label: bool,
        prefer: Preference = "score",
        partial_overlaps: bool = False,
    ) -> list[Candidate]:
        """Select candidates that do not conflict with others of their label."""
        by_label: dict[int, list[Candidate]] = {}
        for candidate in candidates:
            by_label.setdefault(candidate.label, []).append(candidate)
        policy = self.policy if flat and prefer == "score" and not partial_overlaps else "settings"
        if policy == "nested":
            policy, flat = "settings", False
        select = {"flat": best_sum, "longest": outermost}.get(policy)

        def chosen(some: list[Candidate]) -> list[Candidate]:
            if select is not None:
                return select(some)
            return self._greedy.decode(
                some, flat=flat, multi_label=True, prefer=prefer, partial_overlaps=partial_overlaps
            )

        return sorted(chain.from_iterable(map(chosen, by_label.values())))


def best_sum(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the spans without overlap whose scores have the largest sum; of equal sums the one of more spans.

    Time is ``n log n`` in the number of candidates.
    """
    if len(candidates) < 2:
        return list(candidates)
    ordered = sorted(candidates, key=lambda one: (one.end, one.start, -one.score))
    ends = [one.end for one in ordered]
    best = [(0.0, 0)]  # sum and number of spans, of the first candidates
    before = []
    for index, one in enumerate(ordered):
        before.append(bisect_left(ends, one.start, 0, index))
        total, number = best[before[index]]
        best.append(max(best[index], (total + one.score, number + 1)))
    kept, index = [], len(ordered)
    while index:
        if best[index] == best[index - 1]:
            index -= 1
        else:
            kept.append(ordered[index - 1])
            index = before[index - 1]
    return kept[::-1]


def outermost(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the spans that do not lie inside another one."""
    kept: list[Candidate] = []
    last = -1
    for one in sorted(candidates, key=lambda one: (one.start, -one.end, -one.score)):
        if one.end > last:
            kept.append(one)
            last = one.end
    return kept
