"""Which relations and which pairs of entities a training example is asked for."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gliner_pipe.data.annotations import Supervision
from gliner_pipe.data.fields import Relation
from gliner_pipe.data.label_sampling import LabelSampling, sample_labels
from gliner_pipe.errors import ConfigError

#: Head and tail as positions of entities.
Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class RelationSampling:
    """How the pairs of a training example are chosen, and how examples are varied.

    The labels of relations are chosen by a `LabelSampling`, as those of entities are.

    Parameters
    ----------
    pair_ratio
        Pairs without relation by pair with one: a number from 1 to `pair_ratio` is drawn evenly, the product rounded
        down, at least 1. Reversed pairs count towards it, and are all taken even where there are more.
    reversed_pairs
        Take each pair that has a relation the other way round too, unless it has one in that direction: what teaches
        the direction.
    vary
        Share of examples that are varied: some labels of entities and of relations are not asked for.
    drop_entities
        Lowest and highest share of entity labels that a varied example is not asked for; at least one is left.
    drop_relations
        Lowest and highest share of relation labels that a varied example is not asked for.
    other
        Share of varied examples in which entities of dropped labels that have a relation get the label `other_label`
        instead of none, so that the relation stays.
    other_label
        That label, which is never dropped.

    Notes
    -----
    The defaults are those of GLiNER (``augment_data_prob``, ``augment_ent_drop_prob``, ``augment_rel_drop_prob``,
    ``augment_add_other_prob``).
    """

    pair_ratio: float = 10.0
    reversed_pairs: bool = True
    vary: float = 0.5
    drop_entities: tuple[float, float] = (0.0, 1.0)
    drop_relations: tuple[float, float] = (0.0, 0.3)
    other: float = 0.5
    other_label: str = "other"

    def __post_init__(self) -> None:
        if not 1 <= self.pair_ratio < float("inf"):
            raise _wrong("pair_ratio", self.pair_ratio, "a number from 1 on")
        for name in ("vary", "other"):
            if not 0 <= getattr(self, name) <= 1:
                raise _wrong(name, getattr(self, name), "a number from 0 to 1")
        for name in ("drop_entities", "drop_relations"):
            bounds = tuple(getattr(self, name))
            if len(bounds) != 2 or not 0 <= bounds[0] <= bounds[1] <= 1:
                raise _wrong(name, getattr(self, name), "two numbers from 0 to 1, the lower first")
        if not self.other_label:
            raise _wrong("other_label", self.other_label, "a label")


class Varied(NamedTuple):
    """An example whose labels were varied; entities keep their positions.

    Parameters
    ----------
    labels
        The label of each entity; None where the entity is left out.
    relations
        Those that are left, between entities that are left.
    dropped_labels
        Entity labels that the example must not be asked for, as entities that have them are left out.
    dropped_relations
        Relation labels that the example must not be asked for.
    """

    labels: list[str | None]
    relations: list[Relation] | None
    dropped_labels: frozenset[str] = frozenset()
    dropped_relations: frozenset[str] = frozenset()


class PairTarget(NamedTuple):
    """A pair of entities, and the positions of its relations among the labels that are asked for; maybe none."""

    head: int
    tail: int
    relations: tuple[int, ...]


def vary(
    labels: Sequence[str],
    relations: Sequence[Relation] | None,
    sampling: RelationSampling,
    rng: random.Random,
) -> Varied:
    """Drop some labels of an example, so that the model learns to read what is asked for.

    Parameters
    ----------
    labels
        Label of each entity.
    relations
        Head, tail and label, counted in `labels`; None where nothing is known.
    sampling
        Settings.
    rng
        The only source of chance.

    Returns
    -------
    Varied
        The example, varied or not.
    """
    kept = None if relations is None else list(relations)
    if not labels or rng.random() >= sampling.vary:
        return Varied(list(labels), kept)
    ratio, rel_ratio = rng.uniform(*sampling.drop_entities), rng.uniform(*sampling.drop_relations)
    add_other = rng.random() < sampling.other
    present = list(dict.fromkeys(labels))
    dropped = {label for label in present if label != sampling.other_label and rng.random() < ratio}
    if len(dropped) == len(present):
        dropped.discard(rng.choice(present))
    rel_present = list(dict.fromkeys(label for _, _, label in kept or ()))
    rel_dropped = {label for label in rel_present if rng.random() < rel_ratio}
    active = [item for item in kept or () if item[2] not in rel_dropped]
    tied = {end for head, tail, _ in active for end in (head, tail)}
    varied: list[str | None] = []
    for position, label in enumerate(labels):
        stand_in = sampling.other_label if add_other and position in tied else None
        varied.append(stand_in if label in dropped else label)
    left = [item for item in active if varied[item[0]] is not None and varied[item[1]] is not None]
    return Varied(varied, None if kept is None else left, frozenset(dropped), frozenset(rel_dropped))


def sample_relation_labels(
    gold: Sequence[Sequence[Relation] | None],
    supervision: Sequence[Supervision],
    label_set: Sequence[str],
    sampling: LabelSampling,
    rng: random.Random,
    report: Counter[str] | None = None,
    dropped: Sequence[Collection[str]] | None = None,
) -> list[list[str]]:
    """Choose the relation labels that each example of a batch is asked for, in the manner of `sample_labels`.

    Parameters
    ----------
    gold
        Relations of each example; None where nothing is known about them.
    supervision
        What else is known about each example: ``rel_labels`` and ``rel_negatives`` are read.
    label_set
        The component's relation labels; may be empty.
    sampling
        Settings.
    rng
        The only source of chance.
    report
        Takes the number of labels that an example has and is not asked for.
    dropped
        For each example, labels that it must not be asked for.

    Returns
    -------
    list of list of str
        For each example its labels, none twice. Empty where nothing is known about its relations, so that it has
        nothing to learn from, and where no relation label is known at all.
    """
    known = [i for i, relations in enumerate(gold) if relations is not None]
    present = [[label for _, _, label in gold[i] or ()] for i in known]
    stated = [_as_entities(supervision[i]) for i in known]
    sampled = sample_labels(present, stated, label_set, sampling, rng, report)
    if not label_set and not any(present):
        # sample_labels invents a label then, which would be no relation.
        sampled = [
            labels if any(fields.values()) and not sampling.all_labels else []
            for labels, fields in zip(sampled, stated, strict=True)
        ]
    chosen: list[list[str]] = [[] for _ in gold]
    for i, labels in zip(known, sampled, strict=True):
        hidden = dropped[i] if dropped is not None else ()
        chosen[i] = [label for label in labels if label not in hidden]
    return chosen


def place_entities(
    entities: Sequence[tuple[int, int, str | None]], asked: Collection[str]
) -> tuple[list[tuple[int, int]], list[int | None]]:
    """Put entities in the order in which the model finds them.

    Parameters
    ----------
    entities
        First word, last word and label of each entity; the label is None where it is left out.
    asked
        Labels that the example is asked for.

    Returns
    -------
    tuple
        The spans that have a label which is asked for, each once, by first and last word; and for each entity its
        position among them, or None. Two labels of one span have one position.
    """
    spans = sorted({(start, end) for start, end, label in entities if label in asked})
    positions = {span: position for position, span in enumerate(spans)}
    places = [positions[start, end] if label in asked else None for start, end, label in entities]
    return spans, places


def pair_targets(
    relations: Iterable[Relation] | None,
    places: Sequence[int | None],
    asked: Sequence[str],
    sampling: RelationSampling,
    rng: random.Random,
    report: Counter[str] | None = None,
) -> list[PairTarget]:
    """Choose the pairs that an example is asked for: all with a relation that is asked for, and some without.

    Parameters
    ----------
    relations
        All that are known, counted in `places`, those that are not asked for included; None where nothing is known.
    places
        Position of each entity among those that the model has, from 0 on without gaps; see `place_entities`.
    asked
        Relation labels that the example is asked for.
    sampling
        Settings.
    rng
        The only source of chance.
    report
        Takes the number of relations that cannot be learned.

    Returns
    -------
    list of PairTarget
        Sorted by head and tail. Empty with fewer than two entities, or where nothing is known. A pair all of whose
        relations are not asked for is not among them: it is no example of a pair without relation.
    """
    if relations is None:
        return []
    columns = {label: column for column, label in enumerate(asked)}
    positives: dict[Pair, set[int]] = {}
    tied: set[Pair] = set()
    for head, tail, label in relations:
        pair = places[head], places[tail]
        if pair[0] is None or pair[1] is None:
            _count(report, "relation of an entity that is not asked for (left out)")
        elif pair[0] == pair[1]:
            _count(report, "relation of an entity with itself (left out)")
        else:
            tied.add((pair[0], pair[1]))
            if label in columns:
                positives.setdefault((pair[0], pair[1]), set()).add(columns[label])
    n_entities = 1 + max((place for place in places if place is not None), default=-1)
    negatives = sample_pairs(n_entities, positives, sampling, rng, unknown=tied - positives.keys())
    found = {pair: tuple(sorted(labels)) for pair, labels in positives.items()}
    return [PairTarget(*pair, found.get(pair, ())) for pair in sorted([*positives, *negatives])]


def sample_pairs(
    n_entities: int,
    positives: Collection[Pair],
    sampling: RelationSampling,
    rng: random.Random,
    unknown: Collection[Pair] = (),
) -> list[Pair]:
    """Choose pairs without relation.

    Parameters
    ----------
    n_entities
        Entities of the example.
    positives
        Pairs that have a relation.
    sampling
        Settings.
    rng
        The only source of chance.
    unknown
        Pairs that are neither.

    Returns
    -------
    list of tuple of int
        Ordered pairs of two different entities, none twice, in no order. Fewer than asked for where there are no more.
    """
    taken = {*positives, *unknown}
    target = max(1, int(len(positives) * rng.uniform(1, sampling.pair_ratio)))
    chosen: list[Pair] = []
    if sampling.reversed_pairs:
        turned = sorted((tail, head) for head, tail in positives)
        chosen = [pair for pair in turned if pair not in taken]
        taken.update(chosen)
    missing = target - len(chosen)
    total = n_entities * (n_entities - 1)
    if missing > 0 and total > 0:
        # At most as many of these as are taken can be taken, so that enough are left.
        drawn = rng.sample(range(total), min(total, missing + len(taken)))
        free = [pair for number in drawn if (pair := _pair(number, n_entities)) not in taken]
        chosen += free[:missing]
    return chosen


def _pair(number: int, n_entities: int) -> Pair:
    """The ordered pair of two different entities with this number."""
    head, tail = divmod(number, n_entities - 1)
    return head, tail + (tail >= head)


def _as_entities(fields: Supervision) -> Supervision:
    """What is stated about relation labels, under the names of entity labels."""
    return {"ner_labels": fields.get("rel_labels", []), "ner_negatives": fields.get("rel_negatives", [])}


def _count(report: Counter[str] | None, what: str) -> None:
    if report is not None:
        report[what] += 1


def _wrong(name: str, found: Any, allowed: str) -> ConfigError:
    return ConfigError(f"relation_sampling.{name}", f"is {found!r}", allowed)
