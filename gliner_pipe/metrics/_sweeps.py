"""Counts of right spans under many thresholds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from spacy.language import Language
from spacy.training import Example

from gliner_pipe.labels import LabelItem
from gliner_pipe.metrics._candidates import Candidates
from gliner_pipe.metrics.asking import fresh_docs
from gliner_pipe.metrics.counts import Counts
from gliner_pipe.metrics.getters import paired_mentions
from gliner_pipe.overrides import override

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
