"""Relations of a document: ``doc._.relations``, stored as plain data so that it survives every kind of saving."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from spacy.tokens import Doc, Span

from gliner_pipe.data.extensions import install
from gliner_pipe.errors import DataError

#: Where the relations of a document stand in ``doc.user_data``: a list of ``(head start, head end, head label,
#: tail start, tail end, tail label, label, score)``, in tokens, ends exclusive.
RELATIONS_KEY = "gliner_pipe.relations"

#: The attribute of ``doc._``.
EXTENSION = "relations"


class Relation(NamedTuple):
    """A relation: two entities, what ties the first to the second, and a score in [0, 1].

    Parameters
    ----------
    head
        The entity that the relation starts from, with its label.
    tail
        The entity that it leads to, with its label.
    label
        Of the relation.
    score
        Probability.
    """

    head: Span
    tail: Span
    label: str
    score: float


def install_extension() -> bool:
    """Register ``doc._.relations``, unless the name is taken.

    Call it as often as you like. A ``doc._.relations`` that someone else registered is left alone: `get_relations`
    and `set_relations` work all the same.

    Returns
    -------
    bool
        Whether ``doc._.relations`` is ours.
    """
    install(Doc, EXTENSION, getter=get_relations, setter=set_relations)
    found: tuple[Any, ...] = Doc.get_extension(EXTENSION)
    return found[2] is get_relations


def get_relations(doc: Doc) -> list[Relation]:
    """Return the relations of `doc`, in the order in which they were set; none when they never were.

    Raises
    ------
    DataError
        If `doc` is a part of the document that they were set on, or has other tokens by now.
    """
    found = []
    for stored in doc.user_data.get(RELATIONS_KEY, ()):
        head_start, head_end, head_label, tail_start, tail_end, tail_label, label, score = stored
        if max(head_end, tail_end) > len(doc):
            raise DataError(
                f"document starting with {doc.text[:40]!r}",
                f"has {len(doc)} tokens and a relation up to token {max(head_end, tail_end)}",
                "relations within the document",
                "They were set before it was cut or its tokens were merged: set them anew",
            )
        head = Span(doc, head_start, head_end, label=head_label)
        tail = Span(doc, tail_start, tail_end, label=tail_label)
        found.append(Relation(head, tail, label, score))
    return found


def set_relations(doc: Doc, items: Iterable[Relation] | None) -> None:
    """Store relations on `doc` instead of those that it has.

    Parameters
    ----------
    doc
        The document.
    items
        The relations, or anything with their four attributes; None removes all, as if they had never been set.

    Raises
    ------
    ValueError
        If an entity belongs to another document.
    """
    if items is None:
        doc.user_data.pop(RELATIONS_KEY, None)
        return
    stored = []
    for item in items:
        if item.head.doc is not doc or item.tail.doc is not doc:
            raise ValueError(
                f"set_relations() found the relation {item.label!r} of {item.head.text!r} and {item.tail.text!r}, "
                "which are no spans of this document; allowed: spans of this document. Make them by "
                "Span(doc, start, end, label=...)."
            )
        stored.append((*_plain(item.head), *_plain(item.tail), str(item.label), float(item.score)))
    doc.user_data[RELATIONS_KEY] = stored


def _plain(span: Span) -> tuple[int, int, str]:
    return span.start, span.end, span.label_
