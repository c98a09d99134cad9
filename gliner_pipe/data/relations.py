"""Relations of a document: ``doc._.relations``, stored as plain data that survives all ways of saving a Doc."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from spacy.tokens import Doc, Span

from gliner_pipe.data.annotations import SpanSetter, gold_spans, supervision
from gliner_pipe.data.stored_spans import check_document, install_attribute, stored_span

#: Key of the relations in ``doc.user_data``: a list of ``(head start, head end, head label,
#: tail start, tail end, tail label, label, score)``, in tokens, ends exclusive.
RELATIONS_KEY = "gliner_pipe.relations"

#: The attribute of ``doc._``.
EXTENSION = "relations"


class Relation(NamedTuple):
    """A relation between two entities, with a score in [0, 1].

    Parameters
    ----------
    head
        First entity, with its label.
    tail
        Second entity, with its label.
    label
        Label of the relation.
    score
        Probability of the relation.
    """

    head: Span
    tail: Span
    label: str
    score: float


def install_extension() -> bool:
    """Register ``doc._.relations`` unless the name is taken.

    Repeated calls have no effect. A ``doc._.relations`` registered by other code is not changed: use `get_relations`
    and `set_relations` then.

    Returns
    -------
    bool
        Whether ``doc._.relations`` is the extension of this module.
    """
    return install_attribute(EXTENSION, get_relations, set_relations)


def get_relations(doc: Doc) -> list[Relation]:
    """Return the relations of `doc` in the order in which they were set; an empty list if they were never set.

    Raises
    ------
    DataError
        `doc` is a part of the document on which they were set, or its tokens have changed.
    """
    found = []
    for stored in doc.user_data.get(RELATIONS_KEY, ()):
        head_start, head_end, head_label, tail_start, tail_end, tail_label, label, score = stored
        head = stored_span(doc, head_start, head_end, head_label, "relation")
        tail = stored_span(doc, tail_start, tail_end, tail_label, "relation")
        found.append(Relation(head, tail, label, score))
    return found


def set_relations(doc: Doc, items: Iterable[Relation] | None) -> None:
    """Replace the relations of `doc`.

    Parameters
    ----------
    doc
        The document.
    items
        The relations, or any objects with their four attributes; None removes them.

    Raises
    ------
    ValueError
        An entity belongs to another document.
    """
    if items is None:
        doc.user_data.pop(RELATIONS_KEY, None)
        return
    stored = []
    for item in items:
        check_document(doc, [item.head, item.tail], f"set_relations() found the relation {item.label!r}")
        stored.append((*_plain(item.head), *_plain(item.tail), str(item.label), float(item.score)))
    doc.user_data[RELATIONS_KEY] = stored


def has_relations(doc: Doc) -> bool:
    """Return whether the relations of `doc` are annotated; an empty list is an annotation."""
    return not {"relations", "links"}.isdisjoint(supervision(doc))


def gold_links(doc: Doc, key: SpanSetter) -> list[Relation] | None:
    """Return the gold relations of `doc` if some have ends that are no entities; None if they have not.

    An end has the label of the entity of the same tokens, or is labelled ``head`` or ``tail``.

    Parameters
    ----------
    doc
        A reference document.
    key
        Where its gold entities are stored.
    """
    links = supervision(doc).get("links")
    if links is None:
        return None
    labels: dict[tuple[int, int], str] = {}
    for span in gold_spans(doc, key):
        labels.setdefault((span.start, span.end), span.label_)

    def end(start: int, stop: int, other: str) -> Span:
        return Span(doc, start, stop, label=labels.get((start, stop), other))

    return [Relation(end(a, b, "head"), end(c, d, "tail"), label, 1.0) for a, b, c, d, label in links]


def _plain(span: Span) -> tuple[int, int, str]:
    return span.start, span.end, span.label_
