"""From spaCy examples to a training batch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from spacy.training import Example

from gliner_pipe.data.annotations import Supervision, gold_spans, supervision, trimmed
from gliner_pipe.data.fields import Relation
from gliner_pipe.data.label_sampling import LabelSampling, sample_labels
from gliner_pipe.data.relation_sampling import RelationSampling, vary
from gliner_pipe.errors import DataError
from gliner_pipe.modeling.backbones.base import Backbone
from gliner_pipe.modeling.backbones.windows import Window
from gliner_pipe.modeling.batch import Drawn, TrainingBatch
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.label_generation import BLANK_LABEL, bare_slots
from gliner_pipe.pipeline.gliner.collate_heads import (
    LOST,
    Placed,
    RelationTeaching,
    relation_labels,
    relation_targets,
    writing_targets,
)
from gliner_pipe.pipeline.word_splitters import ReadWords, Words, WordSplitter, read_words

TOO_WIDE = "entity wider than max_width"
UNALIGNED = "entity not on word borders"
ACROSS = "entity across a window border"
NO_PIECES = "entity of nothing but whitespace, or of words without pieces"
NO_SLOT = "label beyond prompt_slots"


class Mention(NamedTuple):
    """A gold entity: words `start` to `end` (inclusive)."""

    start: int
    end: int
    label: str


class Gold(NamedTuple):
    """Gold entities of an example, and relations counted in them; None where nothing is known about these."""

    mentions: list[Mention]
    relations: list[Relation] | None


class Asked(NamedTuple):
    """What the examples are asked for.

    Attributes
    ----------
    labels, relations
        Of each example.
    names
        For each entity of each example the one of these labels that it counts as; None where it is left out.
    """

    labels: list[list[str]]
    relations: list[list[str]]
    names: list[list[str | None]]

    def of(self, texts: Sequence[int]) -> Asked:
        """What some of the examples are asked for."""
        return Asked(
            [self.labels[i] for i in texts],
            [self.relations[i] for i in texts],
            [self.names[i] for i in texts],
        )


def count_pieces(backbone: Backbone, examples: Iterable[Example], splitter: WordSplitter) -> list[int]:
    """Pieces of the text of each example; those of prompts, and special ones, are not among them."""
    _, pieces = read_words(backbone, [splitter.split(example.reference) for example in examples])
    return [len(one.ids) for one in pieces]


def read_gold(
    example: Example, key: str, words: Words, read: ReadWords, dropped: Counter[str], relates: bool = False
) -> Gold:
    """Gold entities of an example in words that are read, and its relations; `dropped` counts what cannot be had."""
    spans = gold_spans(example.reference, key)
    found: list[Mention] = []
    places: list[int | None] = []
    for span, place in zip(spans, words.locate(spans), strict=True):
        within = None if place is None else read.within(*place)
        places.append(None if within is None else len(found))
        if within is None:
            dropped[UNALIGNED if place is None and trimmed(span) else NO_PIECES] += 1
        else:
            found.append(Mention(*within, span.label_))
    stated = supervision(example.reference).get("relations") if relates else None
    if stated is None:
        return Gold(found, None)
    relations = []
    for head, tail, label in stated:
        if not (0 <= head < len(places) and 0 <= tail < len(places)):
            raise _no_such_entity(example, key, [head, tail, label], len(places))
        ends = places[head], places[tail]
        if ends[0] is None or ends[1] is None:
            dropped[LOST] += 1
        else:
            relations.append((ends[0], ends[1], label))
    return Gold(found, relations)


@dataclass
class DrawnSpans(Drawn):
    """Examples with the labels that were drawn for them.

    Attributes
    ----------
    model
        Lays words out.
    texts
        Words of each text.
    gold
        What is right.
    asked
        What is asked.
    sampling
        How pairs without relation are drawn; None where no relations are learned.
    seeds
        One a text, for these.
    """

    model: GLiNER
    texts: Sequence[Sequence[str]]
    gold: Sequence[Gold]
    asked: Asked
    sampling: RelationSampling | None
    seeds: Sequence[float]

    def lay_out(self, texts: Sequence[int]) -> TrainingBatch:
        """Make the batch of some of the texts, on the CPU."""
        model, dropped = self.model, Counter[str]()
        windows = self.rows_of(texts)
        gold, words = [self.gold[i] for i in texts], [self.texts[i] for i in texts]
        asked = self.asked.of(texts)
        inputs = model.encoder.collate(windows)
        placed = _place(windows, gold, asked, model.max_width, dropped)
        targets = torch.tensor([one[:4] for one in placed], dtype=torch.long).view(-1, 4)
        relations = None
        if self.sampling is not None:
            known = [_known(one, names) for one, names in zip(gold, asked.names, strict=True)]
            chance = [random.Random(self.seeds[i]) for i in texts]
            rows = [window.text for window in windows]
            relations = relation_targets(placed, rows, known, asked.relations, self.sampling, chance, dropped)
        writing = None
        if model.label_generator is not None:
            mentions = [one.mentions for one in gold]
            writing = writing_targets(placed, model.label_generator.mode, windows, words, mentions)
        return TrainingBatch(
            inputs=inputs,
            gold=targets,
            n_words=sum(map(len, words)),
            n_pieces=int(inputs.windows.input_ids.numel()),
            count=model.span_rep.count(inputs),
            relations=relations,
            label_generation=writing,
            dropped=+dropped,
        )


def draw(
    model: GLiNER,
    examples: Sequence[Example],
    *,
    spans_key: str,
    splitter: WordSplitter,
    labels: Sequence[str],
    definitions: Mapping[str, str],
    sampling: LabelSampling,
    rng: random.Random,
    relations: RelationTeaching | None = None,
    prompt_slots: int = 8,
) -> DrawnSpans:
    """Sample labels for each example, and cut its words into windows.

    Parameters
    ----------
    model
        Cuts the windows.
    examples
        With gold entities in ``reference.spans[spans_key]``, or else ``reference.ents``.
    spans_key, splitter
        Where gold entities stand, and what the words are.
    labels
        The component's label set.
    definitions
        What the model reads for a label, where that is not its name.
    sampling
        How labels are drawn.
    rng
        All chance comes from here.
    relations
        What is taught about relations, if the model has a relation layer.
    prompt_slots
        Labels at most of an example, where the model reads none and writes all.

    Raises
    ------
    DataError
        If a relation names an entity that is not there.
    """
    relations = None if model.relation_layer is None else relations or RelationTeaching()
    dropped: Counter[str] = Counter()
    split = [splitter.split(example.reference) for example in examples]
    read, pieces = read_words(model.encoder.backbone, split, fill=True)
    gold = [
        read_gold(example, spans_key, words, some, dropped, relations is not None)
        for example, words, some in zip(examples, split, read, strict=True)
    ]
    stated = [supervision(example.reference) for example in examples]
    slots = bare_slots(model.label_generator, prompt_slots)
    if slots is None:
        blank = model.label_generator is not None and rng.random() < model.label_generator.blank_entity_prob
        asked = _ask(gold, stated, labels, sampling, rng, relations, blank, dropped)
        prompts = [tuple(definitions.get(label, label) for label in names) for names in asked.labels]
    else:
        asked = _fill_slots(gold, stated, sampling, rng, relations, len(slots), dropped)
        prompts = [slots] * len(gold)
    texts = [words.texts for words in read]
    read_relations = relations.definitions if relations is not None else {}
    queries = [
        Query(names, tuple(read_relations.get(label, label) for label in tied))
        for names, tied in zip(prompts, asked.relations, strict=True)
    ]
    windows = model.encoder.prepare(texts, queries, model.min_overlap, dropped, pieces)
    pairs = None if relations is None else relations.sampling
    seeds = [] if relations is None else [rng.random() for _ in texts]
    n_specials = model.encoder.backbone.n_specials
    return DrawnSpans(windows, len(texts), n_specials, +dropped, model, texts, gold, asked, pairs, seeds)


def _known(gold: Gold, names: Sequence[str | None]) -> list[Relation] | None:
    """Relations between entities that are not left out; None where nothing is known."""
    if gold.relations is None:
        return None
    return [tie for tie in gold.relations if names[tie[0]] is not None and names[tie[1]] is not None]


def _ask(
    gold: Sequence[Gold],
    stated: Sequence[Supervision],
    labels: Sequence[str],
    sampling: LabelSampling,
    rng: random.Random,
    relations: RelationTeaching | None,
    blank: bool,
    dropped: Counter[str],
) -> Asked:
    """Labels and relations that each example is asked for; with `blank`, for entities of any kind."""
    names: list[list[str | None]] = [[mention.label for mention in one.mentions] for one in gold]
    hidden: list[frozenset[str]] = [frozenset() for _ in gold]
    hidden_relations = list(hidden)
    for i, one in enumerate(gold):
        if relations is not None and one.relations is not None:
            varied = vary([mention.label for mention in one.mentions], one.relations, relations.sampling, rng)
            names[i] = varied.labels
            hidden[i], hidden_relations[i] = varied.dropped_labels, varied.dropped_relations
    if blank:
        chosen = [[BLANK_LABEL] for _ in gold]
        names = [[name and BLANK_LABEL for name in some] for some in names]
    else:
        present = [[name for name in some if name is not None] for some in names]
        sampled = sample_labels(present, stated, labels, sampling, rng, dropped)
        chosen = [
            [label for label in some if label not in out] for some, out in zip(sampled, hidden, strict=True)
        ]
    known = [one.relations for one in gold]
    tied = relation_labels(known, stated, relations, sampling, rng, dropped, hidden_relations)
    return Asked(chosen, tied, names)


def _fill_slots(
    gold: Sequence[Gold],
    stated: Sequence[Supervision],
    sampling: LabelSampling,
    rng: random.Random,
    relations: RelationTeaching | None,
    n_slots: int,
    dropped: Counter[str],
) -> Asked:
    """The labels of each example in the order in which the text names them: what slots without labels stand for."""
    slots = []
    for one in gold:
        found = list(dict.fromkeys(mention.label for mention in sorted(one.mentions)))
        dropped[NO_SLOT] += len(found[n_slots:])
        slots.append(found[:n_slots])
    tied = relation_labels(
        [one.relations for one in gold], stated, relations, sampling, rng, dropped, [()] * len(gold)
    )
    return Asked(slots, tied, [[mention.label for mention in one.mentions] for one in gold])


def _place(
    windows: Sequence[Window],
    gold: Sequence[Gold],
    asked: Asked,
    max_width: int | None,
    dropped: Counter[str],
) -> list[Placed]:
    """Gold spans that a window can hold, ordered by row."""
    places = [{label: index for index, label in enumerate(names)} for names in asked.labels]
    found = []
    for row, window in enumerate(windows):
        text = window.text
        for number, ((start, end, _), name) in enumerate(
            zip(gold[text].mentions, asked.names[text], strict=True)
        ):
            if name not in places[text] or not window.own_start <= start < window.own_stop:
                continue
            if max_width is not None and end - start >= max_width:
                dropped[TOO_WIDE] += 1
            elif end >= window.stop:
                dropped[ACROSS] += 1
            else:
                found.append(Placed(row, start - window.start, end - start, places[text][name], text, number))
    return found


def _no_such_entity(example: Example, key: str, relation: list[object], n_spans: int) -> DataError:
    source = supervision(example.reference).get("source")
    where = source or f"document starting with {example.reference.text[:40]!r}"
    return DataError(
        f"{where} (relations)",
        f"holds {relation} with {n_spans} entities in {key!r}",
        "positions of two entities, from 0 on",
        "Name the span group that relations count in: gold_spans_key",
    )
