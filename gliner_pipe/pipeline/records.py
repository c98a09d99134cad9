"""Entities and relations of a document as plain records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from spacy.tokens import Doc

from gliner_pipe.data.relations import RELATIONS_KEY, get_relations
from gliner_pipe.metrics.alignment import SpanGetter, get_spans

if TYPE_CHECKING:
    from typing_extensions import NotRequired


class Entity(TypedDict):
    """One entity; `start` and `end` are character offsets, and `score` is None if the pipeline sets none.

    `generated_labels` is set if a label generator is used, best label first; `class_scores`, the scores of all labels,
    if the component has that setting.
    """

    start: int
    end: int
    label: str
    score: float | None
    text: str
    generated_labels: NotRequired[list[str]]
    class_scores: NotRequired[dict[str, float]]


def entities_of(doc: Doc, span_getter: SpanGetter) -> list[Entity]:
    """Return the entities of a document, sorted by start, the longer first.

    Parameters
    ----------
    doc
        A document with predictions.
    span_getter
        Where its spans are stored: the key of a span group, ``"ents"`` or a list of them.

    Returns
    -------
    list[Entity]
        Each span and label once, with the score that its span group holds.
    """
    scores, generated = _attributes(doc, "scores"), _attributes(doc, "generated_labels")
    classes = _attributes(doc, "class_scores")
    found: dict[tuple[int, int, str], Entity] = {}
    for span in get_spans(doc, span_getter):
        key = (span.start_char, span.end_char, span.label_)
        score = round(float(scores[key]), 6) if key in scores else None
        found[key] = Entity(start=key[0], end=key[1], label=key[2], score=score, text=span.text)
        if key in generated:
            found[key]["generated_labels"] = list(generated[key])
        if key in classes:
            found[key]["class_scores"] = {label: round(value, 6) for label, value in classes[key].items()}
    return sorted(found.values(), key=lambda entity: (entity["start"], -entity["end"], entity["label"]))


class RelationRecord(NamedTuple):
    """One relation; `head` and `tail` are positions in the list of entities."""

    head: int
    tail: int
    label: str
    score: float


def relations_of(doc: Doc, entities: Sequence[Entity]) -> list[RelationRecord] | None:
    """Return the relations of a document, sorted by head and tail.

    Parameters
    ----------
    doc
        A document with predictions.
    entities
        Its entities, as returned by `entities_of`. Relations between other entities are left out.

    Returns
    -------
    list of RelationRecord or None
        None if the pipeline predicts no relations.
    """
    if RELATIONS_KEY not in doc.user_data:
        return None
    places = {(e["start"], e["end"], e["label"]): place for place, e in enumerate(entities)}
    found = []
    for relation in get_relations(doc):
        head, tail = (
            places.get((span.start_char, span.end_char, span.label_))
            for span in (relation.head, relation.tail)
        )
        if head is not None and tail is not None:
            found.append(RelationRecord(head, tail, relation.label, round(float(relation.score), 6)))
    return sorted(found)


class RelationDict(TypedDict):
    """One relation with its entities."""

    head: Entity
    tail: Entity
    relation: str
    score: float


def relation_dicts(doc: Doc, entities: Sequence[Entity]) -> list[RelationDict]:
    """Return the relations of a document with their entities; parameters as for `relations_of`."""
    return [
        RelationDict(head=entities[one.head], tail=entities[one.tail], relation=one.label, score=one.score)
        for one in relations_of(doc, entities) or ()
    ]


def _attributes(doc: Doc, name: str) -> dict[tuple[int, int, str], Any]:
    """Return the values that span groups hold for their spans, by offsets and label."""
    found: dict[tuple[int, int, str], Any] = {}
    for group in doc.spans.values():
        values: Any = group.attrs.get(name)
        if values is not None and len(values) == len(group):
            for span, value in zip(group, values, strict=True):
                found[span.start_char, span.end_char, span.label_] = value
    return found
