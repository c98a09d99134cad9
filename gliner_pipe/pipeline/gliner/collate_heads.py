"""What a training batch teaches besides entities: relations, and labels to be written."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch

from gliner_pipe.data.annotations import Supervision
from gliner_pipe.data.fields import Relation
from gliner_pipe.data.label_sampling import LabelSampling
from gliner_pipe.data.relation_sampling import RelationSampling, pair_targets, sample_relation_labels
from gliner_pipe.modeling.backbones.windows import Window
from gliner_pipe.modeling.batch import LabelGenerationTargets, RelationTargets

LOST = "relation of an entity that is not learned"
APART = "relation between two windows"


@dataclass(frozen=True)
class RelationTeaching:
    """What is taught about relations.

    Attributes
    ----------
    labels
        The component's relations.
    definitions
        What the model reads for a relation, where that is not its name.
    sampling
        How pairs are drawn.
    """

    labels: Sequence[str] = ()
    definitions: Mapping[str, str] = field(default_factory=dict)
    sampling: RelationSampling = field(default_factory=RelationSampling)


class Placed(NamedTuple):
    """A gold span in a window: row, first word, width - 1, label; its text, and its number among the entities."""

    row: int
    first: int
    width: int
    label: int
    text: int
    number: int


class HasLabel(Protocol):
    """An entity."""

    @property
    def label(self) -> str:
        """Its label."""


def relation_labels(
    gold: Sequence[Sequence[Relation] | None],
    stated: Sequence[Supervision],
    teaching: RelationTeaching | None,
    sampling: LabelSampling,
    rng: random.Random,
    dropped: Counter[str],
    hidden: Sequence[Collection[str]],
) -> list[list[str]]:
    """Relations that each example is asked for; none where nothing is known about them, or nothing is taught."""
    if teaching is None:
        return [[] for _ in gold]
    return sample_relation_labels(gold, stated, teaching.labels, sampling, rng, dropped, hidden)


def relation_targets(
    placed: Sequence[Placed],
    rows: Sequence[int],
    gold: Sequence[Sequence[Relation] | None],
    asked: Sequence[Sequence[str]],
    sampling: RelationSampling,
    rngs: Sequence[random.Random],
    dropped: Counter[str],
) -> RelationTargets | None:
    """Lay relations out.

    Parameters
    ----------
    placed
        Gold spans that the windows hold.
    rows
        Text of each window.
    gold
        Relations of each text, counted in its entities; None where nothing is known.
    asked
        Relation labels that each text is asked for.
    sampling
        How pairs without relation are drawn.
    rngs
        All chance comes from here, that of each text from one of its own.
    dropped
        Counts relations that cannot be learned.

    Returns
    -------
    RelationTargets or None
        None where nothing is known about the relations of any text.
    """
    if all(relations is None for relations in gold):
        return None
    places = _places(placed, rows, gold)
    spans = torch.zeros(len(rows), max((len(of_row) for of_row, _ in places), default=0), 2, dtype=torch.long)
    span_mask = torch.zeros(spans.shape[:2], dtype=torch.bool)
    ties: list[tuple[int, int, int, int]] = []
    pairs: list[tuple[int, int, int]] = []
    for row, (of_row, numbers) in enumerate(places):
        if of_row:
            spans[row, : len(of_row)] = torch.tensor(of_row)
            span_mask[row, : len(of_row)] = True
        relations, labels = gold[rows[row]], asked[rows[row]]
        held = [one for one in relations or () if one[0] in numbers and one[1] in numbers]
        columns = {label: column for column, label in enumerate(labels)}
        for head, tail, label in dict.fromkeys(held):
            ends = numbers[head], numbers[tail]
            if ends[0] != ends[1]:
                ties.append((row, *ends, columns.get(label, -1)))
        if labels:
            last = max(numbers, default=-1)
            by_number = [numbers.get(number) for number in range(last + 1)]
            found = pair_targets(held, by_number, labels, sampling, rngs[rows[row]], dropped)
            pairs += [(row, pair.head, pair.tail) for pair in found]
    _count_lost(placed, gold, dropped)
    return RelationTargets(
        spans,
        span_mask,
        torch.tensor(list(dict.fromkeys(ties)), dtype=torch.long).view(-1, 4),
        torch.tensor(pairs, dtype=torch.long).view(-1, 3),
    )


def _places(
    placed: Sequence[Placed], rows: Sequence[int], gold: Sequence[Sequence[Relation] | None]
) -> list[tuple[list[tuple[int, int]], dict[int, int]]]:
    """For each row its distinct spans, in order, and the place among them of each entity by its number."""
    by_row: list[list[Placed]] = [[] for _ in rows]
    for one in placed:
        if gold[one.text] is not None:
            by_row[one.row].append(one)
    found = []
    for some in by_row:
        spans = sorted({(one.first, one.first + one.width) for one in some})
        index = {span: place for place, span in enumerate(spans)}
        found.append((spans, {one.number: index[one.first, one.first + one.width] for one in some}))
    return found


def _count_lost(
    placed: Sequence[Placed], gold: Sequence[Sequence[Relation] | None], dropped: Counter[str]
) -> None:
    row_of = {(one.text, one.number): one.row for one in placed}
    for text, relations in enumerate(gold):
        for head, tail, _ in relations or ():
            ends = row_of.get((text, head)), row_of.get((text, tail))
            if None in ends:
                dropped[LOST] += 1
            elif ends[0] != ends[1]:
                dropped[APART] += 1


def writing_targets(
    placed: Sequence[Placed],
    mode: Literal["span", "prompt"],
    windows: Sequence[Window],
    texts: Sequence[Sequence[str]],
    mentions: Sequence[Sequence[HasLabel]],
) -> LabelGenerationTargets:
    """Lay out the labels that are to be written: each span, or each slot of a window, with its gold label once.

    Parameters
    ----------
    placed
        Gold spans that the windows hold, ordered by row.
    mode
        What a label is written for.
    windows
        The rows.
    texts
        Words of each text.
    mentions
        Gold entities of each text.
    """
    found: dict[tuple[int, int, int, str], tuple[str, ...]] = {}
    for one in placed:
        label = mentions[one.text][one.number].label
        if mode == "prompt":
            found[one.row, one.label, one.label, label] = ()
        else:
            first, last = one.first, one.first + one.width
            start = windows[one.row].start
            words = tuple(texts[one.text][start + first : start + last + 1])
            found[one.row, first, last, label] = words
    spans = torch.tensor([key[:3] for key in found], dtype=torch.long).view(-1, 3)
    return LabelGenerationTargets(spans, tuple(found.values()), tuple(key[3] for key in found))
