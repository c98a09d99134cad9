"""From documents to predictions: what the component does when it is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from spacy.tokens import Doc

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.windows import Window
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.inference import SpanPredictions, predict_spans
from gliner_pipe.modeling.label_generation import BLANK_LABEL, bare_slots
from gliner_pipe.modeling.relations import find_relations
from gliner_pipe.pipeline import annotate
from gliner_pipe.pipeline.annotate import Entity, Link, Prediction
from gliner_pipe.pipeline.labels import LabelItem, RelationItem
from gliner_pipe.pipeline.word_splitters import ReadWords, Words, WordSplitter, read_words

if TYPE_CHECKING:
    from gliner_pipe.pipeline.gliner.component import Gliner


class Asked(NamedTuple):
    """What one document is asked for: its words, labels and relations, what the model reads for these, thresholds."""

    words: Words
    labels: tuple[LabelItem, ...]
    relations: tuple[RelationItem, ...]
    query: Query
    limits: list[float]


class Prepared(NamedTuple):
    """What several documents are asked for, the words that are read, their windows, and what was cut off."""

    asked: list[Asked]
    read: list[ReadWords]
    windows: list[Window]
    report: Counter[str]


def prepare(component: Gliner, docs: Sequence[Doc]) -> Prepared:
    """Cut documents into windows.

    Parameters
    ----------
    component
        With weights.
    docs
        Left as they are.

    Raises
    ------
    ConfigError
        If the component is asked for what its model cannot do.
    """
    annotate.install_extensions()  # a spawned process has none
    _check(component)
    slots = bare_slots(component.gliner.label_generator, component.cfg["prompt_slots"])
    splitter = component.word_splitter
    questions: dict[Any, tuple[Query, list[float]]] = {}
    asked = [_ask(component, doc, splitter, slots, questions) for doc in docs]
    model, report = component.gliner, Counter[str]()
    with component.placed():
        read, pieces = read_words(model.encoder.backbone, [one.words for one in asked])
        texts, queries = [words.texts for words in read], [one.query for one in asked]
        windows = model.encoder.prepare(texts, queries, model.min_overlap, report, pieces)
    return Prepared(asked, read, windows, report)


def run(component: Gliner, prepared: Prepared) -> list[Prediction]:
    """Find what prepared documents are asked for, all at once.

    Returns
    -------
    list of Prediction
        In words of the documents.
    """
    model = component.gliner
    asked, read, windows, report = prepared
    found = predict_spans(model, windows, [one.limits for one in asked], component.token_budget)
    component.add_to_report(report)
    flat, multi_label = component.cfg["flat_ner"], component.cfg["multi_label"]
    kept = [model.decoder.decode(one.candidates, flat=flat, multi_label=multi_label) for one in found]
    generated = _write(component, found, kept, read)
    return [_prediction(component, *parts) for parts in zip(found, kept, generated, asked, read, strict=True)]


def _check(component: Gliner) -> None:
    if component.gliner.label_generator is not None:
        return
    for name in ("use_generated_labels", "generate_constraints", "n_sequences"):
        if component.cfg[name]:
            raise ConfigError(
                f"components.{component.name}.{name}",
                f"found {component.cfg[name]!r} with a model whose decoder writes no labels",
                "false" if name == "use_generated_labels" else "null",
                'Take @decoders = "generative"',
            )


def _ask(
    component: Gliner,
    doc: Doc,
    splitter: WordSplitter,
    slots: tuple[str, ...] | None,
    known: dict[Any, tuple[Query, list[float]]],
) -> Asked:
    labels = component.labels_of(doc) if slots is None else (LabelItem(BLANK_LABEL),) * len(slots)
    relations = component.relations_of(doc) if labels else ()
    words = splitter.split(doc) if labels else Words([])
    # the labels of the component may be very many, and are one object; those of a document are told by what they say
    key = (id(labels) if labels is component.label_items else labels, relations)
    if key not in known:
        read = tuple(item.text for item in labels) if slots is None else slots
        query = Query(read, tuple(item.text for item in relations))
        known[key] = query, [component.limit(item) for item in labels]
    return Asked(words, labels, relations, *known[key])


def _write(
    component: Gliner,
    found: Sequence[SpanPredictions],
    kept: Sequence[Sequence[Candidate]],
    read: Sequence[ReadWords],
) -> list[list[tuple[str, ...]]]:
    """Labels written for each entity of each document: for its span, or for its slot in the window it stands in."""
    writer = component.gliner.label_generator
    if writer is None:
        return [[() for _ in entities] for entities in kept]
    vectors: list[torch.Tensor] = []
    contexts: list[list[str]] = []
    rows: list[list[int]] = []  # of each entity, which vector is its
    for one, entities, words in zip(found, kept, read, strict=True):
        places: dict[tuple[int, int], tuple[int, int]] = {}
        for number, window in enumerate(one.windows):
            for place, (start, end) in enumerate(window.spans.tolist()):
                places.setdefault((start, end), (number, place))
        known: dict[tuple[int, int], int] = {}
        rows.append([])
        for entity in entities:
            number, place = places[entity.start, entity.end]
            window = one.windows[number]
            key = (number, place if writer.mode == "span" else entity.label)
            if key not in known:
                known[key] = len(vectors)
                vectors.append((window.vectors if writer.mode == "span" else window.labels)[key[1]])
                contexts.append(words.texts[entity.start : entity.end + 1])
            rows[-1].append(known[key])
    if not vectors:
        return [[] for _ in kept]
    constraints, n_sequences = component.cfg["generate_constraints"], component.cfg["n_sequences"]
    labels = writer.generate(torch.stack(vectors), contexts, constraints, n_sequences)
    return [[tuple(labels[row]) for row in of_one] for of_one in rows]


def _prediction(
    component: Gliner,
    found: SpanPredictions,
    kept: Sequence[Candidate],
    generated: Sequence[tuple[str, ...]],
    asked: Asked,
    read: ReadWords,
) -> Prediction:
    writer = component.gliner.label_generator
    named = writer is not None and (writer.mode == "prompt" or component.cfg["use_generated_labels"])
    entities = []
    for (start, end, index, score), written in zip(kept, generated, strict=True):
        label = asked.labels[index].label
        if named and written and written[0]:
            label = written[0]
        entities.append(Entity(read.number(start), read.number(end), label, score, written))
    links = _links(component, found, kept, asked) if asked.relations else None
    return Prediction(entities, links, writes=writer is not None, words=asked.words)


def _links(component: Gliner, found: SpanPredictions, kept: Sequence[Candidate], asked: Asked) -> list[Link]:
    """Relations between entities that were kept; of several labels of a span, the first that fits counts."""
    positions: dict[tuple[int, int], list[int]] = {}
    for position, candidate in enumerate(kept):
        positions.setdefault((candidate.start, candidate.end), []).append(position)
    limits = [component.limit(item) for item in asked.relations]
    settings = component.cfg
    ties = find_relations(
        component.gliner, found.windows, limits, settings["adjacency_threshold"], settings["relation_reach"]
    )
    links = []
    for tie in ties:
        item = asked.relations[tie.label]
        ends = []
        for span, types in ((tie.head, item.head), (tie.tail, item.tail)):
            names = ((place, asked.labels[kept[place].label].label) for place in positions.get(span, ()))
            ends.append(next((place for place, name in names if types is None or name in types), None))
        head, tail = ends
        if head is not None and tail is not None:
            links.append(Link(head, tail, item.label, tie.score))
    return links


def compress_prompt(component: Gliner, docs: Sequence[Doc]) -> None:
    """Replace the prompt of a uni-encoder by the mean of its label vectors over documents; see ``UniEncoder``."""
    encoder = component.gliner.encoder
    where = f"components.{component.name}.model.encoder"
    if not isinstance(encoder, UniEncoder):
        raise ConfigError(where, f"found {type(encoder).__name__}, which has no prompt", "uni_encoder")
    query = Query(
        tuple(item.text for item in component.label_items),
        tuple(item.text for item in component.relation_items) if component.finds_relations else (),
    )
    if not query.entities:
        raise ConfigError(f"components.{component.name}.labels", "is empty", "the labels to be kept")
    read, _ = read_words(encoder.backbone, [component.word_splitter.split(doc) for doc in docs])
    texts = [words.texts for words in read if words.texts]
    if not texts:
        raise ValueError("compress_prompt() found no text; give some hundred documents like those to come.")
    encoder.compress(texts, query)
