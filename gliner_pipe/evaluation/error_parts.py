"""What an error page shows of a text: marks, errors and records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from spacy.tokens import Doc

from gliner_pipe.metrics.alignment import common_edges


class Mark(NamedTuple):
    """An entity in a text, from character `start` to before `end`; `kind` is one of `KINDS`."""

    start: int
    end: int
    label: str
    kind: str
    score: float | None


class Error(NamedTuple):
    """An error at a place in a text, with the labels and texts of both sides; empty where a side has nothing."""

    kind: str
    start: int
    end: int
    gold: str
    predicted: str
    gold_text: str
    predicted_text: str


class FieldRow(NamedTuple):
    """A field of a record with its gold and predicted values, as text; `right` if they are the same."""

    field: str
    gold: str
    predicted: str
    right: bool


class ShownRecord(NamedTuple):
    """A gold record beside the predicted record that is most alike; the kind, and the rows of its fields."""

    kind: str
    rows: list[FieldRow]


def places_of(reference: Doc, predicted: Doc) -> list[tuple[int, int]]:
    """Return start and end in the text for each unit of `common_edges`: each word, or each character of a word."""
    edges, _ = common_edges(reference, predicted)
    words = [(token.idx, token.idx + len(token)) for token in reference if not token.is_space]
    if edges[-1] == len(words):
        return words
    return [(at, at + 1) for at, letter in enumerate(reference.text) if not letter.isspace()]


def span_of(units: Sequence[int], places: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """Return start and end in the text of a range of units; None for an empty range."""
    start, end = units
    return (places[start][0], places[end - 1][1]) if end > start else None
