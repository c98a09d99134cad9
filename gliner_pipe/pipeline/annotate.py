"""Writes entities and relations to a spaCy document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup

from gliner_pipe.data import relations
from gliner_pipe.data.annotations import install
from gliner_pipe.pipeline.word_splitters import Words

UNALIGNED = "entity does not align with token boundaries (alignment_mode)"
RELATION_UNALIGNED = "relation of an entity that does not align with token boundaries (alignment_mode)"
OVERLAPPED = "entity left out of doc.ents because it overlaps an existing one"


class Entity(NamedTuple):
    """An entity: words `start` to `end` (inclusive), label, score in [0, 1], and generated labels."""

    start: int
    end: int
    label: str
    score: float
    generated: tuple[str, ...] = ()


class Link(NamedTuple):
    """A relation between two entities, given by their positions in the list of entities; score in [0, 1]."""

    head: int
    tail: int
    label: str
    score: float


@dataclass
class Prediction:
    """Entities and relations of one document.

    Attributes
    ----------
    entities
        Ordered by start.
    relations
        Relations between the entities; None where none were requested.
    has_generated
        Whether labels were generated for the entities.
    words
        Words of the document, where they are available; otherwise it is split again.
    """

    entities: list[Entity]
    relations: list[Link] | None = None
    has_generated: bool = False
    words: Words | None = None


def install_extensions() -> None:
    """Register ``doc._.gliner_labels``, ``doc._.gliner_relations`` (labels for one document) and ``doc._.relations``.

    Existing extensions of these names are kept.
    """
    for name in ("gliner_labels", "gliner_relations"):
        install(Doc, name, default=None)
    relations.install_extension()


def align(
    doc: Doc, entities: Sequence[Entity], words: Words, mode: str, report: Counter[str]
) -> list[Span | None]:
    """Return the tokens of each entity; None, counted in `report`, for one that aligns with no tokens."""
    spans = [words.span(doc, entity.start, entity.end, entity.label, mode) for entity in entities]
    aligned = [span if span is not None and len(span) else None for span in spans]
    if missing := aligned.count(None):
        report[UNALIGNED] += missing
    return aligned


def set_group(doc: Doc, key: str, spans: Sequence[Span], scores: Sequence[float], **attrs: Any) -> None:
    """Write spans to ``doc.spans[key]``, with their scores in ``attrs["scores"]``."""
    group = SpanGroup(doc, name=key, spans=list(spans))
    group.attrs.update({"scores": np.array(scores, dtype=np.float32), **attrs})
    doc.spans[key] = group


def set_ents(
    doc: Doc, spans: Sequence[Span], scores: Sequence[float], overwrite: bool, report: Counter[str]
) -> None:
    """Write the best non-overlapping spans to ``doc.ents``.

    Existing entities stay and exclude spans that overlap them (counted in `report`); with `overwrite` an existing
    entity that overlaps a new one is removed.
    """
    existing = list(doc.ents)
    taken = np.zeros(len(doc), dtype=bool)
    if not overwrite:
        for ent in existing:
            taken[ent.start : ent.end] = True
    by_existing = taken.copy()
    kept: list[Span] = []
    for index in sorted(range(len(spans)), key=lambda i: -scores[i]):
        span = spans[index]
        if taken[span.start : span.end].any():
            report[OVERLAPPED] += int(by_existing[span.start : span.end].any())
            continue
        taken[span.start : span.end] = True
        kept.append(span)
    if overwrite:
        existing = [ent for ent in existing if not taken[ent.start : ent.end].any()]
    if kept or overwrite:
        doc.set_ents([*existing, *kept], default="outside")


def set_relations(
    doc: Doc, links: Sequence[Link], spans: Sequence[Span | None], report: Counter[str]
) -> None:
    """Write relations between entities to ``doc._.relations``; `spans` are the entities, None for unaligned ones."""
    found = []
    for link in links:
        head, tail = spans[link.head], spans[link.tail]
        if head is None or tail is None or (head.start, head.end) == (tail.start, tail.end):
            report[RELATION_UNALIGNED] += 1
        else:
            found.append(relations.Relation(head, tail, link.label, link.score))
    relations.set_relations(doc, found)
