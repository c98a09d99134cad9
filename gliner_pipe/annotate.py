"""Writes entities into a spaCy document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup

from gliner_pipe.word_splitters.base import WordSplitter

UNALIGNED = "entity not on token borders (alignment_mode)"
TAKEN = "entity kept out of doc.ents by one that was there before"


class Entity(NamedTuple):
    """An entity: words `start` to `end` (inclusive), its label, its score in [0, 1]."""

    start: int
    end: int
    label: str
    score: float


@dataclass
class Prediction:
    """What was found in one document.

    Attributes
    ----------
    entities
        Ordered by start.
    """

    entities: list[Entity]


def install_extensions() -> None:
    """Register ``doc._.gliner_labels``, the labels of one document, unless it is there."""
    if not Doc.has_extension("gliner_labels"):
        Doc.set_extension("gliner_labels", default=None)


def annotate(
    doc: Doc,
    prediction: Prediction,
    splitter: WordSplitter,
    settings: Mapping[str, Any],
    report: Counter[str],
) -> None:
    """Write entities to the span group of the settings and, if asked, to ``doc.ents``.

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
    words = splitter.split(doc)
    spans: list[Span] = []
    scores: list[float] = []
    for entity in prediction.entities:
        span = words.span(doc, entity.start, entity.end, entity.label, settings["alignment_mode"])
        if span is None or not len(span):
            report[UNALIGNED] += 1
            continue
        spans.append(span)
        scores.append(entity.score)
    group = SpanGroup(doc, name=settings["spans_key"], spans=spans)
    group.attrs["scores"] = np.array(scores, dtype=np.float32)
    doc.spans[settings["spans_key"]] = group
    if settings["annotate_ents"]:
        _set_ents(doc, spans, scores, settings["overwrite_ents"], report)


def _set_ents(
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
