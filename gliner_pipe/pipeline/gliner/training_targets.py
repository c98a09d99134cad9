"""Training targets besides entity spans: relations, and labels to be generated."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch

from gliner_pipe.data.fields import Relation
from gliner_pipe.data.relation_sampling import RelationSampling, pair_targets
from gliner_pipe.modeling.backbones.base import Window
from gliner_pipe.modeling.batch import LabelGenerationTargets, RelationTargets

NOT_TRAINED = "relation of an entity that is not a training target"
BETWEEN_WINDOWS = "relation between two windows"


@dataclass(frozen=True)
class TaughtRelations:
    """The relations to train on.

    Attributes
    ----------
    labels
        The component's relations.
    definitions
        Text that the model reads for a relation, where that is not its name.
    sampling
        How pairs are sampled.
    """

    labels: Sequence[str] = ()
    definitions: Mapping[str, str] = field(default_factory=dict)
    sampling: RelationSampling = field(default_factory=RelationSampling)


class Mention(NamedTuple):
    """A gold entity: words `start` to `end` (inclusive)."""

    start: int
    end: int
    label: str


class Placed(NamedTuple):
    """A gold span in a window: row, first word, width - 1, label; its text, and its position among the entities."""

    row: int
    first: int
    width: int
    label: int
    text: int
    number: int


def relation_targets(
    placed: Sequence[Placed],
    rows: Sequence[int],
    gold: Sequence[Sequence[Relation] | None],
    labels: Sequence[Sequence[str]],
    sampling: RelationSampling,
    rngs: Sequence[random.Random],
    dropped: Counter[str],
) -> RelationTargets | None:
    """Return the relation targets of a batch.

    Parameters
    ----------
    placed
        Gold spans within the windows.
    rows
        Text of each window.
    gold
        Relations of each text, between positions of its entities; None where the annotators stated none.
    labels
        Relation labels in the prompt of each text.
    sampling
        How pairs without a relation are sampled.
    rngs
        One generator per text, the only source of chance.
    dropped
        Counts relations that cannot be targets.

    Returns
    -------
    RelationTargets or None
        None where the relations of no text are known.
    """
    if all(relations is None for relations in gold):
        return None
    places = _places(placed, rows, gold)
    spans = torch.zeros(len(rows), max((len(of_row) for of_row, _ in places), default=0), 2, dtype=torch.long)
    span_mask = torch.zeros(spans.shape[:2], dtype=torch.bool)
    related: list[tuple[int, int, int, int]] = []
    pairs: list[tuple[int, int, int]] = []
    for row, (of_row, numbers) in enumerate(places):
        if of_row:
            spans[row, : len(of_row)] = torch.tensor(of_row)
            span_mask[row, : len(of_row)] = True
        relations, names = gold[rows[row]], labels[rows[row]]
        held = [one for one in relations or () if one[0] in numbers and one[1] in numbers]
        columns = {label: column for column, label in enumerate(names)}
        for head, tail, label in dict.fromkeys(held):
            ends = numbers[head], numbers[tail]
            if ends[0] != ends[1]:
                related.append((row, *ends, columns.get(label, -1)))
        if names:
            last = max(numbers, default=-1)
            by_number = [numbers.get(number) for number in range(last + 1)]
            found = pair_targets(held, by_number, names, sampling, rngs[rows[row]], dropped)
            pairs += [(row, pair.head, pair.tail) for pair in found]
    _count_dropped(placed, gold, dropped)
    return RelationTargets(
        spans,
        span_mask,
        torch.tensor(list(dict.fromkeys(related)), dtype=torch.long).view(-1, 4),
        torch.tensor(pairs, dtype=torch.long).view(-1, 3),
    )


def _places(
    placed: Sequence[Placed], rows: Sequence[int], gold: Sequence[Sequence[Relation] | None]
) -> list[tuple[list[tuple[int, int]], dict[int, int]]]:
    """Return for each row its distinct spans in order, and the index of each entity's span by entity number."""
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


def _count_dropped(
    placed: Sequence[Placed], gold: Sequence[Sequence[Relation] | None], dropped: Counter[str]
) -> None:
    row_of = {(one.text, one.number): one.row for one in placed}
    for text, relations in enumerate(gold):
        for head, tail, _ in relations or ():
            ends = row_of.get((text, head)), row_of.get((text, tail))
            if None in ends:
                dropped[NOT_TRAINED] += 1
            elif ends[0] != ends[1]:
                dropped[BETWEEN_WINDOWS] += 1


def generation_targets(
    placed: Sequence[Placed],
    mode: Literal["span", "prompt"],
    windows: Sequence[Window],
    texts: Sequence[Sequence[str]],
    mentions: Sequence[Sequence[Mention]],
) -> LabelGenerationTargets:
    """Return the labels to generate: each span, or each prompt slot of a window, with its gold label once.

    Parameters
    ----------
    placed
        Gold spans within the windows, ordered by row.
    mode
        Whether a label is generated for a span or for a prompt slot.
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
            start = windows[one.row].first
            words = tuple(texts[one.text][start + first : start + last + 1])
            found[one.row, first, last, label] = words
    spans = torch.tensor([key[:3] for key in found], dtype=torch.long).view(-1, 3)
    return LabelGenerationTargets(spans, tuple(found.values()), tuple(key[3] for key in found))
