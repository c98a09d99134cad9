"""Writes entities and relations into a spaCy document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup

from gliner_pipe.data import relations
from gliner_pipe.data.annotations import install
from gliner_pipe.pipeline.word_splitters import Words, WordSplitter

UNALIGNED = "entity not on token borders (alignment_mode)"
UNTIED = "relation of an entity not on token borders (alignment_mode)"
TAKEN = "entity kept out of doc.ents by one that was there before"


class Entity(NamedTuple):
    """An entity: words `start` to `end` (inclusive), its label, its score in [0, 1], labels written for it."""

    start: int
    end: int
    label: str
    score: float
    generated: tuple[str, ...] = ()


class Link(NamedTuple):
    """A relation between two entities, given by their positions among the entities; its score in [0, 1]."""

    head: int
    tail: int
    label: str
    score: float


@dataclass
class Prediction:
    """What was found in one document.

    Attributes
    ----------
    entities
        Ordered by start.
    relations
        Between entities; None where none was asked for.
    writes
        Whether labels were written for the entities.
    words
        Of the document, where they are at hand; else it is split anew.
    """

    entities: list[Entity]
    relations: list[Link] | None = None
    writes: bool = False
    words: Words | None = None


def install_extensions() -> None:
    """Register ``doc._.gliner_labels`` and ``doc._.gliner_relations``, what one document is asked for, and
    ``doc._.relations``, what was found; each unless it is there.
    """
    for name in ("gliner_labels", "gliner_relations"):
        install(Doc, name, default=None)
    relations.install_extension()


def annotate(
    doc: Doc,
    prediction: Prediction,
    splitter: WordSplitter,
    settings: Mapping[str, Any],
    report: Counter[str],
) -> None:
    """Write entities to the span group of the settings and, if asked, to ``doc.ents``; relations where asked for.

    Parameters
    ----------
    doc
        Changed in place.
    prediction
        In words.
    splitter
        What the words are.
    settings
        Of the component.
    report
        Counts what could not be written.
    """
    words = prediction.words
    if words is None:
        words = splitter.split(doc) if prediction.entities else Words([])
    spans: list[Span] = []
    scores: list[float] = []
    generated: list[list[str]] = []
    aligned: list[Span | None] = []
    for entity in prediction.entities:
        span = words.span(doc, entity.start, entity.end, entity.label, settings["alignment_mode"])
        if span is None or not len(span):
            report[UNALIGNED] += 1
            aligned.append(None)
            continue
        aligned.append(span)
        spans.append(span)
        scores.append(entity.score)
        generated.append(list(entity.generated))
    group = SpanGroup(doc, name=settings["spans_key"], spans=spans)
    group.attrs["scores"] = np.array(scores, dtype=np.float32)
    if prediction.writes:
        group.attrs["generated_labels"] = generated
    doc.spans[settings["spans_key"]] = group
    if prediction.relations is not None:
        _set_relations(doc, prediction.relations, aligned, report)
    if settings["annotate_ents"]:
        set_ents(doc, spans, scores, settings["overwrite_ents"], report)


def _set_relations(
    doc: Doc, links: Sequence[Link], spans: Sequence[Span | None], report: Counter[str]
) -> None:
    """Write relations between spans; `spans` are those of the entities, None where one is not aligned."""
    found = []
    for link in links:
        head, tail = spans[link.head], spans[link.tail]
        if head is None or tail is None or (head.start, head.end) == (tail.start, tail.end):
            report[UNTIED] += 1
        else:
            found.append(relations.Relation(head, tail, link.label, link.score))
    relations.set_relations(doc, found)


def set_ents(
    doc: Doc, spans: Sequence[Span], scores: Sequence[float], overwrite: bool, report: Counter[str]
) -> None:
    """The best spans that do not overlap go to ``doc.ents``.

    Entities that stand there already keep their place, or with `overwrite` give way where they overlap a new
    one.
    """
    before = list(doc.ents)
    taken = np.zeros(len(doc), dtype=bool)
    if not overwrite:
        for ent in before:
            taken[ent.start : ent.end] = True
    held = taken.copy()
    kept: list[Span] = []
    for index in sorted(range(len(spans)), key=lambda i: -scores[i]):
        span = spans[index]
        if taken[span.start : span.end].any():
            report[TAKEN] += int(held[span.start : span.end].any())
            continue
        taken[span.start : span.end] = True
        kept.append(span)
    if overwrite:
        before = [ent for ent in before if not taken[ent.start : ent.end].any()]
    if kept or overwrite:
        doc.set_ents([*before, *kept], default="outside")
