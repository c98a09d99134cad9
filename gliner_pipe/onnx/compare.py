"""Measures how far the scores of exported graphs are from those of the original model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.encoders.label_table import PromptTable
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.inference import TokenBudget, predict_spans
from gliner_pipe.modeling.token_classifier import TokenClassifier
from gliner_pipe.onnx.session import WHERE

#: Largest difference allowed between a score of a graph in single precision and of the model.
TOLERANCE = 1e-3

#: Words of texts of several lengths.
TEXTS = tuple(
    text.split()
    for text in (
        "Ada Lovelace was born in London in 1815 and wrote the first program for the Analytical Engine .",
        "Rome burns .",
        "The company moved from Oslo to Paris , where Marie Curie had worked at the Sorbonne until 1934 .",
        "Yesterday",
    )
)
LABELS = ("person", "city", "organization", "date")


class Difference(NamedTuple):
    """Differences between the scores of a model and of its graphs.

    Attributes
    ----------
    largest, mean
        Of the absolute differences between probabilities of spans, or of tags.
    scores
        Number of scores compared.
    """

    largest: float
    mean: float
    scores: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Difference:
        """Summarise absolute differences."""
        return cls(max(values, default=0.0), sum(values) / max(len(values), 1), len(values))


def check_same(difference: Difference) -> None:
    """Check that graphs in single precision have the scores of the model.

    Raises
    ------
    ConfigError
        If they differ by more than ``TOLERANCE``.
    """
    if difference.largest > TOLERANCE:
        raise ConfigError(
            WHERE,
            f"has other scores as graphs: the largest difference is {difference.largest:.2g}",
            f"at most {TOLERANCE}",
        )


def compare(model: GLiNER, other: GLiNER, labels: Sequence[str] = ()) -> Difference:
    """Compare the scores of all spans of some texts."""
    table: PromptTable | None = getattr(model.encoder, "table", None)
    used = tuple(table.names["entity"]) if table is not None else tuple(labels) or LABELS
    scores = []
    for one in (model, other):
        windows = one.encoder.prepare(TEXTS, [Query(used)] * len(TEXTS), one.min_overlap)
        texts = predict_spans(one, windows, [[0.0] * len(used)] * len(TEXTS), TokenBudget(2048))
        scores.append(
            {
                (index, start, end, label): score
                for index, text in enumerate(texts)
                for start, end, label, score in text.candidates
            }
        )
    keys = scores[0].keys() | scores[1].keys()
    return Difference.of([abs(scores[0].get(key, 0.0) - scores[1].get(key, 0.0)) for key in keys])


def compare_taggers(model: TokenClassifier, other: TokenClassifier) -> Difference:
    """Compare the scores of all tags of the words of some texts."""
    first, second = (one.score(one.prepare(TEXTS), len(TEXTS), TokenBudget(2048)) for one in (model, other))
    differences: list[float] = []
    for left, right in zip(first, second, strict=True):
        differences += (left.softmax(-1) - right.softmax(-1)).abs().flatten().tolist()
    return Difference.of(differences)
