"""Entities, relations, classes and records of a document as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from spacy.tokens import Doc, Span

from gliner_pipe.data.classes import CLASSES_KEY, get_classes
from gliner_pipe.data.records import RECORDS_KEY, get_records, with_values
from gliner_pipe.data.relations import RELATIONS_KEY, Relation, get_relations
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
        head, tail = places.get(_key(relation.head)), places.get(_key(relation.tail))
        if head is not None and tail is not None:
            found.append(RelationRecord(head, tail, relation.label, _rounded(relation.score)))
    return sorted(found)


#: Fields of `task_fields`: the classes of the text with the scores of all labels, records with their scores, and all
#: relations with their scores where some have an end that is no entity.
TASK_FIELDS = ("classes", "cats", "records", "record_scores", "links", "link_scores")


def task_fields(doc: Doc, entities: Sequence[Entity]) -> dict[str, Any]:
    """Return what was predicted besides entities and relations between them, as fields of JSON that ``jsonl`` reads.

    Parameters
    ----------
    doc
        A document with predictions.
    entities
        Its entities, as returned by `entities_of`.

    Returns
    -------
    dict
        Fields of `TASK_FIELDS`, each only if the pipeline predicts it. Places are characters, the end exclusive.
    """
    fields: dict[str, Any] = {}
    if CLASSES_KEY in doc.user_data:
        fields["classes"] = {task: label for task, label in get_classes(doc).items() if label is not None}
        fields["cats"] = {key: _rounded(score) for key, score in doc.cats.items()}
    if RECORDS_KEY in doc.user_data:
        items: dict[str, list[Any]] = {}
        scores: dict[str, list[float]] = {}
        for one in get_records(doc):
            items.setdefault(one.name, []).append(with_values(one, _place))
            scores.setdefault(one.name, []).append(_rounded(one.score))
        fields |= {"records": items, "record_scores": scores}
    if other_relations(doc, entities):
        found = get_relations(doc)
        fields["links"] = [[*_place(one.head), *_place(one.tail), one.label] for one in found]
        fields["link_scores"] = [_rounded(one.score) for one in found]
    return fields


def other_relations(doc: Doc, entities: Sequence[Entity]) -> list[Relation]:
    """Return the relations of a document with an end that is none of the `entities`."""
    if RELATIONS_KEY not in doc.user_data:
        return []
    known = {(one["start"], one["end"], one["label"]) for one in entities}
    return [one for one in get_relations(doc) if not {_key(one.head), _key(one.tail)} <= known]


def _key(span: Span) -> tuple[int, int, str]:
    return span.start_char, span.end_char, span.label_


def _place(span: Span) -> list[int]:
    return [span.start_char, span.end_char]


def _rounded(score: float) -> float:
    return round(float(score), 6)


class RelationDict(TypedDict):
    """One relation with its entities."""

    head: Entity
    tail: Entity
    relation: str
    score: float


def relation_dicts(doc: Doc, entities: Sequence[Entity]) -> list[RelationDict]:
    """Return the relations of a document with their entities; parameters as for `relations_of`.

    Relations with an end that is no entity come last; that end has the label ``head`` or ``tail`` and no score.
    """
    between = [
        RelationDict(head=entities[one.head], tail=entities[one.tail], relation=one.label, score=one.score)
        for one in relations_of(doc, entities) or ()
    ]
    known = {(one["start"], one["end"], one["label"]): one for one in entities}

    def end(span: Span) -> Entity:
        start, stop, label = _key(span)
        other = Entity(start=start, end=stop, label=label, score=None, text=span.text)
        return known.get((start, stop, label), other)

    return between + [
        RelationDict(head=end(one.head), tail=end(one.tail), relation=one.label, score=_rounded(one.score))
        for one in other_relations(doc, entities)
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
