"""Samples the candidate relation labels and the entity pairs of training examples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from gliner_pipe.data.annotations import Supervision
from gliner_pipe.data.fields import Relation
from gliner_pipe.data.label_sampling import LabelSampling, sample_labels
from gliner_pipe.util.ranges import Number, Share

#: Head and tail as indices of entities.
Pair = tuple[int, int]


def _sorted(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("two shares, the lower first")
    return bounds


#: The lowest and the highest share.
Shares = Annotated[tuple[Share, Share], AfterValidator(_sorted)]


@dataclass(frozen=True, eq=False)
class RelationSampling:
    """How the entity pairs of a training example are sampled, and how examples are augmented.

    Relation labels are sampled by a `LabelSampling`, like entity labels.

    Parameters
    ----------
    pair_ratio
        Negative pairs (without relation) for each positive pair: a number between 1 and `pair_ratio` is drawn
        uniformly, and the product rounded down, at least 1. Reversed pairs count, and are all
        taken even if there are more.
    reversed_pairs
        Use each positive pair in reverse as a negative pair, unless it has a relation in that direction too. This
        teaches the direction of relations.
    vary
        Share of examples that are augmented by dropping some entity labels and relation labels.
    drop_entities
        Lowest and highest share of entity labels to drop from an augmented example; at least one label is kept.
    drop_relations
        Lowest and highest share of relation labels to drop from an augmented example.
    other
        Share of augmented examples in which related entities with a dropped label get the label `other_label`, so that
        the relation is kept.
    other_label
        That label, which is never dropped.

    Notes
    -----
    The defaults are those of GLiNER (``augment_data_prob``, ``augment_ent_drop_prob``, ``augment_rel_drop_prob``,
    ``augment_add_other_prob``).
    """

    pair_ratio: Annotated[Number, Field(ge=1)] = 10.0
    reversed_pairs: bool = True
    vary: Share = 0.5
    drop_entities: Shares = (0.0, 1.0)
    drop_relations: Shares = (0.0, 0.3)
    other: Share = 0.5
    other_label: Annotated[str, Field(min_length=1)] = "other"


class Varied(NamedTuple):
    """The labels of an example after augmentation; entities keep their positions.

    Parameters
    ----------
    labels
        Label of each entity; None if the entity is left out.
    relations
        Remaining relations between remaining entities.
    dropped_labels
        Entity labels that must not be candidates, because entities with them are left out.
    dropped_relations
        Relation labels that must not be candidates.
    """

    labels: list[str | None]
    relations: list[Relation] | None
    dropped_labels: frozenset[str] = frozenset()
    dropped_relations: frozenset[str] = frozenset()


class PairTarget(NamedTuple):
    """A pair of entities, and the indices of its relations among the candidate labels; none for a negative pair."""

    head: int
    tail: int
    relations: tuple[int, ...]


def vary(
    labels: Sequence[str],
    relations: Sequence[Relation] | None,
    sampling: RelationSampling,
    rng: random.Random,
) -> Varied:
    """Drop some labels of an example at random, so that the model learns to read the candidate labels.

    Parameters
    ----------
    labels
        Label of each entity.
    relations
        Head, tail and label; indices into `labels`. None if relations are not annotated.
    sampling
        Settings.
    rng
        Source of randomness.

    Returns
    -------
    Varied
        The example, augmented or not.
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
    related = {end for head, tail, _ in active for end in (head, tail)}
    varied: list[str | None] = []
    for position, label in enumerate(labels):
        stand_in = sampling.other_label if add_other and position in related else None
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
    """Sample the candidate relation labels of each example of a batch, like `sample_labels`.

    Parameters
    ----------
    gold
        Relations of each example; None if they are not annotated.
    supervision
        Other annotations of each example: ``rel_labels`` and ``rel_negatives`` are read.
    label_set
        Relation labels of the component; may be empty.
    sampling
        Settings.
    rng
        Source of randomness.
    report
        Receives the number of labels left out of examples with more than ``max_types``.
    dropped
        For each example, labels that must not be candidates.

    Returns
    -------
    list of list of str
        Labels of each example, without duplicates. Empty if its relations are not annotated, or if no relation label
        is known at all.
    """
    known = [i for i, relations in enumerate(gold) if relations is not None]
    present = [[label for _, _, label in gold[i] or ()] for i in known]
    stated = [_as_entities(supervision[i]) for i in known]
    sampled = sample_labels(present, stated, label_set, sampling, rng, report)
    if not label_set and not any(present):
        # sample_labels would use LAST_RESORT, which is no relation.
        sampled = [
            labels if any(fields.values()) and not sampling.all_labels else []
            for labels, fields in zip(sampled, stated, strict=True)
        ]
    chosen: list[list[str]] = [[] for _ in gold]
    for i, labels in zip(known, sampled, strict=True):
        hidden = dropped[i] if dropped is not None else ()
        chosen[i] = [label for label in labels if label not in hidden]
    return chosen


def pair_targets(
    relations: Iterable[Relation] | None,
    places: Sequence[int | None],
    candidates: Sequence[str],
    sampling: RelationSampling,
    rng: random.Random,
    report: Counter[str] | None = None,
) -> list[PairTarget]:
    """Sample the entity pairs of an example: all pairs with a candidate relation, and some without relation.

    Parameters
    ----------
    relations
        All annotated relations, indices into `places`; None if relations are not annotated.
    places
        Index of each entity among those of the model, from 0 on without gaps; None for one that is left out.
    candidates
        Candidate relation labels of the example.
    sampling
        Settings.
    rng
        Source of randomness.
    report
        Receives the number of relations that cannot be learned.

    Returns
    -------
    list of PairTarget
        Sorted by head and tail. Empty if there are fewer than two entities or no annotated relations. A pair whose
        relations are all no candidates is left out: it is no example of a pair without relation.
    """
    if relations is None:
        return []
    report = Counter() if report is None else report
    columns = {label: column for column, label in enumerate(candidates)}
    positives: dict[Pair, set[int]] = {}
    related: set[Pair] = set()
    for head, tail, label in relations:
        pair = places[head], places[tail]
        if pair[0] is None or pair[1] is None:
            report["relation of an entity whose label is no candidate (left out)"] += 1
        elif pair[0] == pair[1]:
            report["relation of an entity with itself (left out)"] += 1
        else:
            related.add((pair[0], pair[1]))
            if label in columns:
                positives.setdefault((pair[0], pair[1]), set()).add(columns[label])
    n_entities = 1 + max((place for place in places if place is not None), default=-1)
    negatives = sample_pairs(n_entities, positives, sampling, rng, unknown=related - positives.keys())
    found = {pair: tuple(sorted(labels)) for pair, labels in positives.items()}
    return [PairTarget(*pair, found.get(pair, ())) for pair in sorted([*positives, *negatives])]


def sample_pairs(
    n_entities: int,
    positives: Collection[Pair],
    sampling: RelationSampling,
    rng: random.Random,
    unknown: Collection[Pair] = (),
) -> list[Pair]:
    """Sample negative pairs, which have no relation.

    Parameters
    ----------
    n_entities
        Number of entities of the example.
    positives
        Pairs with a relation.
    sampling
        Settings.
    rng
        Source of randomness.
    unknown
        Pairs that are neither positive nor negative.

    Returns
    -------
    list of tuple of int
        Distinct ordered pairs of two different entities, in no order; fewer than drawn if there are no more.
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
        # At most len(taken) of the drawn pairs are taken, so enough are left.
        drawn = rng.sample(range(total), min(total, missing + len(taken)))
        free = [pair for number in drawn if (pair := _pair(number, n_entities)) not in taken]
        chosen += free[:missing]
    return chosen


def _pair(number: int, n_entities: int) -> Pair:
    """Return the ordered pair of two different entities with an index below n * (n - 1)."""
    head, tail = divmod(number, n_entities - 1)
    return head, tail + (tail >= head)


def _as_entities(fields: Supervision) -> Supervision:
    """Return the annotations of relation labels under the names of entity labels."""
    return {"ner_labels": fields.get("rel_labels", []), "ner_negatives": fields.get("rel_negatives", [])}
