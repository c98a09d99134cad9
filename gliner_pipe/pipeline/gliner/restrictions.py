"""Restrictions on the entities of a document: spans given by the caller, and patterns of labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spacy.tokens import Doc, Span

from gliner_pipe.data.annotations import install
from gliner_pipe.errors import DataError
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.pipeline.annotate import NOT_MATCHING
from gliner_pipe.pipeline.labels import LabelItem
from gliner_pipe.pipeline.word_splitters import ReadWords, Words
from gliner_pipe.util.patterns import Pattern

#: The attribute of ``doc._``, and the key of its value in ``doc.user_data``: pairs of start and end character.
EXTENSION = "gliner_input_spans"
INPUT_SPANS_KEY = "gliner_pipe.input_spans"

INPUT_UNALIGNED = "given span that does not align with word boundaries (input spans)"
INPUT_TOO_WIDE = "given span wider than the maximum width of the model (input spans)"
NO_INPUT_SPANS = "document without the span group that input_spans_key names"


# -- spans given by the caller -----------------------------------------------------------------------------------------


def install_extension() -> None:
    """Register ``doc._.gliner_input_spans`` unless the name is taken."""
    install(Doc, EXTENSION, getter=get_input_spans, setter=set_input_spans)


def get_input_spans(doc: Doc) -> list[tuple[int, int]] | None:
    """Return start and end character of the only spans of `doc` that are to be scored; None for all spans."""
    stored = doc.user_data.get(INPUT_SPANS_KEY)
    return None if stored is None else [(start, end) for start, end in stored]


def set_input_spans(doc: Doc, spans: Iterable[Any] | None) -> None:
    """Set the only spans of a document that are to be scored.

    Parameters
    ----------
    doc
        The document.
    spans
        spaCy spans, pairs of start and end character, or mappings with ``start`` and ``end`` in characters; None for
        all spans.

    Raises
    ------
    DataError
        If a span is none of these, or not within the text.
    """
    if spans is None:
        doc.user_data.pop(INPUT_SPANS_KEY, None)
        return
    doc.user_data[INPUT_SPANS_KEY] = [_characters(doc, span) for span in spans]


def _characters(doc: Doc, span: Any) -> tuple[int, int]:
    if isinstance(span, Span):
        place: Any = (span.start_char, span.end_char) if span.doc is doc else None
    elif isinstance(span, Mapping):
        place = (span.get("start"), span.get("end"))
    else:
        place = span
    right = isinstance(place, Sequence) and len(place) == 2 and all(type(one) is int for one in place)
    if not right or not 0 <= place[0] < place[1] <= len(doc.text):
        raise DataError(
            f"doc._.{EXTENSION} of the document starting with {doc.text[:40]!r}",
            f"holds {span!r}",
            "spans of this document, [start, end] or {start, end} in characters of its text",
        )
    return place[0], place[1]


def given_spans(doc: Doc, key: str | None, report: Counter[str]) -> list[tuple[int, int]] | None:
    """Return start and end character of the only spans to score: the document's own, else those of a span group."""
    own = get_input_spans(doc)
    if own is not None or key is None:
        return own
    if key != "ents" and key not in doc.spans:
        report[NO_INPUT_SPANS] += 1
        return []
    spans = doc.ents if key == "ents" else doc.spans[key]
    return [(span.start_char, span.end_char) for span in spans if len(span)]


def in_words(
    doc: Doc,
    words: Words,
    read: ReadWords,
    places: Sequence[tuple[int, int]],
    max_width: int | None,
    report: Counter[str],
) -> list[tuple[int, int]]:
    """Return first and last word that is read of given spans; `report` counts those that cannot be scored."""
    found = []
    for place in words.locate_characters(doc, places):
        within = None if place is None else read.within(*place)
        if within is None:
            report[INPUT_UNALIGNED] += 1
        elif max_width is not None and within[1] - within[0] >= max_width:
            report[INPUT_TOO_WIDE] += 1
        else:
            found.append(within)
    return found


# -- patterns of labels ------------------------------------------------------------------------------------------------


def patterns_of(labels: Sequence[LabelItem]) -> dict[str, Pattern]:
    """Return the pattern of each label that has one."""
    return {item.label: Pattern(item.pattern) for item in labels if item.pattern is not None}


def matching(
    candidates: Sequence[Candidate],
    labels: Sequence[LabelItem],
    patterns: Mapping[str, Pattern],
    doc: Doc,
    words: Words,
    read: ReadWords,
    report: Counter[str] | None = None,
) -> list[Candidate]:
    """Return the candidates whose whole text matches the pattern of their label; `report` counts the others."""
    text, offsets = doc.text, words.offsets
    if offsets is None:
        offsets = [(token.idx, token.idx + len(token)) for token in doc]
    kept = []
    for candidate in candidates:
        pattern = patterns.get(labels[candidate.label].label)
        start, end = offsets[read.number(candidate.start)][0], offsets[read.number(candidate.end)][1]
        if pattern is None or pattern.fullmatch(text[start:end].strip()):  # not by pos: ^ is the text's start
            kept.append(candidate)
    if report is not None and len(kept) < len(candidates):
        report[NOT_MATCHING] += len(candidates) - len(kept)
    return kept
