"""How far the numbers of a graph are from those of the model that it was made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.encoders.label_table import PromptTable
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.inference import TokenBudget, predict_spans
from gliner_pipe.modeling.token_classifier import TokenClassifier

#: Words of texts of several lengths.
TEXTS = (
    [
        "Ada",
        "Lovelace",
        "was",
        "born",
        "in",
        "London",
        "in",
        "1815",
        "and",
        "wrote",
        "the",
        "first",
        "program",
        "for",
        "the",
        "Analytical",
        "Engine",
        ".",
    ],
    ["Rome", "burns", "."],
    [
        "The",
        "company",
        "moved",
        "from",
        "Oslo",
        "to",
        "Paris",
        ",",
        "where",
        "Marie",
        "Curie",
        "had",
        "worked",
        "at",
        "the",
        "Sorbonne",
        "until",
        "1934",
        ".",
    ],
    ["Yesterday"],
)
LABELS = ("person", "city", "organization", "date")


class Difference(NamedTuple):
    """Between the scores of a model and of its graph.

    Attributes
    ----------
    largest, mean
        Of the absolute differences; probabilities of spans, or probabilities of tags.
    scores
        How many were compared.
    """

    largest: float
    mean: float
    scores: int


def compare(model: GLiNER, other: GLiNER, labels: Sequence[str] = ()) -> Difference:
    """Score all spans of some texts twice."""
    table: PromptTable | None = getattr(model.encoder, "table", None)
    asked = tuple(labels) or LABELS
    if table is not None:
        asked = tuple(table.names["entity"])
    found = []
    for one in (model, other):
        windows = one.encoder.prepare(TEXTS, [Query(asked)] * len(TEXTS), one.min_overlap)
        texts = predict_spans(one, windows, [[0.0] * len(asked)] * len(TEXTS), TokenBudget(2048))
        found.append(
            {
                (index, start, end, label): score
                for index, text in enumerate(texts)
                for start, end, label, score in text.candidates
            }
        )
    keys = found[0].keys() | found[1].keys()
    return _difference([abs(found[0].get(key, 0.0) - found[1].get(key, 0.0)) for key in keys])


def compare_taggers(model: TokenClassifier, other: TokenClassifier) -> Difference:
    """Score all tags of the words of some texts twice."""
    first, second = (one.score(one.prepare(TEXTS), len(TEXTS), TokenBudget(2048)) for one in (model, other))
    differences: list[float] = []
    for left, right in zip(first, second, strict=True):
        differences += (left.softmax(-1) - right.softmax(-1)).abs().flatten().tolist()
    return _difference(differences)


def _difference(values: Sequence[float]) -> Difference:
    return Difference(max(values, default=0.0), sum(values) / max(len(values), 1), len(values))
