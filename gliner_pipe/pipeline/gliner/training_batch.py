"""Turns spaCy examples into a training batch: gold annotations, sampled labels, windows, and span targets."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from spacy.training import Example

from gliner_pipe.data.annotations import Supervision, gold_spans, supervision, unknown_tokens
from gliner_pipe.data.fields import Relation
from gliner_pipe.data.label_sampling import LabelSampling, sample_labels
from gliner_pipe.data.relation_sampling import sample_relation_labels, vary
from gliner_pipe.data.task_sampling import TaskSampling
from gliner_pipe.errors import DataError
from gliner_pipe.modeling.backbones.base import Window
from gliner_pipe.modeling.batch import Drawn, TrainingBatch
from gliner_pipe.modeling.decoders.generative import BLANK_LABEL
from gliner_pipe.modeling.encoders.base import EncoderBatch, Query
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.span_reps.base import FoundSpans
from gliner_pipe.modeling.task_losses import field_spans
from gliner_pipe.pipeline.gliner.task_targets import (
    AskedTask,
    GoldTasks,
    TaughtTasks,
    read_tasks,
    reads_tasks,
    sample_tasks,
    task_targets,
)
from gliner_pipe.pipeline.gliner.training_targets import (
    NOT_TRAINED,
    Mention,
    Placed,
    TaughtRelations,
    generation_targets,
    relation_targets,
)
from gliner_pipe.pipeline.word_splitters import (
    ReadWords,
    Words,
    WordSplitter,
    locate_gold,
    read_words,
    words_of_tokens,
)

TOO_WIDE = "entity wider than max_width"
ACROSS_WINDOWS = "entity across a window boundary"
NO_SLOT = "label beyond prompt_slots"


#: Gold tasks of a text for a model without tasks.
NO_TASKS = GoldTasks()


class Gold(NamedTuple):
    """Gold entities, relations between their positions (None where none are stated), unknown words, and tasks.

    Words are unknown where nobody annotated entities: they are in no target.
    """

    mentions: list[Mention]
    relations: list[Relation] | None
    unknown: Sequence[int] = ()
    tasks: GoldTasks = NO_TASKS


class Prompts(NamedTuple):
    """Labels in the prompt of each example.

    Attributes
    ----------
    labels, relations
        Entity and relation labels of each example.
    names
        For each entity of each example, its label in the prompt; None where the entity is left out.
    tasks
        Tasks of each example.
    """

    labels: list[list[str]]
    relations: list[list[str]]
    names: list[list[str | None]]
    tasks: list[list[AskedTask]]

    def of(self, texts: Sequence[int]) -> Prompts:
        """Return the prompts of some of the examples."""
        return Prompts(
            [self.labels[i] for i in texts],
            [self.relations[i] for i in texts],
            [self.names[i] for i in texts],
            [self.tasks[i] for i in texts],
        )


@dataclass
class DrawnSpans(Drawn):
    """Examples with the labels sampled for them.

    Attributes
    ----------
    model
        Pads windows.
    texts
        Words of each text.
    gold
        Gold annotations of each text.
    prompts
        Labels in the prompt of each text.
    relations
        How pairs without a relation are sampled; None for a model without a relation layer.
    seeds
        One seed per text for that sampling.
    """

    model: GLiNER
    texts: Sequence[Sequence[str]]
    gold: Sequence[Gold]
    prompts: Prompts
    relations: TaughtRelations | None
    seeds: Sequence[float]

    def lay_out(self, texts: Sequence[int]) -> TrainingBatch:
        """Return the batch of some of the texts, on the CPU."""
        model, dropped = self.model, Counter[str]()
        windows = self.rows_of(texts)
        gold, words = [self.gold[i] for i in texts], [self.texts[i] for i in texts]
        prompts = self.prompts.of(texts)
        inputs = model.encoder.collate(windows)
        tasks = task_targets(
            windows, inputs, [one.tasks for one in gold], prompts.tasks, words, model, dropped
        )
        outside = inputs.windows.unknown
        inputs = _without_unknown(inputs, windows, gold)
        placed = _place(windows, gold, prompts, model.max_width, dropped)
        targets = torch.tensor([one[:4] for one in placed], dtype=torch.long).view(-1, 4)
        relations = None
        if self.relations is not None:
            known = [_known(one, names) for one, names in zip(gold, prompts.names, strict=True)]
            rngs = [random.Random(self.seeds[i]) for i in texts]
            rows = [window.text for window in windows]
            sampling = self.relations.sampling
            relations = relation_targets(placed, rows, known, prompts.relations, sampling, rngs, dropped)
        generated = None
        if model.label_generator is not None:
            mentions = [one.mentions for one in gold]
            generated = generation_targets(placed, model.label_generator.mode, windows, words, mentions)
        batch = TrainingBatch(
            inputs=inputs,
            gold=targets,
            n_words=sum(map(len, words)),
            n_pieces=int(inputs.windows.input_ids.numel()),
            count=model.span_rep.count(inputs),
            relations=relations,
            label_generation=generated,
            tasks=tasks,
            dropped=+dropped,
            outside=outside,
        )
        return _count_not_proposed(model, batch)


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
    relations: TaughtRelations | None = None,
    tasks: TaughtTasks | None = None,
    prompt_slots: int = 8,
) -> DrawnSpans:
    """Sample labels for each example, and split its words into windows.

    Parameters
    ----------
    model
        The blocks, with weights.
    examples
        Examples with gold entities in ``reference.spans[spans_key]``, or else ``reference.ents``.
    spans_key, splitter
        Span group of the gold entities, and the word splitter.
    labels
        The component's label set.
    definitions
        Text that the model reads for a label, where that is not its name; its description, if the model reads both.
    sampling
        How labels are sampled.
    rng
        The only source of chance.
    relations
        The relations to train on; used only if the model finds relations.
    tasks
        The classifications and records to train on; used only if the model reads tasks.
    prompt_slots
        Maximum number of labels of an example, for a model whose prompt holds no labels.

    Raises
    ------
    DataError
        If a relation refers to an entity that does not exist.
    """
    taught = (tasks or TaughtTasks()) if reads_tasks(model) else None
    related = relations or TaughtRelations()
    relations = None if model.relation_layer is None else related
    dropped: Counter[str] = Counter()
    split = [splitter.split(example.reference) for example in examples]
    read, pieces = read_words(model.encoder.backbone, split, fill=True)
    gold = [
        _read_gold(example, spans_key, words, some, dropped, relations is not None)._replace(
            tasks=NO_TASKS
            if taught is None
            else read_tasks(model, example.reference, spans_key, taught, words, some, dropped)
        )
        for example, words, some in zip(examples, split, read, strict=True)
    ]
    stated = [supervision(example.reference) for example in examples]
    generator = model.label_generator
    slots = None if generator is None else generator.bare_prompt(prompt_slots)
    if slots is None:
        blank = generator is not None and rng.random() < generator.blank_entity_prob
        prompts = _sample_prompts(gold, stated, labels, sampling, rng, relations, blank, dropped)
        if taught is not None:
            prompts = _with_tasks(prompts, gold, stated, sampling, related, taught, rng, dropped)
        read_labels = [tuple(definitions.get(label, label) for label in names) for names in prompts.labels]
    else:
        prompts = _fill_slots(gold, stated, sampling, rng, relations, len(slots), dropped)
        read_labels = [slots] * len(gold)
    texts = [words.texts for words in read]
    read_relations = relations.definitions if relations is not None else {}
    queries = [
        Query(
            entities,
            tuple(read_relations.get(label, label) for label in some),
            tuple(one.task for one in asked),
        )
        for entities, some, asked in zip(read_labels, prompts.relations, prompts.tasks, strict=True)
    ]
    if model.encoder.reads_descriptions:
        dropping = TaskSampling() if taught is None else taught.sampling
        described = zip(queries, prompts.labels, stated, strict=True)
        queries = [
            _described(query, names, one, definitions, dropping, rng) for query, names, one in described
        ]
    windows = model.encoder.prepare(texts, queries, model.min_overlap, dropped, pieces, training=True)
    seeds = [] if relations is None else [rng.random() for _ in texts]
    n_specials = model.encoder.backbone.n_specials
    return DrawnSpans(
        windows, len(texts), n_specials, +dropped, model, texts, gold, prompts, relations, seeds
    )


def _read_gold(
    example: Example, key: str, words: Words, read: ReadWords, dropped: Counter[str], relates: bool
) -> Gold:
    """Return gold entities of an example in words that the model reads, and its relations if `relates`.

    `dropped` counts entities that align with no words, and their relations.
    """
    spans = gold_spans(example.reference, key)
    found: list[Mention] = []
    places: list[int | None] = []
    for span, within in zip(spans, locate_gold(spans, words, read, dropped), strict=True):
        places.append(None if within is None else len(found))
        if within is not None:
            found.append(Mention(*within, span.label_))
    doc = example.reference
    missing = unknown_tokens(doc, key)
    unknown = () if missing is None else words_of_tokens(missing, doc, words, read)
    stated = supervision(doc).get("relations") if relates else None
    if stated is None:
        return Gold(found, None, unknown)
    relations = []
    for head, tail, label in stated:
        if not (0 <= head < len(places) and 0 <= tail < len(places)):
            raise _no_such_entity(example, key, [head, tail, label], len(places))
        ends = places[head], places[tail]
        if ends[0] is None or ends[1] is None:
            dropped[NOT_TRAINED] += 1
        else:
            relations.append((ends[0], ends[1], label))
    return Gold(found, relations, unknown)


def _without_unknown(inputs: EncoderBatch, windows: Sequence[Window], gold: Sequence[Gold]) -> EncoderBatch:
    """Mark the words that nobody annotated."""
    if not any(one.unknown for one in gold):
        return inputs
    outside = inputs.windows.unknown
    unknown = torch.zeros_like(inputs.windows.word_mask) if outside is None else outside.clone()
    for row, window in enumerate(windows):
        inside = [
            word - window.first for word in gold[window.text].unknown if window.start <= word < window.stop
        ]
        unknown[row, inside] = True
    return replace(inputs, windows=replace(inputs.windows, unknown=unknown))


def _count_not_proposed(model: GLiNER, batch: TrainingBatch) -> TrainingBatch:
    """Count the gold spans that are more than the span representation can propose; they are taught all the same."""
    if not model.span_rep.teaches_fields:
        return batch
    fields = field_spans(batch.tasks, batch.inputs, batch.outside).gold
    shift = torch.tensor([0, 0, 0, batch.inputs.label_mask.shape[1]])
    rows, starts, widths, labels = torch.cat([batch.gold, fields + shift]).unbind(1)
    spans = FoundSpans(rows, starts, starts + widths, labels, starts)
    number, options = model.span_rep.not_proposed(batch.inputs.windows.word_mask.shape[1], spans)
    batch.dropped.update(
        {f"beyond the spans that are proposed in a window ({options})": number} if number else {}
    )
    return batch


def _no_such_entity(example: Example, key: str, relation: list[object], n_spans: int) -> DataError:
    source = supervision(example.reference).get("source")
    where = source or f"document starting with {example.reference.text[:40]!r}"
    return DataError(
        f"{where} (relations)",
        f"holds {relation} with {n_spans} entities in {key!r}",
        "positions of two entities, from 0 on",
        "Name the span group that relations refer to: gold_spans_key",
    )


def _known(gold: Gold, names: Sequence[str | None]) -> list[Relation] | None:
    """Return relations between entities that are not left out; None where no relations are stated."""
    if gold.relations is None:
        return None
    return [one for one in gold.relations if names[one[0]] is not None and names[one[1]] is not None]


def _sample_prompts(
    gold: Sequence[Gold],
    stated: Sequence[Supervision],
    labels: Sequence[str],
    sampling: LabelSampling,
    rng: random.Random,
    relations: TaughtRelations | None,
    blank: bool,
    dropped: Counter[str],
) -> Prompts:
    """Sample entity and relation labels of each example; with `blank`, one label that stands for any entity."""
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
    related = _relation_labels(gold, stated, relations, sampling, rng, dropped, hidden_relations)
    return Prompts(chosen, related, names, [[] for _ in gold])


def _with_tasks(
    prompts: Prompts,
    gold: Sequence[Gold],
    stated: Sequence[Supervision],
    sampling: LabelSampling,
    relations: TaughtRelations,
    taught: TaughtTasks,
    rng: random.Random,
    dropped: Counter[str],
) -> Prompts:
    """Add the tasks of each example; one in which nobody looked for entities has no entity labels then."""
    known = [
        None if one.tasks.relations is None else [(0, 0, instance.name) for instance in one.tasks.relations]
        for one in gold
    ]
    related = sample_relation_labels(known, stated, relations.labels, sampling, rng, dropped)
    labels, tasks = [], []
    for names, one, about, some in zip(prompts.labels, gold, stated, related, strict=True):
        annotated = about.get("entities_annotated", True)
        asked = sample_tasks(one.tasks, about, some, relations.definitions, taught, annotated, rng)
        labels.append(names if annotated or not asked else [])
        tasks.append(asked)
    return prompts._replace(labels=labels, tasks=tasks)


def _described(
    query: Query,
    names: Sequence[str],
    stated: Supervision,
    definitions: Mapping[str, str],
    sampling: TaskSampling,
    rng: random.Random,
) -> Query:
    """Return a query with the names of its labels, and their descriptions apart or left out."""
    known = {**definitions, **stated.get("ner_descriptions", {})}
    texts = tuple(text if (text := known.get(name)) != name else None for name in names)
    hides, drops = rng.random() < sampling.hide_names, rng.random() < sampling.drop_descriptions
    if names and all(texts) and hides:
        shown = tuple(f"entity {number}" for number in range(1, len(names) + 1))
        return query._replace(entities=shown, descriptions=texts)
    return query._replace(entities=tuple(names), descriptions=() if drops or not any(texts) else texts)


def _fill_slots(
    gold: Sequence[Gold],
    stated: Sequence[Supervision],
    sampling: LabelSampling,
    rng: random.Random,
    relations: TaughtRelations | None,
    n_slots: int,
    dropped: Counter[str],
) -> Prompts:
    """Assign the labels of each example to prompt slots, in the order of their first entity in the text."""
    slots = []
    for one in gold:
        found = list(dict.fromkeys(mention.label for mention in sorted(one.mentions)))
        dropped[NO_SLOT] += len(found[n_slots:])
        slots.append(found[:n_slots])
    hidden: list[frozenset[str]] = [frozenset() for _ in gold]
    related = _relation_labels(gold, stated, relations, sampling, rng, dropped, hidden)
    names: list[list[str | None]] = [[mention.label for mention in one.mentions] for one in gold]
    return Prompts(slots, related, names, [[] for _ in gold])


def _relation_labels(
    gold: Sequence[Gold],
    stated: Sequence[Supervision],
    relations: TaughtRelations | None,
    sampling: LabelSampling,
    rng: random.Random,
    dropped: Counter[str],
    hidden: Sequence[frozenset[str]],
) -> list[list[str]]:
    if relations is None:
        return [[] for _ in gold]
    known = [one.relations for one in gold]
    return sample_relation_labels(known, stated, relations.labels, sampling, rng, dropped, hidden)


def _place(
    windows: Sequence[Window],
    gold: Sequence[Gold],
    prompts: Prompts,
    max_width: int | None,
    dropped: Counter[str],
) -> list[Placed]:
    """Return the gold spans that fit into a window, ordered by row."""
    places = [{label: index for index, label in enumerate(names)} for names in prompts.labels]
    found = []
    for row, window in enumerate(windows):
        text = window.text
        entities = zip(gold[text].mentions, prompts.names[text], strict=True)
        for number, ((start, end, _), name) in enumerate(entities):
            if name not in places[text] or not window.own_start <= start < window.own_stop:
                continue
            if max_width is not None and end - start >= max_width:
                dropped[TOO_WIDE] += 1
            elif end >= window.stop:
                dropped[ACROSS_WINDOWS] += 1
            else:
                found.append(Placed(row, start - window.first, end - start, places[text][name], text, number))
    return found
