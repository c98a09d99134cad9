"""The contract of scorers of spans: from counts to precision, recall and F1, with a fixed label set or without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from copy import copy
from typing import Any

from spacy.training import Example

from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.alignment import SpanGetter, Unit, paired_mentions
from gliner_pipe.metrics.counts import CountFunction, Counts, Mention, count_exact

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


class LabelScorer:
    """A scorer of spans that may be told which labels count; picklable, so that it can stand in a component.

    Parameters
    ----------
    span_getter
        Where the spans stand.
    predicted_getter
        Where the predicted spans stand, if elsewhere.
    labels
        The fixed set of labels; None for all labels of the whole data set.
    """

    def __init__(
        self,
        span_getter: SpanGetter = "gliner",
        predicted_getter: SpanGetter | None = None,
        labels: Sequence[str] | None = None,
    ) -> None:
        self.span_getter = span_getter
        self.predicted_getter = span_getter if predicted_getter is None else predicted_getter
        self.labels = None if labels is None else list(labels)

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples; settings of a component (labels, threshold), which spaCy passes, are ignored."""
        raise NotImplementedError


class SpanScorer(LabelScorer):
    """Scores examples with one way of counting.

    Parameters
    ----------
    count
        What counts as right.
    unit
        ``"boundaries"`` for counts of whole spans, ``"tokens"`` for counts that look inside them.
    span_getter, predicted_getter, labels
        See `LabelScorer`.
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
        super().__init__(span_getter, predicted_getter, labels)
        self.count, self.unit = count, unit
        self.micro_key, self.macro_key = micro_key, macro_key

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        pairs = (
            paired_mentions(example, self.span_getter, self.predicted_getter, self.unit)
            for example in examples
        )
        keys = {"micro_key": self.micro_key, "macro_key": self.macro_key}
        return score_mentions(pairs, self.count, labels=self.labels, **keys)


def with_labels(scorer: ExampleScorer, labels: Sequence[str]) -> ExampleScorer:
    """Return a `LabelScorer` that states no labels as one that states these; any other scorer as it is."""
    if not isinstance(scorer, LabelScorer) or scorer.labels is not None:
        return scorer
    fixed = copy(scorer)
    fixed.labels = list(labels)
    return fixed
