"""Prediction of the component ``gliner``: from prepared windows to entities, relations and generated labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from gliner_pipe.modeling.backbones.base import Window
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.inference import SpanPredictions, TokenBudget, predict_spans
from gliner_pipe.modeling.relations import find_relations
from gliner_pipe.pipeline.annotate import Entity, Link, Prediction
from gliner_pipe.pipeline.labels import LabelItem, RelationItem
from gliner_pipe.pipeline.word_splitters import ReadWords, Words


class Request(NamedTuple):
    """The words of a document, its labels and relations, the prompt, and the minimum score for each."""

    words: Words
    labels: tuple[LabelItem, ...]
    relations: tuple[RelationItem, ...]
    query: Query
    limits: list[float]
    relation_limits: list[float]


class Prepared(NamedTuple):
    """Requests for several documents, the words that the model reads, their windows, and counts of what was cut."""

    requests: list[Request]
    read: list[ReadWords]
    windows: list[Window]
    report: Counter[str]


def predict(
    model: GLiNER, prepared: Prepared, settings: Mapping[str, Any], budget: TokenBudget
) -> list[Prediction]:
    """Return entities and relations of prepared documents, in words of the documents.

    Parameters
    ----------
    model
        The blocks, with weights, in evaluation mode.
    prepared
        Windows of the documents, which are run together.
    settings
        Settings of the component.
    budget
        Number of subword tokens run at once.
    """
    requests, read = prepared.requests, prepared.read
    found = predict_spans(model, prepared.windows, [request.limits for request in requests], budget)
    flat, multi_label = settings["flat_ner"], settings["multi_label"]
    kept = [model.decoder.decode(one.candidates, flat=flat, multi_label=multi_label) for one in found]
    generated = _generate(model, found, kept, read, settings)
    rows = zip(found, kept, generated, requests, read, strict=True)
    return [_prediction(model, *row, settings) for row in rows]


def _generate(
    model: GLiNER,
    found: Sequence[SpanPredictions],
    kept: Sequence[Sequence[Candidate]],
    read: Sequence[ReadWords],
    settings: Mapping[str, Any],
) -> list[list[tuple[str, ...]]]:
    """Return the labels generated for each entity of each document: for its span, or its slot in its window's prompt.

    Entities that share a span or a slot share the vector, so each vector is generated from once.
    """
    generator = model.label_generator
    if generator is None:
        return [[() for _ in entities] for entities in kept]
    by_span = generator.mode == "span"
    vectors: list[torch.Tensor] = []
    contexts: list[list[str]] = []
    rows: list[list[int]] = []  # for each entity of each document, its row of `vectors`
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
            key = (number, place if by_span else entity.label)
            if key not in known:
                known[key] = len(vectors)
                vectors.append((window.vectors if by_span else window.labels)[key[1]])
                contexts.append(words.texts[entity.start : entity.end + 1])
            rows[-1].append(known[key])
    if not vectors:
        return [[] for _ in kept]
    constraints, n_sequences = settings["generate_constraints"], settings["n_sequences"]
    labels = generator.generate(torch.stack(vectors), contexts, constraints, n_sequences)
    return [[tuple(labels[row]) for row in of_one] for of_one in rows]


def _prediction(
    model: GLiNER,
    found: SpanPredictions,
    kept: Sequence[Candidate],
    generated: Sequence[tuple[str, ...]],
    request: Request,
    read: ReadWords,
    settings: Mapping[str, Any],
) -> Prediction:
    generator = model.label_generator
    use_generated = generator is not None and (generator.mode == "prompt" or settings["use_generated_labels"])
    entities = []
    for (start, end, index, score), labels in zip(kept, generated, strict=True):
        label = labels[0] if use_generated and labels and labels[0] else request.labels[index].label
        entities.append(Entity(read.number(start), read.number(end), label, score, labels))
    links = _links(model, found, kept, request, settings) if request.relations else None
    return Prediction(entities, links, has_generated=generator is not None, words=request.words)


def _links(
    model: GLiNER,
    found: SpanPredictions,
    kept: Sequence[Candidate],
    request: Request,
    settings: Mapping[str, Any],
) -> list[Link]:
    """Return relations between kept entities; of several labels on one span, the first that the relation allows."""
    positions: dict[tuple[int, int], list[int]] = {}
    for position, candidate in enumerate(kept):
        positions.setdefault((candidate.start, candidate.end), []).append(position)
    pairs = find_relations(
        model,
        found.windows,
        request.relation_limits,
        settings["adjacency_threshold"],
        settings["relation_reach"],
    )
    links = []
    for pair in pairs:
        item = request.relations[pair.label]
        ends = []
        for span, allowed in ((pair.head, item.head), (pair.tail, item.tail)):
            names = ((place, request.labels[kept[place].label].label) for place in positions.get(span, ()))
            ends.append(next((place for place, name in names if allowed is None or name in allowed), None))
        head, tail = ends
        if head is not None and tail is not None:
            links.append(Link(head, tail, item.label, pair.score))
    return links
