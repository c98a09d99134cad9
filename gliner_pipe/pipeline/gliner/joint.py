"""Entities and relations of a text that are chosen together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import groupby
from math import log
from operator import attrgetter
from typing import NamedTuple

import numpy as np

from gliner_pipe.modeling.backbones.base import Window
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.inference import SpanPredictions
from gliner_pipe.pipeline.annotate import Link
from gliner_pipe.pipeline.gliner.relation_rules import Edge, Node, best_graph
from gliner_pipe.pipeline.labels import LabelItem, RelationItem

#: Minimum score of the head and the tail of a relation that is scored by its two ends.
LEAST_END = 0.05
#: Most spans that are tried as head, or as tail, of one relation, and most pairs of these; the best ones.
MOST_ENDS, MOST_PAIRS = 12, 128
#: Most pairs of a relation label in a text for each of its windows.
MOST_OF_LABEL = 256

LEFT_OUT = f"head or tail of a relation beyond the {MOST_ENDS} best"
PAIRS_LEFT_OUT = f"pair of head and tail of a relation beyond the {MOST_PAIRS} or {MOST_OF_LABEL} best"
BROKEN = "relation left out because of the rules of relations"
UNPROVEN = "text whose best entities and relations were not found in time (rules of relations)"
_EPSILON = 1e-7
#: What a relation that was found is worth at its threshold, so that as many stay as can.
_LEAST = 1e-3


class _Pair(NamedTuple):
    """A relation that can be chosen: its number, the entities that are head and tail, its utility, slot and score."""

    number: int
    window: int
    head: tuple[int, int, int]
    tail: tuple[int, int, int]
    value: float
    slot: Hashable
    score: float


def log_odds(score: float, limit: float) -> float:
    """Return how much a score speaks for its item: 0 at its threshold."""
    score, limit = (min(max(one, _EPSILON), 1 - _EPSILON) for one in (score, limit))
    return log(score / (1 - score)) - log(limit / (1 - limit))


def chosen_together(
    found: SpanPredictions,
    windows: Sequence[Window],
    labels: Sequence[LabelItem],
    relations: Sequence[RelationItem],
    limits: Sequence[float],
    relation_limits: Sequence[float],
    *,
    first_task: int,
    scores_pairs: bool,
    conflict: Callable[[Node, Node], bool],
    allowed: Callable[[list[Candidate]], list[Candidate]],
    where: str,
    report: Counter[str],
) -> tuple[list[Candidate], list[Link]]:
    """Choose the entities and relations of a text that have the best score together.

    An entity is worth the logit of its score minus that of its threshold, a relation likewise. An entity below its
    threshold is chosen if its relations are worth more.

    Parameters
    ----------
    found
        Spans above their thresholds, values of relations, and scores of all these spans for all labels.
    windows
        Those that the values count.
    labels, relations
        What was looked for.
    limits, relation_limits
        Their thresholds.
    first_task
        Number of the first relation among the tasks.
    scores_pairs
        Whether a relation has one score, and not one for each end.
    conflict
        Whether two entities exclude each other.
    allowed
        Returns those among spans below their thresholds that may be entities.
    where
        Section of the relations, for errors.
    report
        Counts what was left out.

    Returns
    -------
    tuple
        Entities, ordered by start, and relations between them.
    """
    proposals = list(_proposals(found, windows, relations, first_task, scores_pairs, report))
    numbers = {item.label: number for number, item in enumerate(labels)}
    nodes = {candidate[:3]: candidate for candidate in found.candidates}
    below: dict[tuple[int, int, int], Candidate] = {}

    def options(span: Candidate, types: Sequence[str] | None) -> list[tuple[int, int, int]]:
        """Return the entities that an end can be: of each allowed label, or else of the best one."""
        scores = found.class_scores[span.start, span.end]
        allowed_numbers: Iterable[int] = [numbers[one] for one in types or () if one in numbers]
        if types is None and labels:
            allowed_numbers = [max(range(len(labels)), key=lambda at: log_odds(scores[at], limits[at]))]
        keys = [(span.start, span.end, number) for number in allowed_numbers]
        below.update({key: Candidate(*key, scores[key[2]]) for key in keys if key not in nodes})
        return keys

    pairs: list[_Pair] = []
    for number, window, head, tail, slot in proposals:
        item = relations[number]
        score = head.score if scores_pairs else min(head.score, tail.score)
        value = log_odds(head.score, relation_limits[number])
        if not scores_pairs:
            value += log_odds(tail.score, relation_limits[number])
        if value >= 0:
            tails = options(tail, item.tail)
            pairs += [
                _Pair(number, window, one, other, value, slot, score)
                for one in options(head, item.head)
                for other in tails
            ]
    nodes |= {one[:3]: one for one in allowed(sorted(below.values()))}
    every = sorted(nodes.values())
    place = {candidate[:3]: at for at, candidate in enumerate(every)}
    options_of = [Node(*one[:3], log_odds(one.score, limits[one.label])) for one in every]
    pairs = [
        one
        for one in pairs
        if one.head in place
        and one.tail in place
        and not (one.head != one.tail and conflict(options_of[place[one.head]], options_of[place[one.tail]]))
    ]
    pairs = _best_pairs(pairs, report)
    graph = best_graph(
        options_of,
        [Edge(one.number, place[one.head], place[one.tail], one.value, one.slot) for one in pairs],
        relations,
        conflict,
        where,
    )
    if not graph.proven:
        report[UNPROVEN] += 1
    kept = {at: number for number, at in enumerate(graph.nodes)}
    links = [
        Link(
            kept[head],
            kept[tail],
            relations[number].label,
            pairs[source].score,
            every[head][:2] == every[tail][:2],
        )
        for number, head, tail, source in graph.edges
    ]
    return [every[at] for at in graph.nodes], links


def _best_pairs(pairs: list[_Pair], report: Counter[str]) -> list[_Pair]:
    """Return the best pairs of each slot and of each label."""
    taken: Counter[Hashable] = Counter()
    kept = []
    for one in sorted(pairs, key=lambda pair: -pair.value):
        label = one.number, one.window
        if taken[one.slot] >= MOST_PAIRS or taken[label] >= MOST_OF_LABEL:
            report[PAIRS_LEFT_OUT] += 1
            continue
        taken[one.slot] += one.slot is not None
        taken[label] += 1
        kept.append(one)
    return kept


def _proposals(
    found: SpanPredictions,
    windows: Sequence[Window],
    relations: Sequence[RelationItem],
    first_task: int,
    scores_pairs: bool,
    report: Counter[str],
) -> Iterator[tuple[int, int, Candidate, Candidate, Hashable]]:
    """Yield number, window, head and tail of each relation that can be chosen; and its slot, which only one can take.

    A relation belongs to the window that owns its first word.
    """
    if found.values is None:
        return
    rows: list[list[int]] = found.values[:6].astype(np.int64).T.tolist()
    values = zip(rows, found.values[6].tolist(), strict=True)
    for (window, task, slot), group in groupby(values, key=lambda one: tuple(one[0][:3])):
        number = task - first_task
        if not 0 <= number < len(relations):
            continue
        ends: tuple[list[Candidate], list[Candidate]] = ([], [])
        for (*_, field, start, end), score in group:
            ends[field].append(Candidate(start, end, field, score))
        for some in ends:
            some.sort(key=attrgetter("score"), reverse=True)
            if len(some) > MOST_ENDS:
                report[LEFT_OUT] += len(some) - MOST_ENDS
                del some[MOST_ENDS:]
        own = windows[window]
        for head in ends[0]:
            for tail in ends[1]:
                if own.own_start <= min(head.start, tail.start) < own.own_stop:
                    yield number, window, head, tail, None if scores_pairs else (window, task, slot)


def obeying(
    links: Sequence[Link],
    ends: Sequence[tuple[int, int]],
    relations: Sequence[RelationItem],
    limits: Sequence[float],
    where: str,
    report: Counter[str],
) -> list[Link]:
    """Return the relations with the largest sum of utilities that obey their rules, and those that follow from them.

    Parameters
    ----------
    links
        Relations that were found.
    ends
        First and last word of each entity or other end.
    relations, limits
        The relations that were looked for, and their thresholds.
    where
        Section of the relations, for errors.
    report
        Counts relations that are left out.
    """
    numbers = {item.label: number for number, item in enumerate(relations)}
    nodes = [Node(start, end, 0, 0.0) for start, end in ends]
    edges = [
        Edge(
            numbers[one.label],
            one.head,
            one.tail,
            max(log_odds(one.score, limits[numbers[one.label]]), 0.0) + _LEAST,
        )
        for one in links
    ]
    graph = best_graph(nodes, edges, relations, None, where)
    if not graph.proven:
        report[UNPROVEN] += 1
    found = [
        Link(head, tail, relations[number].label, links[source].score, ends[head] == ends[tail])
        for number, head, tail, source in graph.edges
    ]
    kept = {one[:3] for one in found}
    report[BROKEN] += len({one[:3] for one in links} - kept)
    return found
