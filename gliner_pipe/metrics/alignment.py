"""Spans of a document, and gold and predicted spans in common offsets even where their tokens differ."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Literal

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import (
    SpanSetter,
    each_once,
    gold_spans,
    has_entities_annotated,
    span_places,
    spans_by_place,
    trimmed,
    word_places,
)
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.metrics.counts import Mention

#: Where spans are read: the key of a span group, ``"ents"`` for ``doc.ents``, ``"*"`` for all groups, a list of these,
#: or a mapping from these to the labels to include.
SpanGetter = SpanSetter

#: Unit of ``start`` and ``end``: tokens of the reference, or boundaries, which distinguish any two spans.
Unit = Literal["tokens", "boundaries"]


#: Returns the spans of a document, gold or predicted, like `gold_spans`: in the order of the groups, a span in several
#: groups once; a document with none of the groups gives its ``doc.ents``.
get_spans = gold_spans


def get_scores(doc: Doc, span_getter: SpanGetter) -> list[float | None]:
    """Return the scores of the spans that `get_spans` returns, in the same order; None for a span without a score.

    Scores are read from ``attrs["scores"]`` of a span group, which holds a number for each span.
    """
    scores: list[float | None] = []
    for place, position, _ in each_once(spans_by_place(doc, span_getter)):
        group = None if place == "ents" else doc.spans[place]
        stored = () if group is None else group.attrs.get("scores", ())
        scores.append(float(stored[position]) if group is not None and len(stored) == len(group) else None)
    return scores


def prediction_getter(nlp: Language) -> SpanGetter:
    """Return where a pipeline stores its predicted spans.

    Returns
    -------
    SpanGetter
        The keys of its ``gliner`` and ``token_classifier`` components; without these, the keys of all components that
        assign ``doc.spans``; without any, ``"ents"``.
    """
    keys = _assigned_groups(nlp)
    own = [key for key, factory in keys.items() if factory in ("gliner", "token_classifier")]
    found = own or list(keys)
    return found[0] if len(found) == 1 else (found or "ents")


def check_getter(nlp: Language, getter: SpanGetter, where: str) -> None:
    """Check that a pipeline may store spans in a place to read predictions from.

    Raises
    ------
    ConfigError
        If no place is named, or no component writes to any of them. A component that does not state what it assigns may
        write anywhere.
    """
    places = check_places(getter, where)
    if any(not nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names):
        return
    written = [*_assigned_groups(nlp), "ents"]
    if not {"*", *written} & {*places}:
        found = f"is {getter!r}, and no component of the pipeline stores spans there"
        raise ConfigError(where, found, ", ".join([*written, "*"]), f"Remove {where} to read all of them")


def check_places(getter: SpanGetter, where: str) -> list[str]:
    """Return the places that an option names; no place, or an empty name, is a ConfigError."""
    try:
        return [*span_places(getter)]
    except ConfigError as error:
        raise ConfigError(where, error.found, error.allowed) from None


def _assigned_groups(nlp: Language) -> dict[str, str]:
    """Return the span groups that components say they assign, each with the factory of its component."""
    keys: dict[str, str] = {}
    for name, pipe in nlp.pipeline:
        meta = nlp.get_pipe_meta(name)
        key = getattr(pipe, "spans_key", None) or getattr(pipe, "key", None)
        if "doc.spans" in meta.assigns:
            places = getattr(pipe, "spans_keys", [key])
            keys |= {place: meta.factory for place in places if isinstance(place, str)}
    return keys


def paired_mentions(
    example: Example, gold_getter: SpanGetter, predicted_getter: SpanGetter, unit: Unit
) -> tuple[set[Mention], set[Mention]]:
    """Return gold and predicted mentions of one example in the same offsets.

    Equal tokens give offsets in words, which are the tokens other than white space. Where the tokens differ,
    boundaries are compared by characters other than white space, and in the unit ``"tokens"`` a predicted span covers
    every word of the reference that it overlaps.

    Parameters
    ----------
    example
        Its ``reference`` has the gold spans, its ``predicted`` the predicted spans.
    gold_getter, predicted_getter
        Where the spans are read.
    unit
        ``"tokens"`` of the reference, or ``"boundaries"``.

    Raises
    ------
    DataError
        If the texts of the two documents differ in more than white space.
    """
    gold, predicted = paired_spans(example, gold_getter, predicted_getter, unit)
    return set(gold), {mention for mention in predicted if mention is not None}


def paired_spans(
    example: Example, gold_getter: SpanGetter, predicted_getter: SpanGetter, unit: Unit
) -> tuple[list[Mention], list[Mention | None]]:
    """Return the mentions of `paired_mentions` in the order of `get_spans`, duplicates included.

    A document in which nobody looked for entities has neither gold nor predicted mentions. A gold span of white space
    alone is left out. A predicted span of white space alone is wrong; in the unit
    ``"tokens"`` its mention is None, because it overlaps no word.
    """
    if not has_entities_annotated(example.reference):
        return [], []
    gold = [span for span in get_spans(example.reference, gold_getter) if trimmed(span)]
    predicted = get_spans(example.predicted, predicted_getter)
    gold_edges, edges = common_edges(example.reference, example.predicted)
    guesses: list[Mention | None] = [(span.label_, edges[span.start], edges[span.end]) for span in predicted]
    if unit == "boundaries":
        return [(span.label_, gold_edges[span.start], gold_edges[span.end]) for span in gold], guesses
    words = word_places(example.reference)
    covered = [mention and _covered_words(mention, gold_edges, words) for mention in guesses]
    return [(span.label_, words[span.start], words[span.end]) for span in gold], covered


def common_edges(reference: Doc, predicted: Doc) -> tuple[Sequence[int], Sequence[int]]:
    """Return the token boundaries of two documents on a common scale.

    Parameters
    ----------
    reference, predicted
        The gold and the predicted document.

    Returns
    -------
    tuple of Sequence[int]
        Number of tokens + 1 boundaries for each document: the number of words before each boundary if the tokens are
        equal, else the number of characters other than white space.

    Raises
    ------
    DataError
        If the texts of the two documents differ in more than white space.
    """
    if len(reference) == len(predicted) and np.array_equal(
        reference.to_array(["ORTH"]), predicted.to_array(["ORTH"])
    ):
        words = word_places(reference)
        return words, words
    if "".join(reference.text.split()) != "".join(predicted.text.split()):
        raise DataError(
            f"document starting with {reference.text[:40]!r}",
            f"was predicted on another text, starting with {predicted.text[:40]!r}",
            "texts that differ in white space only",
            "Predict on the text or the words of the gold document",
        )
    return _character_edges(reference), _character_edges(predicted)


def _character_edges(doc: Doc) -> list[int]:
    edges = [0]
    for token in doc:
        edges.append(edges[-1] + len("".join(token.text.split())))
    return edges


def _covered_words(mention: Mention, edges: Sequence[int], words: Sequence[int]) -> Mention | None:
    """Return the mention in words, extended to the words that it overlaps; None if there is no such word."""
    label, start, end = mention
    return (
        (label, words[bisect_right(edges, start) - 1], words[bisect_left(edges, end)])
        if end > start
        else None
    )
