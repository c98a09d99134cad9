"""Searches the thresholds that fit annotated documents best."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from spacy.language import Language
from spacy.training import Example

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.evaluation.candidates import Candidates, weigh, weighs_apart, writes_labels
from gliner_pipe.evaluation.evaluate import at_least_one, gold_span_getter
from gliner_pipe.evaluation.label_sets import fresh_docs, labels_to_ask
from gliner_pipe.metrics.alignment import SpanGetter, Unit, get_spans, paired_mentions
from gliner_pipe.metrics.base import score_row
from gliner_pipe.metrics.counts import CountFunction, Counts, count_exact, count_overlap, count_token
from gliner_pipe.pipeline.labels import LabelItem, parse_labels
from gliner_pipe.pipeline.overrides import gliner_components, override

#: Thresholds that are tried where the pipeline must run again for each, unless a number is given.
DEFAULT_STEPS = 19

#: Counts of one choice of thresholds by label.
Totals = dict[str, Counts]


class Sweep(ABC):
    """Tries thresholds.

    Parameters
    ----------
    items
        The labels that are asked for.
    floor
        The least threshold to try.
    """

    #: How often the pipeline was run.
    runs = 0
    #: Whether `over_label` has the other labels at the thresholds that they were given.
    conditional = True

    def __init__(self, items: Sequence[LabelItem], floor: float) -> None:
        self.items, self.floor = items, floor

    def limits(self, threshold: float) -> NDArray[np.float32]:
        """Threshold of each label, its own or this one, in the precision of scores."""
        own = [threshold if item.threshold is None else item.threshold for item in self.items]
        return np.array(own, dtype=np.float32)

    @abstractmethod
    def at(self, limits: NDArray[np.float32], threshold: float) -> Totals:
        """Counts with a threshold for each label, and one for what has none."""

    @abstractmethod
    def over(self, varied: Sequence[int], limits: NDArray[np.float32]) -> Iterator[tuple[float, Totals]]:
        """Counts under many thresholds of some labels, the others as given; each is to be read before the next."""

    def over_label(self, label: int, limits: NDArray[np.float32]) -> Iterator[tuple[float, Totals]]:
        """Counts under many thresholds of one label."""
        return self.over([label], limits)


class CandidateSweep(Sweep):
    """Tries thresholds on candidates that were found once.

    Parameters
    ----------
    candidates
        Down to `floor`.
    items
        The labels that were asked for.
    steps
        How many thresholds to try; None for each that makes a difference.
    floor
        The least threshold to try.
    """

    runs = 1

    def __init__(
        self, candidates: Candidates, items: Sequence[LabelItem], steps: int | None, floor: float
    ) -> None:
        super().__init__(items, floor)
        self.candidates, self.steps = candidates, steps

    def at(self, limits: NDArray[np.float32], threshold: float) -> Totals:
        """Choose among the candidates of all documents."""
        totals: Totals = {}
        for index in range(len(self.candidates.documents)):
            add(totals, self.candidates.counts(index, limits))
        return totals

    def over(self, varied: Sequence[int], limits: NDArray[np.float32]) -> Iterator[tuple[float, Totals]]:
        """Lower the threshold and look again at the documents in which a candidate passes it that did not before."""
        events = self.candidates.events(varied)
        limits = limits.copy()
        limits[list(varied)] = np.inf
        totals: Totals = {}
        now = [self.candidates.counts(index, limits) for index in range(len(self.candidates.documents))]
        for counts in now:
            add(totals, counts)
        at = 0
        for one in sorted(self._thresholds([score for score, _ in events]), reverse=True):
            limits[list(varied)] = one
            changed = set()
            while at < len(events) and events[at][0] > np.float32(one):
                changed.add(events[at][1])
                at += 1
            for index in changed:
                add(totals, now[index], -1)
                now[index] = self.candidates.counts(index, limits)
                add(totals, now[index])
            yield one, totals

    def _thresholds(self, scores: Sequence[float]) -> list[float]:
        if self.steps is not None:
            return spaced(self.steps, self.floor)
        edges = sorted({self.floor, 1.0, *(score for score in scores if score > self.floor)})
        return [between(low, high) for low, high in pairwise(edges)]


class Rerun(Sweep):
    """Tries thresholds by running the pipeline for each.

    Parameters
    ----------
    nlp, component
        The pipeline and its ``gliner`` component.
    examples
        Gold documents.
    options
        As `weigh` takes them.
    items
        The labels that are asked for.
    steps
        How many thresholds to try.
    floor
        The least of them.
    """

    conditional = False

    def __init__(
        self,
        nlp: Language,
        component: Any,
        examples: Sequence[Example],
        options: Mapping[str, Any],
        items: Sequence[LabelItem],
        steps: int,
        floor: float,
    ) -> None:
        super().__init__(items, floor)
        self.nlp, self.component, self.examples, self.options = nlp, component, examples, options
        self.steps = steps
        self._common: list[tuple[float, Totals]] = []

    def at(self, limits: NDArray[np.float32], threshold: float) -> Totals:
        """Run the pipeline."""
        self.runs += 1
        items = [
            replace(item, threshold=float(limit)) for item, limit in zip(self.items, limits, strict=True)
        ]
        size = self.options["batch_size"] or self.nlp.batch_size
        with override(self.nlp, labels=items, threshold=threshold):
            docs = list(self.nlp.pipe(fresh_docs(self.nlp, self.examples), batch_size=size))
        totals: Totals = {}
        wanted = self.options["gold_labels"]
        for doc, eg in zip(docs, self.examples, strict=True):
            pair = Example(doc, eg.reference)
            key, unit = self.component.spans_key, self.options["unit"]
            gold, predicted = paired_mentions(pair, self.options["gold_getter"], key, unit)
            gold = {item for item in gold if wanted is None or item[0] in wanted}
            add(totals, self.options["count"](gold, predicted))
        return totals

    def over(self, varied: Sequence[int], limits: NDArray[np.float32]) -> Iterator[tuple[float, Totals]]:
        """Run the pipeline for each threshold."""
        for one in spaced(self.steps, self.floor):
            limits = limits.copy()
            limits[list(varied)] = one
            yield one, self.at(limits, one)

    def over_label(self, label: int, limits: NDArray[np.float32]) -> Iterator[tuple[float, Totals]]:
        """Runs in which all labels have the same threshold: once for all labels, not once for each."""
        self._common = self._common or list(self.over(range(len(self.items)), limits))
        return iter(self._common)


def spaced(steps: int, floor: float) -> list[float]:
    """Thresholds from `floor` on, evenly spaced below 1."""
    return [round(floor + (1 - floor) * step / steps, 6) for step in range(steps)]


def between(low: float, high: float) -> float:
    """A threshold that lets `high` pass, and not `low`: 0.5 if it does, else one of few digits near the middle."""
    for digits in range(1, 9):
        for one in (0.5, round((low + high) / 2, digits)):
            if low <= one < high and low <= np.float32(one) < high:
                return one
    return low


def add(totals: Totals, counts: Mapping[str, Counts], sign: int = 1) -> None:
    """Add counts to totals, or with a `sign` of -1 take them away."""
    for label, row in counts.items():
        totals[label] = totals.get(label, Counts()).plus(Counts(*(sign * number for number in row)))


def total(totals: Totals) -> Counts:
    """Counts of all labels together."""
    found = Counts()
    for counts in totals.values():
        found = found.plus(counts)
    return found


Metric = Literal["exact", "overlap", "token"]


@dataclass(frozen=True)
class ThresholdSearch:
    """What was found.

    Attributes
    ----------
    metric
        What was maximised: F1 of all spans (or tokens) together.
    before
        ``threshold``, ``p``, ``r`` and ``f`` as the pipeline stands.
    best
        Likewise with the best threshold, which may be the one before.
    curve
        Likewise for each threshold that was tried, rising.
    labels
        ``threshold``, ``p``, ``r``, ``f`` and ``support`` of each label that a threshold of its own was sought for.
    kept
        Labels that keep what they have, with their gold spans: too few, or no threshold is any better.
    together
        ``p``, ``r`` and ``f`` with all the new thresholds at once; None without thresholds of labels.
    asked
        Labels that were asked for, as they stand in a config.
    runs
        How often the pipeline was run.
    """

    metric: str
    before: dict[str, Any]
    best: dict[str, Any]
    curve: list[dict[str, Any]]
    labels: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)
    together: dict[str, Any] | None = None
    asked: list[Any] = field(default_factory=list)
    runs: int = 1

    @property
    def threshold(self) -> float:
        """The best threshold of all labels."""
        return float(self.best["threshold"])

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain data."""
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
    """Find the threshold with the best F1 on annotated documents, and leave the pipeline as it is.

    Use documents that are neither those of the training nor those of the last test: a threshold is fitted to the
    documents that it was found on, and its scores there are too good. See `apply_thresholds` for what comes next.

    The pipeline runs once, down to `floor`; what any threshold above it gives follows from the scores. Where it does
    not (`weighs_apart`), the pipeline runs again for each threshold.

    Parameters
    ----------
    nlp
        With one ``gliner`` component.
    examples
        Gold documents.
    metric
        ``exact``, ``overlap`` or ``token``.
    per_label
        Then find a threshold for one label after the other, the most frequent first: that with the best F1 of the label
        among those with which the F1 of all labels together does not fall. Without it a label with a threshold of its
        own keeps that.
    steps
        How many thresholds to try, evenly spaced from `floor`; every threshold that makes a difference when not given,
        or `DEFAULT_STEPS` where the pipeline runs for each.
    floor
        The least threshold tried.
    min_support
        Least number of gold spans of a label that gets a threshold of its own.
    labels
        Labels to ask for and to score; as in `evaluate_pipeline`.
    span_getter
        Where gold spans stand; the component's own when not given.
    overlap_threshold
        Least Dice overlap of the metric ``overlap``.
    batch_size
        Documents a batch.

    Returns
    -------
    ThresholdSearch
        Of thresholds that are equally good the nearest to 0.5.

    Raises
    ------
    ConfigError
        If the pipeline has not exactly one ``gliner`` component, or a setting cannot be.
    DataError
        If there is no gold span.
    """
    examples = at_least_one(examples)
    component = _component(nlp)
    count, unit = _metric(metric, overlap_threshold)
    _check(steps, floor)
    getter = gold_span_getter(nlp) if span_getter is None else span_getter
    scored = None if labels is None else [item.label for item in parse_labels(labels, "labels")]
    spans = (span.label_ for eg in examples for span in get_spans(eg.reference, getter))
    support = Counter(label for label in spans if scored is None or label in scored)
    if not support:
        raise DataError(
            "evaluation data:", "has no gold span of the labels", "at least one", "Check the labels"
        )
    options: dict[str, Any] = {
        "gold_getter": getter,
        "unit": unit,
        "count": count,
        "gold_labels": scored,
        "batch_size": batch_size,
    }
    with override(nlp, labels=labels_to_ask(nlp, labels, support)):
        items, now = component.label_items, component.threshold
        if per_label and writes_labels(component):
            raise ConfigError(
                "find_threshold.per_label",
                "is set, but a language model writes the labels",
                "one threshold for all",
                "Leave out per_label",
            )
        sweep: Sweep
        if weighs_apart(component):
            candidates = weigh(nlp, component, examples, floor=min(floor, now), **options)
            sweep = CandidateSweep(candidates, items, steps, floor)
        else:
            sweep = Rerun(nlp, component, examples, options, items, steps or DEFAULT_STEPS, floor)
        found = _search(sweep, now, support, min_support if per_label else None)
        return ThresholdSearch(metric, asked=component.label_data, runs=sweep.runs, **found)


def apply_thresholds(nlp: Language, found: ThresholdSearch) -> list[str]:
    """Set the thresholds that were found on the ``gliner`` component.

    Parameters
    ----------
    nlp
        The pipeline; its thresholds are saved with it.
    found
        From `find_threshold`.

    Returns
    -------
    list of str
        Labels whose threshold cannot be kept, as the component has labels, and not these. A component without labels
        gets those that have a threshold now, along with the ones that were kept.
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
    """Fields of the result; without `min_support` no thresholds of labels."""
    free = [at for at, item in enumerate(sweep.items) if item.threshold is None]
    before = {"threshold": now, **_row(total(sweep.at(sweep.limits(now), now)))}
    curve = sorted(
        (
            {"threshold": threshold, **_row(total(totals))}
            for threshold, totals in sweep.over(free, sweep.limits(now))
        ),
        key=lambda row: float(row["threshold"]),
    )
    found: dict[str, Any] = {"before": before, "best": _best([*curve, before]), "curve": curve}
    return (
        found if min_support is None else {**found, **_by_label(sweep, found["best"], support, min_support)}
    )


def _by_label(
    sweep: Sweep, best: Mapping[str, Any], support: Mapping[str, int], min_support: int
) -> dict[str, Any]:
    """Seek a threshold for one label after the other, the most frequent first; what all give together never falls."""
    common = float(best["threshold"])
    limits = sweep.limits(common)
    together = best["f"] or 0.0
    order = sorted(range(len(sweep.items)), key=lambda at: -support.get(sweep.items[at].label, 0))
    chosen: dict[str, float] = {}
    for at in order:
        label = sweep.items[at].label
        row = _best_of_label(sweep, at, limits, together) if support.get(label, 0) >= min_support else None
        if row is not None:
            tried = limits.copy()
            tried[at] = row["threshold"]
            f = score_row(total(sweep.at(tried, common)))["f"] or 0.0
            if f >= together:
                limits, together, chosen[label] = tried, f, row["threshold"]
    totals = sweep.at(limits, common)
    names = [item.label for item in sweep.items]
    return {
        "labels": {
            label: {
                "threshold": chosen[label],
                **_row(totals.get(label, Counts())),
                "support": support[label],
            }
            for label in names
            if label in chosen
        },
        "kept": {label: support.get(label, 0) for label in names if label not in chosen},
        "together": _row(total(totals)),
    }


def _best_of_label(
    sweep: Sweep, at: int, limits: NDArray[np.float32], together: float
) -> dict[str, Any] | None:
    """The row with the best F1 of a label among those that make no worse what all labels give; None for none."""
    rows = []
    for threshold, totals in sweep.over_label(at, limits):
        if sweep.conditional and (score_row(total(totals))["f"] or 0.0) < together:
            continue
        rows.append({"threshold": threshold, **_row(totals.get(sweep.items[at].label, Counts()))})
    best = _best(rows) if rows else {"f": None}
    return best if best["f"] else None


def _component(nlp: Language) -> Any:
    components = gliner_components(nlp)
    if len(components) != 1:
        names = ", ".join(nlp.pipe_names) or "none"
        raise ConfigError(
            "find_threshold",
            f"needs one gliner component and found {len(components)} (components: {names})",
            "a pipeline with one gliner component",
        )
    return components[0]


def _metric(name: str, overlap_threshold: float) -> tuple[CountFunction, Unit]:
    known: dict[str, tuple[Callable[..., Any], Unit]] = {
        "exact": (count_exact, "boundaries"),
        "overlap": (partial(count_overlap, threshold=overlap_threshold), "tokens"),
        "token": (count_token, "tokens"),
    }
    if name not in known:
        raise ConfigError("find_threshold.metric", f"is {name!r}", ", ".join(known))
    return known[name]


def _check(steps: int | None, floor: float) -> None:
    if steps is not None and steps < 1:
        raise ConfigError("find_threshold.steps", f"is {steps}", "a number from 1 on")
    if not 0 <= floor < 1:
        raise ConfigError("find_threshold.floor", f"is {floor}", "from 0 to below 1")


def _row(counts: Counts) -> dict[str, Any]:
    row = score_row(counts)
    return {key: row[key] for key in "prf"}


def _best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row with the best F1, of equals the nearest to 0.5."""
    return max(rows, key=lambda row: (row["f"] or 0.0, -abs(row["threshold"] - 0.5)))
