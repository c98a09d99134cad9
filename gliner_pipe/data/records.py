"""Records of a document: ``doc._.records``, stored as plain data that survives all ways of saving a Doc."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias, cast

from spacy.tokens import Doc, Span

from gliner_pipe.data.stored_spans import check_document, install_attribute, stored_span

#: Key of the records in ``doc.user_data``: a list of ``(name, {field: value}, score, {field: scores})``. A value is
#: None, a choice, ``(start, end)`` in tokens, the end exclusive, or a list of choices or such pairs.
RECORDS_KEY = "gliner_pipe.records"

#: The attribute of ``doc._``.
EXTENSION = "records"

#: Value of a field: a span labelled with the name of the field, a choice, a list of these, or None.
Value: TypeAlias = Span | str | list[Span] | list[str] | None


class Record(NamedTuple):
    """A record: the values of its fields.

    Parameters
    ----------
    name
        Name of the kind of record.
    fields
        Value of each field, in the order of the fields: a span, or one of the field's choices, or None where there is
        none; for a field that takes several values, a list of spans or of choices.
    score
        Probability of the record: that of its best value.
    scores
        Probability of each value, in the form of `fields`; empty if they are not known.
    """

    name: str
    fields: dict[str, Value]
    score: float = 1.0
    scores: Mapping[str, float | list[float] | None] = {}


def install_extension() -> bool:
    """Register ``doc._.records`` unless the name is taken.

    Repeated calls have no effect. A ``doc._.records`` registered by other code is not changed: use `get_records` and
    `set_records` then.

    Returns
    -------
    bool
        Whether ``doc._.records`` is the extension of this module.
    """
    return install_attribute(EXTENSION, get_records, set_records)


def get_records(doc: Doc) -> list[Record]:
    """Return the records of `doc` in the order in which they were set; an empty list if they were never set.

    Raises
    ------
    DataError
        `doc` is a part of the document on which they were set, or its tokens have changed.
    """
    found = []
    for name, fields, score, *rest in doc.user_data.get(RECORDS_KEY, ()):
        values = {field: _value(doc, field, stored) for field, stored in fields.items()}
        scores = {field: _listed(value) for field, value in rest[0].items()} if rest else {}
        found.append(Record(name, values, score, scores))
    return found


def set_records(doc: Doc, items: Iterable[Any] | None) -> None:
    """Replace the records of `doc`.

    Parameters
    ----------
    doc
        The document.
    items
        The records, or any objects with their attributes; None removes them.

    Raises
    ------
    ValueError
        A span belongs to another document.
    """
    if items is None:
        doc.user_data.pop(RECORDS_KEY, None)
        return
    stored = []
    for item in items:
        for value in item.fields.values():
            spans = [one for one in _several(value) if isinstance(one, Span)]
            check_document(doc, spans, f"set_records() found a record {item.name!r} with values")
        fields = {str(field): _mapped(_plain, value) for field, value in item.fields.items()}
        scores = {str(field): _mapped(float, value) for field, value in item.scores.items()}
        stored.append((str(item.name), fields, float(item.score), scores))
    doc.user_data[RECORDS_KEY] = stored


def spans_of(record: Record) -> list[Span]:
    """Return all spans of a record, in the order of its fields."""
    return [one for value in record.fields.values() for one in _several(value) if isinstance(one, Span)]


def with_spans(record: Record, place: Callable[[Span], Span | None]) -> Record:
    """Return a record without scores whose spans are replaced; a span for which `place` returns None is left out."""

    def value(one: Value) -> Value:
        if isinstance(one, list):
            return [new for item in one if (new := value(item)) is not None]
        return place(one) if isinstance(one, Span) else one

    fields = {name: value(one) for name, one in record.fields.items()}
    return record._replace(fields=fields, scores={})


def with_values(record: Record, place: Callable[[Span], Any]) -> dict[str, Any]:
    """Return the values of a record by field, with ``place(span)`` in place of each span."""
    return {
        name: _mapped(lambda item: place(item) if isinstance(item, Span) else item, one)
        for name, one in record.fields.items()
    }


def _several(value: Any) -> Iterable[Any]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [function(one) for one in value]
    return None if value is None else function(value)


def _plain(value: Span | str) -> Any:
    return (value.start, value.end) if isinstance(value, Span) else str(value)


def _value(doc: Doc, field: str, stored: Any) -> Value:
    """Return a stored value; spaCy's files turn lists into tuples."""
    if stored is None or isinstance(stored, str):
        return stored
    if stored and isinstance(stored[0], int):
        start, end = stored
        return stored_span(doc, start, end, field, "record")
    return cast(
        list[Span] | list[str], [one if isinstance(one, str) else _value(doc, field, one) for one in stored]
    )


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
