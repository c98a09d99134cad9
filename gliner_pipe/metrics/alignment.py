"""Where spans stand in a document, and gold and predicted spans in one system of offsets."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import (
    SpanSetter,
    each_once,
    gold_spans,
    spans_by_place,
    trimmed,
    word_places,
)
from gliner_pipe.errors import DataError
from gliner_pipe.metrics.counts import Mention

#: The key of a span group, "ents" for ``doc.ents``, "*" for all groups, several of these, or a mapping from these to
#: the labels that count.
SpanGetter = str | Sequence[str] | Mapping[str, bool | str | list[str]]

#: What ``(label, start, end)`` counts: ``tokens`` of the reference, or ``boundaries`` that tell any two spans
#: apart.
Unit = Literal["tokens", "boundaries"]


def get_spans(doc: Doc, span_getter: SpanGetter) -> list[Span]:
    """Collect the spans of a document.

    Parameters
    ----------
    doc
        The document.
    span_getter
        The key of a span group, ``"ents"`` for ``doc.ents``, ``"*"`` for all groups, a list of these, or a mapping from
        these to the labels that count.

    Returns
    -------
    list[Span]
        The spans in order of the groups, one that several groups hold once. A document that has none of the groups
        gives its ``doc.ents``.
    """
    return gold_spans(doc, _setter(span_getter))


def get_scores(doc: Doc, span_getter: SpanGetter) -> list[float | None]:
    """Collect the scores of the spans that `get_spans` gives, in their order; None for a span without one.

    Scores stand in ``attrs["scores"]`` of a span group, a number for each span.
    """
    scores: list[float | None] = []
    for place, position, _ in each_once(spans_by_place(doc, _setter(span_getter))):
        group = None if place == "ents" else doc.spans[place]
        stated = () if group is None else group.attrs.get("scores", ())
        scores.append(float(stated[position]) if group is not None and len(stated) == len(group) else None)
    return scores


def prediction_getter(nlp: Language) -> SpanGetter:
    """Say where a pipeline writes its spans.

    Returns
    -------
    SpanGetter
        The keys of its ``gliner`` and ``token_classifier`` components; else those of all components that write
        ``doc.spans``; else ``"ents"``.
    """
    keys: dict[str, str] = {}
    for name, pipe in nlp.pipeline:
        meta = nlp.get_pipe_meta(name)
        key = getattr(pipe, "spans_key", None) or getattr(pipe, "key", None)
        places = getattr(pipe, "spans_keys", [key])
        if "doc.spans" in meta.assigns:
            keys |= {place: meta.factory for place in places if isinstance(place, str)}
    own = [key for key, factory in keys.items() if factory in ("gliner", "token_classifier")]
    found = own or list(keys)
    return found[0] if len(found) == 1 else (found or "ents")


def _setter(span_getter: SpanGetter) -> SpanSetter:
    if isinstance(span_getter, str):
        return span_getter
    return dict(span_getter) if isinstance(span_getter, Mapping) else list(span_getter)


def paired_mentions(
    example: Example, gold_getter: SpanGetter, predicted_getter: SpanGetter, unit: Unit
) -> tuple[set[Mention], set[Mention]]:
    """Gold and predicted mentions of one example, in the same offsets.

    With equal tokens these are token offsets, in which white space does not count. Where the tokens differ,
    boundaries are compared by characters other than white space, and a predicted span stands for every reference
    token that it touches.

    Parameters
    ----------
    example
        Its ``reference`` holds the gold spans, its ``predicted`` the others.
    gold_getter
        Where the gold spans stand.
    predicted_getter
        Where the predicted spans stand.
    unit
        ``"tokens"`` of the reference, or ``"boundaries"``.

    Returns
    -------
    tuple[set[Mention], set[Mention]]
        Gold and predicted mentions.

    Raises
    ------
    DataError
        If the two documents do not have the same text, white space apart.
    """
    gold, predicted = paired_spans(example, gold_getter, predicted_getter, unit)
    return set(gold), {mention for mention in predicted if mention is not None}


def paired_spans(
    example: Example, gold_getter: SpanGetter, predicted_getter: SpanGetter, unit: Unit
) -> tuple[list[Mention], list[Mention | None]]:
    """As `paired_mentions`, but in the order of `get_spans` and with what stands twice.

    White space is no token here: offsets pass over it, and a gold span of nothing else is left out. Such a predicted
    span is wrong, and None where tokens are asked for, as it touches none.
    """
    gold = [span for span in get_spans(example.reference, gold_getter) if trimmed(span)]
    predicted = get_spans(example.predicted, predicted_getter)
    places, edges = word_places(example.reference), common_edges(example.reference, example.predicted)
    gold_edges, other_edges = edges or (places, places)
    others = [(s.label_, other_edges[s.start], other_edges[s.end]) for s in predicted]
    if unit == "boundaries":
        return [(s.label_, gold_edges[s.start], gold_edges[s.end]) for s in gold], list(others)
    found: list[Mention | None] = []
    for label, start, end in others:
        if end > start and edges is not None:
            first, last = _touched(start, end, gold_edges)
            start, end = places[first], places[last]
        found.append((label, start, end) if end > start else None)
    return [(s.label_, places[s.start], places[s.end]) for s in gold], found


def common_edges(reference: Doc, predicted: Doc) -> tuple[list[int], list[int]] | None:
    """Borders of the tokens of two documents, counted in characters other than white space.

    Parameters
    ----------
    reference, predicted
        The gold document and the other.

    Returns
    -------
    tuple of list of int, or None
        For each document one number more than it has tokens; None where the tokens are the same, so that `word_places`
        will do.

    Raises
    ------
    DataError
        If the two documents do not have the same text, white space apart.
    """
    if _same_tokens(reference, predicted):
        return None
    if _letters(reference) != _letters(predicted):
        raise DataError(
            f"document starting with {reference.text[:40]!r}",
            f"was predicted on another text, starting with {predicted.text[:40]!r}",
            "texts that differ in white space only",
            "Predict on the text or the words of the gold document",
        )
    return _edges(reference), _edges(predicted)


def _same_tokens(one: Doc, other: Doc) -> bool:
    return len(one) == len(other) and bool(np.array_equal(one.to_array(["ORTH"]), other.to_array(["ORTH"])))


def _letters(doc: Doc) -> str:
    return "".join(doc.text.split())


def _edges(doc: Doc) -> list[int]:
    """Characters other than white space before each token, and in all (tokens + 1 numbers)."""
    edges = [0]
    for token in doc:
        edges.append(edges[-1] + len("".join(token.text.split())))
    return edges


def _touched(start: int, end: int, edges: list[int]) -> tuple[int, int]:
    """First and one past the last token that shares a character with ``start:end``."""
    return bisect_right(edges, start) - 1, bisect_left(edges, end)
