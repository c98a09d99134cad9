"""Finds the thresholds with the best F1 on annotated documents, and applies them to a pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from spacy.language import Language
from spacy.training import Example

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.evaluation.candidates import (
    find_candidates,
    generates_labels,
    scores_ignore_threshold,
)
from gliner_pipe.evaluation.evaluate import at_least_one, gold_span_getter, metric_scorer
from gliner_pipe.evaluation.label_sets import label_names, labels_to_predict
from gliner_pipe.evaluation.sweeps import DEFAULT_STEPS, CandidateSweep, Limits, PredictionSweep, Sweep
from gliner_pipe.metrics.alignment import SpanGetter, get_spans
from gliner_pipe.metrics.counts import Counts, LabelCounts, score_row, sum_counts
from gliner_pipe.metrics.spans import DEFAULT_METRICS
from gliner_pipe.pipeline.labels import parse_labels
from gliner_pipe.pipeline.overrides import override, the_component

Metric = Literal["exact", "overlap", "token"]

#: Evenly spaced thresholds that are shown beside the best.
EVEN = tuple(round(0.05 * step, 2) for step in range(1, 20))


@dataclass(frozen=True)
class ThresholdSearch:
    """The result of `find_threshold`.

    Attributes
    ----------
    metric
        The maximised metric: micro F1 of spans or tokens.
    before
        ``threshold``, ``p``, ``r`` and ``f`` of the unchanged pipeline.
    best
        The same of the best threshold, which may equal that of `before`, and does if no threshold has a correct span.
    curve
        The same of each threshold tried, in ascending order.
    even
        The same of 0.05, 0.1 ... 0.95 from the lowest threshold on, to show how flat the curve is around the best. If
        the pipeline runs for each threshold, those of the curve among them.
    labels
        ``threshold``, ``p``, ``r``, ``f`` and ``support`` of each label with a new threshold of its own.
    kept
        Labels that keep their threshold, with their gold spans: too few of them, or no threshold that finds one and
        keeps the common F1.
    together
        ``p``, ``r`` and ``f`` with all new thresholds; None without thresholds of labels.
    asked
        Predicted labels, as in a config.
    runs
        How often the pipeline was run.
    """

    metric: str
    before: dict[str, Any]
    best: dict[str, Any]
    curve: list[dict[str, Any]]
    even: list[dict[str, Any]] = field(default_factory=list)
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    together: dict[str, Any] | None = None
    asked: list[Any] = field(default_factory=list)
    runs: int = 1

    @property
    def threshold(self) -> float:
        """The best common threshold."""
        return float(self.best["threshold"])

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return asdict(self)


def find_threshold(
    nlp: Language,
    examples: Iterable[Example],
    metric: Metric = "exact",
    *,
    per_label: bool = False,
    steps: int | None = None,
    floor: float = 0.05,
    min_support: int = 5,
    labels: Sequence[Any] | None = None,
    span_getter: SpanGetter | None = None,
    overlap_threshold: float = 0.5,
    batch_size: int | None = None,
) -> ThresholdSearch:
    """Find the threshold with the best F1 on annotated documents. The pipeline is not changed; see `apply_thresholds`.

    Use documents that are in neither the training nor the test data: a threshold is fitted to these documents, so its
    scores on them are too high.

    The pipeline runs once with the threshold `floor`; the result of any higher threshold follows from the scores. Where
    it does not (see `scores_ignore_threshold`), the pipeline runs for each threshold.

    Parameters
    ----------
    nlp
        The pipeline, with one ``gliner`` component.
    examples
        Gold documents.
    metric
        ``exact``, ``overlap`` or ``token``.
    per_label
        Whether to find a threshold for each label, too, starting with the most frequent: the threshold with the best F1
        of the label among those that do not lower the F1 of all labels. Without it, a label with a threshold of its own
        keeps that.
    steps
        Number of thresholds to try, evenly spaced from `floor`. By default every threshold that makes a difference, or
        `DEFAULT_STEPS` where the pipeline runs for each.
    floor
        Lowest threshold to try.
    min_support
        Minimum number of gold spans of a label that gets a threshold of its own.
    labels
        Labels to predict and to score; as in `evaluate_pipeline`.
    span_getter
        Where gold spans are read; those of the component by default.
    overlap_threshold
        Minimum Dice overlap of the metric ``overlap``.
    batch_size
        Documents per batch.

    Returns
    -------
    ThresholdSearch
        Of equally good thresholds, the best is the one nearest to 0.5.

    Raises
    ------
    ConfigError
        If the pipeline has not exactly one ``gliner`` component, or a setting is invalid.
    DataError
        If there is no gold span.
    """
    examples = at_least_one(examples)
    component = _component(nlp)
    if metric not in DEFAULT_METRICS:
        raise ConfigError("find_threshold.metric", f"is {metric!r}", ", ".join(DEFAULT_METRICS))
    if steps is not None and steps < 1:
        raise ConfigError("find_threshold.steps", f"is {steps}", "a number from 1 on")
    if not 0 <= floor < 1:
        raise ConfigError("find_threshold.floor", f"is {floor}", "from 0 to below 1")
    getter = gold_span_getter(nlp) if span_getter is None else span_getter
    scored = label_names(labels)
    places: dict[str, Any] = {"span_getter": getter, "predicted_getter": component.spans_key}
    scorer = metric_scorer(metric, overlap_threshold, labels=scored, **places)
    batch_size = batch_size or nlp.batch_size
    gold = (span.label_ for example in examples for span in get_spans(example.reference, getter))
    support = Counter(label for label in gold if scored is None or label in scored)
    if not support:
        raise DataError(
            "evaluation data:", "has no gold span of the labels", "at least one", "Check the labels"
        )
    with override(nlp, labels=labels_to_predict(nlp, labels, support)):
        items, now = component.label_items, component.threshold
        if per_label and generates_labels(component):
            raise ConfigError(
                "find_threshold.per_label",
                "is set, but a language model generates the labels",
                "one threshold for all labels",
            )
        sweep: Sweep
        if scores_ignore_threshold(component):
            documents = find_candidates(nlp, component, examples, scorer, min(floor, now), batch_size)
            sweep = CandidateSweep(items, floor, component, documents, scorer.count, steps)
        else:
            sweep = PredictionSweep(items, floor, nlp, examples, scorer, steps or DEFAULT_STEPS, batch_size)
        found = _search(sweep, now, support, min_support if per_label else None)
        return ThresholdSearch(metric, asked=component.label_data, runs=sweep.runs, **found)


def apply_thresholds(nlp: Language, found: ThresholdSearch) -> list[str]:
    """Set the thresholds of a search on the ``gliner`` component, which is saved with them.

    Parameters
    ----------
    nlp
        The pipeline.
    found
        Result of `find_threshold`.

    Returns
    -------
    list of str
        Labels whose threshold cannot be stored, because the component has labels and not these. A component without
        labels gets the labels of the search, with their thresholds.
    """
    component = _component(nlp)
    component.threshold = found.threshold
    if not found.labels:
        return []
    items = component.label_items or parse_labels(found.asked, "labels")
    component.labels = [
        replace(item, threshold=found.labels[item.label]["threshold"]) if item.label in found.labels else item
        for item in items
    ]
    return [label for label in found.labels if label not in component.labels]


def _search(sweep: Sweep, now: float, support: Mapping[str, int], min_support: int | None) -> dict[str, Any]:
    """Return fields of the result; those of single labels only with a `min_support`."""
    limits = sweep.limits(now)
    common = [at for at, item in enumerate(sweep.items) if item.threshold is None]
    curve = [_row(threshold, _sum(totals)) for threshold, totals in sweep.over(common, limits)]
    curve.sort(key=lambda row: float(row["threshold"]))
    before = _row(now, _sum(sweep.at(limits, now)))
    even = [row for row in curve if row["threshold"] in EVEN]
    if sweep.conditional:
        wanted = [threshold for threshold in EVEN if threshold >= sweep.floor]
        even = [_row(threshold, _sum(totals)) for threshold, totals in sweep.over(common, limits, wanted)]
        even.reverse()
    best = _best([*curve, before])
    found: dict[str, Any] = {
        "before": before,
        "best": best if best["f"] else before,
        "curve": curve,
        "even": even,
    }
    if min_support is None:
        return found
    return found | _search_labels(sweep, found["best"], support, min_support)


def _search_labels(
    sweep: Sweep, best: Mapping[str, Any], support: Mapping[str, int], min_support: int
) -> dict[str, Any]:
    """Search the threshold of each label, the most frequent first; the F1 of all labels together never falls.

    A label whose spans are all lost to the labels after it keeps its threshold.
    """
    common = float(best["threshold"])
    limits = sweep.limits(common)
    together = best["f"] or 0.0
    names = [item.label for item in sweep.items]
    chosen: dict[str, float] = {}
    for at in sorted(range(len(names)), key=lambda at: -support.get(names[at], 0)):
        if support.get(names[at], 0) < min_support:
            continue
        row = _best_of_label(sweep, at, limits, together)
        if row is None:
            continue
        tried = limits.copy()
        tried[at] = row["threshold"]
        f = _f1(_sum(sweep.at(tried, common)))
        if f >= together:
            limits, together, chosen[names[at]] = tried, f, row["threshold"]
    totals = sweep.at(limits, common)
    while lost := [label for label in chosen if not _f1(totals.get(label, Counts()))]:
        for label in lost:
            del chosen[label]
            limits[names.index(label)] = sweep.limits(common)[names.index(label)]
        totals = sweep.at(limits, common)
    return {
        "labels": {
            label: {**_row(chosen[label], totals.get(label, Counts())), "support": support[label]}
            for label in names
            if label in chosen
        },
        "kept": {label: support.get(label, 0) for label in names if label not in chosen},
        "together": {key: value for key, value in _row(common, _sum(totals)).items() if key != "threshold"},
    }


def _best_of_label(sweep: Sweep, at: int, limits: Limits, together: float) -> dict[str, Any] | None:
    """Return the best row of a label that does not lower the F1 of all labels; None if there is none."""
    label = sweep.items[at].label
    rows = [
        _row(threshold, totals.get(label, Counts()))
        for threshold, totals in sweep.over_label(at, limits)
        if not sweep.conditional or _f1(_sum(totals)) >= together
    ]
    best = _best(rows) if rows else {"f": None}
    return best if best["f"] else None


def _component(nlp: Language) -> Any:
    """Return the one ``gliner`` component: a component with labels that can be set."""
    return the_component(nlp, ["find_threshold", "labels"])


def _sum(totals: LabelCounts) -> Counts:
    return sum_counts(totals.values())


def _f1(counts: Counts) -> float:
    return score_row(counts)["f"] or 0.0


def _row(threshold: float, counts: Counts) -> dict[str, Any]:
    row = score_row(counts)
    return {"threshold": threshold, **{key: row[key] for key in "prf"}}


def _best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the row with the best F1; of equal rows, the one nearest to 0.5."""
    return max(rows, key=lambda row: (row["f"] or 0.0, -abs(row["threshold"] - 0.5)))
