"""Annotations of a Doc: entities in span groups, everything else in ``doc.user_data`` and in extensions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import filter_spans

from gliner_pipe.errors import ConfigError
from gliner_pipe.util.thread_lock import Lock

#: Key of the supervision in ``doc.user_data``.
USER_DATA_KEY = "gliner_pipe"

#: Default span group of entities, gold and predicted.
DEFAULT_SPANS_KEY = "gliner"

#: Where entities are stored: a span group, ``"ents"``, ``"*"`` (a group for each label), several of these, or a
#: mapping from these to the labels stored there (``True`` for all).
SpanSetter = str | list[str] | dict[str, bool | str | list[str]]


_lock = Lock()


class Supervision(TypedDict, total=False):
    """Annotations of a document besides its entities; every field is optional and plain JSON.

    ``ner_labels`` is the complete set of entity labels that the annotators looked for: a label of this set without an
    entity is truly absent. ``ner_negatives`` are labels known to be absent. ``relations`` has items ``[head, tail,
    label]``, where head and tail are indices into the span group of entities. ``adds_labels`` is False for a document
    whose labels are other names, which do not become labels of a component. ``source`` is file name and line.

    ``entities_annotated`` is False for a document in which nobody looked for entities. ``ner_descriptions`` and
    ``rel_descriptions`` are what labels and relations mean in this document. ``links`` are all relations, ``[head
    start, head end, tail start, tail end, label]`` in tokens, the ends exclusive, where some have an end that is no
    entity. ``classes`` holds the annotated tasks of classification (see :mod:`gliner_pipe.data.gold_classes`), and
    ``records`` the kinds of records that the annotators looked for, with their ``fields``. ``all_occurrences`` is
    True if ends of relations and values of records were given by their text: each of its occurrences is right.
    """

    id: str
    source: str
    ner_labels: list[str]
    ner_negatives: list[str]
    adds_labels: bool
    relations: list[list[Any]]
    rel_labels: list[str]
    rel_negatives: list[str]
    entities_annotated: bool
    ner_descriptions: dict[str, str]
    rel_descriptions: dict[str, str]
    links: list[list[Any]]
    classes: dict[str, dict[str, Any]]
    records: dict[str, dict[str, Any]]
    all_occurrences: bool


def supervision(doc: Doc) -> Supervision:
    """Return the supervision stored on `doc`; an empty mapping if there is none."""
    stored: Supervision = doc.user_data.get(USER_DATA_KEY, {})
    if any(isinstance(value, (tuple, dict)) for value in stored.values()):
        stored = _listed(stored)  # spaCy's files turn lists into tuples
    return stored.copy()


def set_supervision(doc: Doc, **fields: Any) -> None:
    """Store fields of :class:`Supervision` on `doc`; other fields are not changed.

    Parameters
    ----------
    doc
        The document.
    fields
        Fields by name; ``None`` removes one.

    Raises
    ------
    TypeError
        Unknown field.
    """
    unknown = [name for name in fields if name not in Supervision.__annotations__]
    if unknown:
        allowed = ", ".join(Supervision.__annotations__)
        raise TypeError(f"set_supervision() found the fields {', '.join(unknown)}; allowed: {allowed}")
    stored: dict[str, Any] = dict(supervision(doc))
    stored.update(fields)
    doc.user_data[USER_DATA_KEY] = {name: value for name, value in stored.items() if value is not None}


def gold_spans(doc: Doc, key: SpanSetter = DEFAULT_SPANS_KEY) -> list[Span]:
    """Return the gold entities of `doc`.

    Parameters
    ----------
    doc
        A reference document.
    key
        Where they are stored, see :func:`spans_by_place`; a span stored in several places is returned once.

    Returns
    -------
    list of Span
        In the order of the indices of relations.
    """
    return [span for _, _, span in each_once(spans_by_place(doc, key))]


def has_entities_annotated(doc: Doc) -> bool:
    """Return whether the annotators of `doc` looked for entities; if not, its entities are unknown."""
    return supervision(doc).get("entities_annotated", True)


def annotated_labels(doc: Doc, labels: Iterable[str]) -> list[str]:
    """Return those of `labels` that the annotators of `doc` looked for: all, unless it has ``ner_labels``."""
    stated = supervision(doc)
    if not stated.get("ner_labels"):
        return list(labels)
    known = {*stated["ner_labels"], *stated.get("ner_negatives", [])}
    return [label for label in labels if label in known]


def unknown_tokens(doc: Doc, key: SpanSetter) -> npt.NDArray[np.bool_] | None:
    """Return which tokens nobody annotated, ``(tokens,)``; None if all are annotated.

    These are all tokens of a document in which nobody looked for entities, and tokens that are missing in ``doc.ents``
    (``doc.set_ents(..., missing=...)``), if gold entities are read there. A document without any annotation in
    ``doc.ents`` has no entities.

    Parameters
    ----------
    doc
        A reference document.
    key
        Where gold entities are stored, see :func:`spans_by_place`.
    """
    if not has_entities_annotated(doc):
        return np.ones(len(doc), dtype=bool)
    places = span_places(key)
    if any(place in doc.spans or (place == "*" and doc.spans) for place in places):
        return None
    missing: npt.NDArray[np.bool_] = doc.to_array("ENT_IOB") == 0
    return missing if missing.any() and not missing.all() else None


def gold_place(nlp: Language) -> SpanSetter:
    """Return where the components of a pipeline read gold entities; `DEFAULT_SPANS_KEY` without such a component."""
    places = [
        place for _, pipe in nlp.pipeline if (place := getattr(pipe, "gold_spans_key", None)) is not None
    ]
    if not places:
        return DEFAULT_SPANS_KEY
    if all(isinstance(place, str) for place in places):
        names = list(dict.fromkeys(places))
        return names if len(names) > 1 else names[0]
    first: SpanSetter = places[0]
    return first


def trimmed(span: Span) -> Span | None:
    """Return a span without whitespace tokens at its ends; None if it has no other tokens."""
    doc, start, end = span.doc, span.start, span.end
    while start < end and doc[end - 1].is_space:
        end -= 1
    while start < end and doc[start].is_space:
        start += 1
    if (start, end) == (span.start, span.end) and start < end:
        return span
    return Span(doc, start, end, label=span.label, kb_id=span.kb_id) if start < end else None


def word_places(doc: Doc) -> list[int]:
    """Return for each token boundary the number of non-whitespace tokens before it."""
    return [0, *np.cumsum(doc.to_array(["IS_SPACE"]) == 0).tolist()]


def spans_by_place(doc: Doc, getter: SpanSetter) -> Iterator[tuple[str, int, Span]]:
    """Yield the spans of a document, each with the place where it is stored and its position there.

    Parameters
    ----------
    doc
        The document.
    getter
        Span groups, ``"ents"``, ``"*"`` (all groups), or a mapping from these to labels. The entities of a document
        without any of these groups are its ``doc.ents``.
    """
    places = span_places(getter)
    if "*" in places:
        others = places.pop("*")
        rest = {key: others for key in doc.spans if key not in places}
        places = {**places, **rest} or {"ents": others}
    here = {place: labels for place, labels in places.items() if place == "ents" or place in doc.spans}
    if not here:
        anything = any(labels is None for labels in places.values())
        here = {"ents": None if anything else set().union(*filter(None, places.values()))}
    for place, labels in here.items():
        for position, span in enumerate(doc.ents if place == "ents" else doc.spans[place]):
            if labels is None or span.label_ in labels:
                yield place, position, span


def each_once(spans: Iterable[tuple[str, int, Span]]) -> Iterator[tuple[str, int, Span]]:
    """Leave out spans that an earlier place contains too; duplicates within one place are kept."""
    first: dict[tuple[int, int, int], str] = {}
    for place, position, span in spans:
        if first.setdefault((span.start, span.end, span.label), place) == place:
            yield place, position, span


def set_spans(
    doc: Doc, spans: Sequence[Span], setter: SpanSetter, report: Counter[str] | None = None
) -> list[int | None]:
    """Store entities where a span setter says.

    Parameters
    ----------
    doc
        The document; its groups named in `setter` are replaced.
    spans
        All entities. ``"ents"`` stores the longest ones that do not overlap.
    setter
        See :data:`SpanSetter`.
    report
        Receives the number of entities that do not fit into ``"ents"``.

    Returns
    -------
    list of int or None
        Position of each span in the first place of `setter`; ``None`` if it is not stored there, and for all spans if
        that place is ``"*"``, which is no single group.
    """
    positions: list[int | None] | None = None
    for place, labels in span_places(setter).items():
        chosen = [i for i, span in enumerate(spans) if labels is None or span.label_ in labels]
        if place == "ents":
            kept = filter_spans([spans[i] for i in chosen])
            doc.set_ents(kept, default="outside")
            order = {(span.start, span.end, span.label): i for i, span in enumerate(kept)}
            here = [order.get((span.start, span.end, span.label)) for span in spans]
            if report is not None and len(chosen) > len(kept):
                report["entities overlapping a longer one (not in doc.ents)"] += len(chosen) - len(kept)
        elif place == "*":
            _set_groups(doc, [spans[i] for i in chosen])
            here = [None] * len(spans)
        else:
            doc.spans[place] = [spans[i] for i in chosen]
            here = [None] * len(spans)
            for position, i in enumerate(chosen):
                here[i] = position
        positions = here if positions is None else positions
    return positions or [None] * len(spans)


def primary_key(setter: SpanSetter) -> str:
    """Return the first place of `setter`: the group whose positions relations refer to."""
    return next(iter(span_places(setter)))


def _set_groups(doc: Doc, spans: Iterable[Span]) -> None:
    groups: dict[str, list[Span]] = {}
    for span in spans:
        groups.setdefault(span.label_, []).append(span)
    for label, group in groups.items():
        doc.spans[label] = group


def _listed(value: Any) -> Any:
    """Return `value` with tuples replaced by lists."""
    if isinstance(value, dict):
        return {name: _listed(item) for name, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, (list, tuple)) else value


def span_places(setter: SpanSetter) -> dict[str, set[str] | None]:
    """Return the labels stored in each place; None for all labels."""
    items: dict[str, Any]
    if isinstance(setter, str):
        items = {setter: True}
    elif isinstance(setter, dict):
        items = setter
    else:
        items = dict.fromkeys(setter, True)
    places: dict[str, set[str] | None] = {}
    for place, labels in items.items():
        if labels is False:
            continue
        places[place] = None if labels is True else {labels} if isinstance(labels, str) else set(labels)
    if not places or not all(places):
        raise ConfigError(
            "span_setter",
            f"is {setter!r}",
            'the name of a span group, "ents", "*", or a list of these',
            'Set span_setter = "gliner"',
        )
    return places


def install(kind: Any, name: str, **options: Any) -> None:
    """Register the extension ``._.name`` unless it exists; safe to call from several threads.

    Parameters
    ----------
    kind
        ``Doc``, ``Span`` or ``Token``.
    name
        Name of the attribute.
    **options
        Options of ``set_extension``.
    """
    if not kind.has_extension(name):
        with _lock:
            if not kind.has_extension(name):
                kind.set_extension(name, **options)
