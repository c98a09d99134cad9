"""Relations whose ends are parts of each other, or the same words in several places, joined to one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.instances import Instance


class _End(NamedTuple):
    """Head or tail of a relation: its first and last character (exclusive), and its value."""

    start: int
    stop: int
    value: Candidate


class _Edge(NamedTuple):
    head: _End
    tail: _End
    score: float


def joined(
    instances: Sequence[Instance],
    relations: Sequence[int],
    offsets: Callable[[Candidate], tuple[int, int]],
    text: str,
) -> list[Instance]:
    """Join relations of a text that say the same.

    An end becomes the longest one on its side that holds it. Of relations whose two ends read the same, the one stays
    whose ends stand closest. A relation goes if the words of one of its ends are among those of another relation with
    the same other end.

    Parameters
    ----------
    instances
        Relations and records.
    relations
        Numbers of the tasks that are relations.
    offsets
        Returns first and last character (exclusive) of a value.
    text
        The text.

    Returns
    -------
    list of Instance
        Ordered by task; the relations of a task by the place of head and tail.

    Notes
    -----
    Source: GLiNER2.5, which does so for the relations of its boundary architecture.
    """
    by_task: dict[int, list[_Edge]] = {}
    others = []
    for one in instances:
        if one.task not in relations:
            others.append(one)
            continue
        (head,), (tail,) = one.values
        ends = _End(*offsets(head), head), _End(*offsets(tail), tail)
        by_task.setdefault(one.task, []).append(_Edge(*ends, min(head.score, tail.score)))
    for task, edges in by_task.items():
        for edge in _of_task(edges, text):
            values = tuple((end.value._replace(score=edge.score),) for end in (edge.head, edge.tail))
            others.append(Instance(task, values))
    return sorted(others, key=lambda one: one.task)


def _of_task(edges: list[_Edge], text: str) -> list[_Edge]:
    if len(edges) < 2:
        return edges
    heads, tails = _longest(edge.head for edge in edges), _longest(edge.tail for edge in edges)
    by_place: dict[tuple[int, ...], _Edge] = {}
    for edge in edges:
        head, tail = heads[edge.head[:2]], tails[edge.tail[:2]]
        place = (*head[:2], *tail[:2])
        if place not in by_place or edge.score > by_place[place].score:
            by_place[place] = _Edge(head, tail, edge.score)
    by_words: dict[tuple[str, str], _Edge] = {}
    for edge in by_place.values():
        key = _reads(edge.head, text), _reads(edge.tail, text)
        known = by_words.get(key)
        if known is None or _apart(edge) < _apart(known):
            by_words[key] = edge
    partial = _partial([(frozenset(head.split()), frozenset(tail.split())) for head, tail in by_words])
    kept = [edge for edge, is_part in zip(by_words.values(), partial, strict=True) if not is_part]
    return sorted(kept, key=lambda edge: (edge.head.start, edge.tail.start, -edge.score))


def _longest(ends: Iterable[_End]) -> dict[tuple[int, int], _End]:
    """Return for each end, by its characters, the longest one that holds it; of equal ones the first."""
    known = {end[:2]: end for end in ends}
    outer: list[_End] = []
    for end in sorted(known.values(), key=lambda end: (end.start, -end.stop)):
        if not outer or end.stop > outer[-1].stop:
            outer.append(end)
    starts = [end.start for end in outer]
    found = {}
    for start, stop in known:
        at = bisect_right(starts, start) - 1
        best = outer[at]
        while at > 0 and outer[at - 1].stop >= stop:
            at -= 1
            if outer[at].stop - outer[at].start >= best.stop - best.start:
                best = outer[at]
        found[start, stop] = best
    return found


def _reads(end: _End, text: str) -> str:
    return " ".join(text[end.start : end.stop].casefold().split())


def _apart(edge: _Edge) -> tuple[int, float, int, int]:
    """Order of edges with the same words: those with close ends first, then those with a good score."""
    distance = max(edge.head.start - edge.tail.stop, edge.tail.start - edge.head.stop, 0)
    return distance, -edge.score, edge.head.start, edge.tail.start


def _partial(words: Sequence[tuple[frozenset[str], frozenset[str]]]) -> list[bool]:
    """Whether one end of each relation has a part of the words of another one with the same other end."""
    by_end: list[dict[frozenset[str], list[frozenset[str]]]] = [{}, {}]
    for pair in words:
        for side in (0, 1):
            by_end[side].setdefault(pair[side], []).append(pair[1 - side])
    return [
        any(tail < other for other in by_end[0][head]) or any(head < other for other in by_end[1][tail])
        for head, tail in words
    ]
