"""Precision, recall and F1 of spans, as scorers that spaCy and confit can both resolve by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from spacy.scorer import Scorer
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, trimmed
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.alignment import get_spans
from gliner_pipe.metrics.base import ExampleScorer, SpanScorer, score_mentions, score_row
from gliner_pipe.metrics.counts import count_exact, count_overlap, count_token
from gliner_pipe.metrics.relations import score_component_relations
from gliner_pipe.metrics.seqeval import make_seqeval
from gliner_pipe.registry import registry

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "make_component_scorer",
    "make_ner_exact",
    "make_ner_overlap",
    "make_ner_token",
    "score_component",
    "score_mentions",
    "score_row",
]


@registry.scorers.register("gliner_pipe.ner_exact")
def make_ner_exact(
    span_getter: SpanSetter = "gliner",
    predicted_getter: SpanSetter | None = None,
    labels: list[str] | None = None,
    micro_key: str = "micro",
    macro_key: str = "macro",
) -> ExampleScorer:
    """Count a predicted span as right when label and both boundaries agree with a gold span.

    Use it as the main score: it is what published figures mean by entity-level F1.

    Parameters
    ----------
    span_getter
        Where the spans stand: the key of a span group, ``"ents"``, a list, or a mapping to labels. A document without
        the group is read by its ``doc.ents``.
    predicted_getter
        Where the predicted spans stand, if elsewhere.
    labels
        The fixed set of labels; None for all labels of the whole data set.
    micro_key
        Key of the scores over all spans together.
    macro_key
        Key of the mean over the labels that occur in the gold data.

    Returns
    -------
    ExampleScorer
        A scorer of examples.
    """
    return SpanScorer(
        count_exact,
        "boundaries",
        span_getter=span_getter,
        predicted_getter=predicted_getter,
        labels=labels,
        micro_key=micro_key,
        macro_key=macro_key,
    )


@registry.scorers.register("gliner_pipe.ner_overlap")
def make_ner_overlap(
    span_getter: SpanSetter = "gliner",
    predicted_getter: SpanSetter | None = None,
    labels: list[str] | None = None,
    threshold: float = 0.5,
    micro_key: str = "micro",
    macro_key: str = "macro",
) -> ExampleScorer:
    """Count a predicted span as right when its Dice overlap with a gold span of its label reaches a
    threshold.

    Use it where the place of an entity matters more than its exact boundaries. Recall counts gold spans,
    precision predicted ones: two predictions that each overlap enough with one gold span are both right.

    Parameters
    ----------
    span_getter
        Where the spans stand: the key of a span group, ``"ents"``, a list, or a mapping to labels.
    predicted_getter
        Where the predicted spans stand, if elsewhere.
    labels
        The fixed set of labels; None for all labels of the whole data set.
    threshold
        Least Dice overlap in tokens, above 0 and at most 1 (then the same as the exact score).
    micro_key
        Key of the scores over all spans together.
    macro_key
        Key of the mean over the labels that occur in the gold data.

    Returns
    -------
    ExampleScorer
        A scorer of examples.

    Raises
    ------
    ConfigError
        If the threshold is out of range.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(
            "gliner_pipe.ner_overlap.threshold",
            f"is {threshold}",
            "above 0 and at most 1",
            "Use 0.5 if in doubt",
        )
    return SpanScorer(
        partial(count_overlap, threshold=threshold),
        "tokens",
        span_getter=span_getter,
        predicted_getter=predicted_getter,
        labels=labels,
        micro_key=micro_key,
        macro_key=macro_key,
    )


@registry.scorers.register("gliner_pipe.ner_token")
def make_ner_token(
    span_getter: SpanSetter = "gliner",
    predicted_getter: SpanSetter | None = None,
    labels: list[str] | None = None,
    micro_key: str = "micro",
    macro_key: str = "macro",
) -> ExampleScorer:
    """Count tokens: right when it lies inside a predicted and inside a gold span of the same label.

    Use it where the amount of covered text matters, as in de-identification.

    Parameters
    ----------
    span_getter
        Where the spans stand: the key of a span group, ``"ents"``, a list, or a mapping to labels.
    predicted_getter
        Where the predicted spans stand, if elsewhere.
    labels
        The fixed set of labels; None for all labels of the whole data set.
    micro_key
        Key of the scores over all tokens together.
    macro_key
        Key of the mean over the labels that occur in the gold data.

    Returns
    -------
    ExampleScorer
        A scorer of examples.
    """
    return SpanScorer(
        count_token,
        "tokens",
        span_getter=span_getter,
        predicted_getter=predicted_getter,
        labels=labels,
        micro_key=micro_key,
        macro_key=macro_key,
    )


@registry.scorers.register("gliner_pipe.spans_scorer.v1")
def make_component_scorer(spans_key: str = "gliner") -> ExampleScorer:
    """Give spaCy's own exact scores under spaCy's names, for ``nlp.evaluate`` and ``spacy train``.

    Parameters
    ----------
    spans_key
        Key of the span group, gold and predicted.

    Returns
    -------
    ExampleScorer
        A scorer with the keys ``spans_{spans_key}_p``, ``_r``, ``_f`` and ``_per_type``, for relations too.
    """
    return partial(score_component, spans_key=spans_key)


def score_component(
    examples: Iterable[Example], *, spans_key: str = "gliner", gold_spans_key: str | None = None, **_: Any
) -> dict[str, Any]:
    """Score one span group by ``Scorer.score_spans``, overlapping spans included.

    Gold documents that have neither the group nor any entities annotated are skipped. spaCy drops predicted
    spans that do not align with the reference's tokens before it counts; `make_ner_exact` counts them as
    wrong.

    Parameters
    ----------
    examples
        Gold and predicted documents.
    spans_key
        Key of the span group of predictions.
    gold_spans_key
        Key of the gold span group, if another; a document without it is read by its ``doc.ents``.

    Returns
    -------
    dict[str, Any]
        ``spans_{spans_key}_p``, ``_r``, ``_f`` and ``_per_type``; all None when nothing could be measured. Where
        relations were looked for and something is known about them, also ``relations_p`` and so on, and
        ``relations_boundary_p`` and so on, which do not look at the labels of entities.
    """
    examples = list(examples)
    gold = {id(example.reference) for example in examples}

    def key_of(doc: Doc) -> str:
        return gold_spans_key or spans_key if id(doc) in gold else spans_key

    def has_annotation(doc: Doc) -> bool:
        return key_of(doc) in doc.spans or doc.has_annotation("ENT_IOB")

    def getter(doc: Doc, _: str) -> list[Span]:
        return [trimmed(span) or span for span in get_spans(doc, key_of(doc))]

    scores: dict[str, Any] = Scorer.score_spans(
        examples,
        f"spans_{spans_key}",
        getter=getter,
        has_annotation=has_annotation,
        labeled=True,
        allow_overlap=True,
    )
    return {**scores, **score_component_relations(examples, gold_spans_key or spans_key)}


#: Names of the built-in metrics, as command lines and config files use them.
METRICS: Mapping[str, Callable[..., ExampleScorer]] = {
    "exact": make_ner_exact,
    "overlap": make_ner_overlap,
    "token": make_ner_token,
    "seqeval": make_seqeval,
}

#: Those that are taken when none is named.
DEFAULT_METRICS = ("exact", "overlap", "token")
