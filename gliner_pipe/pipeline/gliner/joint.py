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
from gliner_pipe.modeling.inference import GivenSpans, SpanPredictions
from gliner_pipe.modeling.relation_finders.base import RelationFinder
from gliner_pipe.pipeline.annotate import Link
from gliner_pipe.pipeline.gliner import restrictions
from gliner_pipe.pipeline.gliner.relation_rules import Edge, Node, best_graph
from gliner_pipe.pipeline.gliner.requests import Prepared, Request
from gliner_pipe.pipeline.labels import RelationItem

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
#: What a relation is worth at its threshold. It is above 0, so that rules leave out as few relations as possible.
_LEAST = 1e-3


#: Entities and relations that were chosen together.
Together = tuple[list[Candidate], list[Link]]


class _Pair(NamedTuple):
    """A relation that can be chosen.

    Attributes
    ----------
    number
        Number of its label.
    window
        Window that it belongs to.
    head, tail
        First word, last word and label number of the entities at its ends.
    value
        What it is worth: 0 at its threshold.
    slot
        Of the pairs with the same one, which stand for one predicted relation, only one can be chosen; None for no
        such bound.
    score
        Its score.
    """

    number: int
    window: int
    head: tuple[int, int, int]
    tail: tuple[int, int, int]
    value: float
    slot: Hashable
    score: float


def log_odds(score: float, limit: float) -> float:
    """Return the logit of a score minus that of its threshold: 0 at the threshold."""
    score, limit = (min(max(one, _EPSILON), 1 - _EPSILON) for one in (score, limit))
    return log(score / (1 - score)) - log(limit / (1 - limit))


def choose_together(
    prepared: Prepared,
    found: Sequence[SpanPredictions],
    finder: RelationFinder | None,
    conflict: Callable[[Node, Node], bool],
    where: str,
) -> list[Together | None]:
    """Choose the entities and relations of each document that have the best score together.

    An entity is worth the logit of its score minus that of its threshold, a relation likewise. An entity below its
    threshold is chosen if its relations are worth more.

    Parameters
    ----------
    prepared
        The documents. What was left out is counted in their report.
    found
        Of each document, the spans above their thresholds, values of relations, and scores of all these spans for all
        labels.
    finder
        The relation finder of the model.
    conflict
        Whether two entities exclude each other.
    where
        Section of the relations, for errors.

    Returns
    -------
    list
        Entities, ordered by start, and relations between them; None for a document without labels or relations.
    """
    given = prepared.given or [None] * len(found)
    return [
        _of_document(prepared, number, one, some, finder.scores_pairs, conflict, where)
        if finder is not None and prepared.requests[number].relations and prepared.requests[number].labels
        else None
        for number, (one, some) in enumerate(zip(found, given, strict=True))
    ]


def _of_document(
    prepared: Prepared,
    number: int,
    found: SpanPredictions,
    given: GivenSpans,
    scores_pairs: bool,
    conflict: Callable[[Node, Node], bool],
    where: str,
) -> Together:
    request, report = prepared.requests[number], prepared.report
    limits = request.limits.tolist()
    nodes = {candidate[:3]: candidate for candidate in found.candidates}
    pairs, below = _pairs(request, found, prepared.windows, scores_pairs, report)
    others = sorted(one for key, one in below.items() if key not in nodes)
    if given is not None:
        others = [one for one in others if one[:2] in given]
    if request.patterns:
        check = request.labels, request.patterns, request.doc, request.words, prepared.read[number]
        others = restrictions.matching(others, *check)
    nodes |= {one[:3]: one for one in others}
    every = sorted(nodes.values())
    place = {candidate[:3]: at for at, candidate in enumerate(every)}
    entities = [Node(*one[:3], log_odds(one.score, limits[one.label])) for one in every]
    pairs = [
        one
        for one in pairs
        if one.head in place
        and one.tail in place
        and not (one.head != one.tail and conflict(entities[place[one.head]], entities[place[one.tail]]))
    ]
    pairs = _best_pairs(pairs, report)
    edges = [Edge(one.number, place[one.head], place[one.tail], one.value, one.slot) for one in pairs]
    graph = best_graph(entities, edges, request.relations, conflict, where)
    if not graph.proven:
        report[UNPROVEN] += 1
    kept = {at: number for number, at in enumerate(graph.nodes)}
    links = [
        Link(
            kept[head],
            kept[tail],
            request.relations[relation].label,
            pairs[source].score,
            every[head][:2] == every[tail][:2],
        )
        for relation, head, tail, source in graph.edges
    ]
    return [every[at] for at in graph.nodes], links


def _pairs(
    request: Request,
    found: SpanPredictions,
    windows: Sequence[Window],
    scores_pairs: bool,
    report: Counter[str],
) -> tuple[list[_Pair], dict[tuple[int, int, int], Candidate]]:
    """Return the relations that can be chosen, and the entities that their ends can be."""
    limits = request.limits.tolist()
    numbers = {item.label: number for number, item in enumerate(request.labels)}
    ends: dict[tuple[int, int, int], Candidate] = {}

    def options(span: Candidate, types: Sequence[str] | None) -> list[tuple[int, int, int]]:
        """Return the entities that an end can be: of each allowed label, or else of the best one."""
        scores = found.class_scores[span.start, span.end]
        allowed: Iterable[int] = [numbers[one] for one in types or () if one in numbers]
        if types is None:
            allowed = [max(range(len(limits)), key=lambda at: log_odds(scores[at], limits[at]))]
        keys = [(span.start, span.end, number) for number in allowed]
        ends.update({key: Candidate(*key, scores[key[2]]) for key in keys})
        return keys

    pairs: list[_Pair] = []
    proposals = _proposals(found, windows, request.relations, len(request.records), scores_pairs, report)
    for number, window, head, tail, slot in proposals:
        item, limit = request.relations[number], request.relation_limits[number]
        score = head.score if scores_pairs else min(head.score, tail.score)
        value = log_odds(head.score, limit)
        if not scores_pairs:
            value += log_odds(tail.score, limit)
        if value >= 0:
            tails = options(tail, item.tail)
            pairs += [
                _Pair(number, window, one, other, value, slot, score)
                for one in options(head, item.head)
                for other in tails
            ]
    return pairs, ends


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
    """Yield number, window, head and tail of each relation that can be chosen, and its slot (see ``_Pair``).

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
