"""Precision, recall and F1 of spans, as scorers that spaCy and confit can both resolve by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import copy
from functools import partial
from typing import Any

from spacy.scorer import Scorer
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.counts import (
    CountFunction,
    Counts,
    Mention,
    count_exact,
    count_overlap,
    count_token,
)
from gliner_pipe.metrics.getters import SpanGetter, Unit, get_spans, paired_mentions
from gliner_pipe.registry import registry

#: spaCy's contract: examples with gold and predicted documents in, scores out.
ExampleScorer = Callable[..., dict[str, Any]]


def score_row(counts: Counts) -> dict[str, Any]:
    """Turn counts into precision, recall and F1.

    Parameters
    ----------
    counts
        Elements of one label, or of all.

    Returns
    -------
    dict[str, Any]
        ``p``, ``r``, ``f`` in [0, 1], ``tp``, ``support`` (gold) and ``positives`` (predicted). With neither
        gold nor predicted elements there is nothing to measure: ``p``, ``r`` and ``f`` are None. With only
        one of the two, all three are 0.
    """
    right, found, support, positives = counts
    p: float | None
    r: float | None
    f: float | None
    if not support and not positives:
        p = r = f = None
    else:
        p = right / positives if positives else 0.0
        r = found / support if support else 0.0
        f = 2 * p * r / (p + r) if p + r else 0.0
    return {"p": p, "r": r, "f": f, "tp": right, "support": support, "positives": positives}


def score_mentions(
    documents: Iterable[tuple[AbstractSet[Mention], AbstractSet[Mention]]],
    count: CountFunction = count_exact,
    *,
    labels: Sequence[str] | None = None,
    micro_key: str = "micro",
    macro_key: str = "macro",
) -> dict[str, Any]:
    """Score documents given as pairs of gold and predicted ``(label, start, end)`` sets.

    Parameters
    ----------
    documents
        One pair of gold and predicted mentions a document.
    count
        What counts as right: `count_exact`, `count_overlap` or `count_token`.
    labels
        The fixed set of labels: anything else is left out, in gold and predictions alike. None takes all
        labels of the whole data set; a predicted label without gold then counts as wrong.
    micro_key
        Key of the scores over all elements together.
    macro_key
        Key of the mean over the labels that occur in the gold data.

    Returns
    -------
    dict[str, Any]
        A row of `score_row` for each label (of `labels` in their order, else sorted) and `micro_key`; under
        `macro_key` the means ``p``, ``r``, ``f`` (None without any gold) and ``labels``, the number of labels
        in the mean.

    Raises
    ------
    ConfigError
        If a label has the name of a summary key.
    """
    totals: dict[str, Counts] = {label: Counts() for label in labels or ()}
    for gold, predicted in documents:
        for label, counts in count(gold, predicted).items():
            if labels is None or label in totals:
                totals[label] = totals.get(label, Counts()).plus(counts)
    for key, setting in ((micro_key, "micro_key"), (macro_key, "macro_key")):
        if key in totals:
            raise ConfigError(
                setting, f"is {key!r}, which is a label too", "a name no label has", f"Set {setting}"
            )
    rows = {label: score_row(totals[label]) for label in (sorted(totals) if labels is None else totals)}
    micro = Counts()
    for counts in totals.values():
        micro = micro.plus(counts)
    measured = [row for row in rows.values() if row["support"]]
    macro = {
        key: sum(row[key] for row in measured) / len(measured) if measured else None
        for key in ("p", "r", "f")
    }
    return {**rows, micro_key: score_row(micro), macro_key: {**macro, "labels": len(measured)}}


class SpanScorer:
    """Scores examples with one way of counting; picklable, so that it can stand in a component.

    Parameters
    ----------
    count
        What counts as right.
    unit
        ``"boundaries"`` for counts of whole spans, ``"tokens"`` for counts that look inside them.
    span_getter
        Where the spans stand.
    predicted_getter
        Where the predicted spans stand, if elsewhere.
    labels
        The fixed set of labels.
    micro_key
        Key of the micro average.
    macro_key
        Key of the macro average.
    """

    def __init__(
        self,
        count: CountFunction,
        unit: Unit,
        *,
        span_getter: SpanGetter = "gliner",
        predicted_getter: SpanGetter | None = None,
        labels: Sequence[str] | None = None,
        micro_key: str = "micro",
        macro_key: str = "macro",
    ) -> None:
        self.count, self.unit = count, unit
        self.span_getter = span_getter
        self.predicted_getter = span_getter if predicted_getter is None else predicted_getter
        self.labels = None if labels is None else list(labels)
        self.micro_key, self.macro_key = micro_key, macro_key

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples; settings of a component (labels, threshold), which spaCy passes, are
        ignored.
        """
        pairs = (
            paired_mentions(example, self.span_getter, self.predicted_getter, self.unit)
            for example in examples
        )
        keys = {"micro_key": self.micro_key, "macro_key": self.macro_key}
        return score_mentions(pairs, self.count, labels=self.labels, **keys)


def with_labels(scorer: ExampleScorer, labels: Sequence[str]) -> ExampleScorer:
    """Return a `SpanScorer` that states no labels as one that states these; any other scorer as it is."""
    if not isinstance(scorer, SpanScorer) or scorer.labels is not None:
        return scorer
    fixed = copy(scorer)
    fixed.labels = list(labels)
    return fixed


@registry.scorers.register("gliner_pipe.ner_exact")
def make_ner_exact(
    span_getter: str | list[str] = "gliner",
    predicted_getter: str | list[str] | None = None,
    labels: list[str] | None = None,
    micro_key: str = "micro",
    macro_key: str = "macro",
) -> ExampleScorer:
    """Count a predicted span as right when label and both boundaries agree with a gold span.

    Use it as the main score: it is what published figures mean by entity-level F1.

    Parameters
    ----------
    span_getter
        Where the spans stand: the key of a span group, ``"ents"``, or a list. A document without the group is
        read by its ``doc.ents``.
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
    span_getter: str | list[str] = "gliner",
    predicted_getter: str | list[str] | None = None,
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
        Where the spans stand: the key of a span group, ``"ents"``, or a list.
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
    span_getter: str | list[str] = "gliner",
    predicted_getter: str | list[str] | None = None,
    labels: list[str] | None = None,
    micro_key: str = "micro",
    macro_key: str = "macro",
) -> ExampleScorer:
    """Count tokens: right when it lies inside a predicted and inside a gold span of the same label.

    Use it where the amount of covered text matters, as in de-identification.

    Parameters
    ----------
    span_getter
        Where the spans stand: the key of a span group, ``"ents"``, or a list.
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
    from gliner_pipe.metrics.relations import score_component_relations  # which needs this module

    examples = list(examples)
    gold = {id(example.reference) for example in examples}

    def key_of(doc: Doc) -> str:
        return gold_spans_key or spans_key if id(doc) in gold else spans_key

    def has_annotation(doc: Doc) -> bool:
        return key_of(doc) in doc.spans or doc.has_annotation("ENT_IOB")

    def getter(doc: Doc, _: str) -> list[Span]:
        return get_spans(doc, key_of(doc))

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
}
