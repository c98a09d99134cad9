"""Counts correct spans under many thresholds: from candidates found once, or by predicting for each threshold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from spacy.language import Language
from spacy.training import Example

from gliner_pipe.evaluation.candidates import DocCandidates
from gliner_pipe.evaluation.evaluate import unannotated_docs
from gliner_pipe.metrics.base import SpanScorer
from gliner_pipe.metrics.counts import CountFunction, LabelCounts, add_counts
from gliner_pipe.modeling.decoders.span import Candidate, SpanDecoder
from gliner_pipe.pipeline.annotate import owners_of
from gliner_pipe.pipeline.labels import LabelItem
from gliner_pipe.pipeline.overrides import override

#: Number of thresholds tried by default where each needs a prediction.
DEFAULT_STEPS = 19

#: Threshold of each label, in the precision of scores.
Limits = NDArray[np.float32]


@dataclass
class Sweep(ABC):
    """Counts correct spans under different thresholds.

    Parameters
    ----------
    items
        The predicted labels.
    floor
        Lowest threshold to try.
    """

    #: Whether `over_label` keeps the other labels at the given thresholds.
    conditional: ClassVar[bool] = True

    items: Sequence[LabelItem]
    floor: float
    #: How often the pipeline was run.
    runs: int = field(default=0, init=False)

    def limits(self, threshold: float) -> Limits:
        """Return the threshold of each label: its own, or `threshold`."""
        own = [threshold if item.threshold is None else item.threshold for item in self.items]
        return np.array(own, dtype=np.float32)

    @abstractmethod
    def at(self, limits: Limits, threshold: float) -> LabelCounts:
        """Return the counts with a threshold for each label, and a threshold of the component."""

    @abstractmethod
    def over(
        self, varied: Sequence[int], limits: Limits, thresholds: Sequence[float] | None = None
    ) -> Iterator[tuple[float, LabelCounts]]:
        """Yield each threshold of some labels with its counts, which change with the next; other labels are fixed.

        Parameters
        ----------
        varied
            Positions of the labels.
        limits
            Thresholds of the other labels.
        thresholds
            Those to apply; by default those to try.
        """

    def over_label(self, label: int, limits: Limits) -> Iterator[tuple[float, LabelCounts]]:
        """Yield each threshold of one label with its counts."""
        return self.over([label], limits)


@dataclass
class CandidateSweep(Sweep):
    """Applies thresholds to candidates that were found once.

    Parameters
    ----------
    items, floor
        See `Sweep`.
    component
        The ``gliner`` component, for its decoder.
    documents
        Candidates of each document, down to `floor`.
    count
        Decides which mentions are correct.
    steps
        Number of thresholds to try; None for each that makes a difference.
    """

    runs: int = field(default=1, init=False)
    component: Any
    documents: Sequence[DocCandidates]
    count: CountFunction
    steps: int | None

    def at(self, limits: Limits, threshold: float) -> LabelCounts:
        """Decode the candidates of all documents."""
        totals: LabelCounts = {}
        for document in self.documents:
            add_counts(totals, self._decode(document, limits))
        return totals

    def over(
        self, varied: Sequence[int], limits: Limits, thresholds: Sequence[float] | None = None
    ) -> Iterator[tuple[float, LabelCounts]]:
        """Lower the threshold, and decode again only the documents in which another candidate exceeds it."""
        varied, wanted = list(varied), set(varied)
        limits = limits.copy()
        limits[varied] = -np.inf
        documents = [self._without_hopeless(document, limits, wanted) for document in self.documents]
        events = sorted(
            {
                (candidate.score, index)
                for index, document in enumerate(documents)
                for candidate in document.candidates
                if candidate.label in wanted
            },
            reverse=True,
        )
        limits[varied] = np.inf
        now = [self._decode(document, limits) for document in documents]
        totals: LabelCounts = {}
        for counts in now:
            add_counts(totals, counts)
        at = 0
        if thresholds is None:
            thresholds = self._thresholds([score for score, _ in events])
        for threshold in sorted(thresholds, reverse=True):
            limits[varied] = threshold
            changed = set()
            while at < len(events) and events[at][0] > np.float32(threshold):
                changed.add(events[at][1])
                at += 1
            for index in changed:
                add_counts(totals, now[index], -1)
                now[index] = self._decode(documents[index], limits)
                add_counts(totals, now[index])
            yield threshold, totals

    def _decode(self, document: DocCandidates, limits: Limits) -> LabelCounts:
        """Return the counts of one document."""
        decode = partial(self.component.gliner.decoder.decode, **self.component.decoding)
        kept = decode(_above(document.candidates, limits))
        if document.tokens is not None:
            keys = [document.tokens[candidate[:3]] for candidate in kept]
            owners = owners_of(keys, [candidate.score for candidate in kept], decode)
            kept = [candidate for at, candidate in enumerate(kept) if owners[at] == at]
        found = {document.mentions[candidate[:3]] for candidate in kept}
        return self.count(document.gold, {mention for mention in found if mention is not None})

    def _without_hopeless(
        self, document: DocCandidates, limits: Limits, varied: AbstractSet[int]
    ) -> DocCandidates:
        """Leave out candidates that are kept at no threshold of the varied labels, whose limits are the lowest.

        The decoder ``span`` goes through candidates in a fixed order. A candidate with the words of an earlier one is
        kept only if a span may have several labels. If the best score comes first, a lower threshold adds candidates
        behind all others of the varied labels only: what it keeps of these is a subset of what the lowest one keeps.
        """
        decoder, decoding = self.component.gliner.decoder, self.component.decoding
        candidates = _above(document.candidates, limits)
        if type(decoder) is SpanDecoder:
            if not decoding["multi_label"]:
                best: dict[tuple[int, int, bool], Candidate] = {}
                for candidate in candidates:
                    place = (candidate.start, candidate.end, candidate.label in varied)
                    if place not in best or candidate.score > best[place].score:
                        best[place] = candidate
                candidates = sorted(best.values())
            if decoding.get("prefer", "score") == "score":
                kept = set(decoder.decode(candidates, **decoding))
                candidates = [one for one in candidates if one.label not in varied or one in kept]
        return replace(document, candidates=candidates)

    def _thresholds(self, scores: Sequence[float]) -> list[float]:
        if self.steps is not None:
            return spaced(self.steps, self.floor)
        edges = sorted({self.floor, 1.0, *(score for score in scores if score > self.floor)})
        return [between(low, high) for low, high in pairwise(edges)]


@dataclass
class PredictionSweep(Sweep):
    """Runs the pipeline for each threshold.

    Parameters
    ----------
    items, floor
        See `Sweep`.
    nlp
        The pipeline, with one ``gliner`` component.
    examples
        Gold documents.
    scorer
        Counts their spans.
    steps
        Number of thresholds to try.
    batch_size
        Documents per batch.
    """

    conditional = False

    nlp: Language
    examples: Sequence[Example]
    scorer: SpanScorer
    steps: int
    batch_size: int
    _common: list[tuple[float, LabelCounts]] = field(default_factory=list, init=False)

    def at(self, limits: Limits, threshold: float) -> LabelCounts:
        """Run the pipeline."""
        self.runs += 1
        items = [
            replace(item, threshold=float(limit)) for item, limit in zip(self.items, limits, strict=True)
        ]
        with override(self.nlp, labels=items, threshold=threshold):
            docs = list(self.nlp.pipe(unannotated_docs(self.nlp, self.examples), batch_size=self.batch_size))
        totals: LabelCounts = {}
        for doc, example in zip(docs, self.examples, strict=True):
            add_counts(totals, self.scorer.count(*self.scorer.pair(Example(doc, example.reference))))
        scored = self.scorer.labels
        return {label: counts for label, counts in totals.items() if scored is None or label in scored}

    def over(
        self, varied: Sequence[int], limits: Limits, thresholds: Sequence[float] | None = None
    ) -> Iterator[tuple[float, LabelCounts]]:
        """Run the pipeline for each threshold."""
        for threshold in spaced(self.steps, self.floor) if thresholds is None else thresholds:
            limits = limits.copy()
            limits[list(varied)] = threshold
            yield threshold, self.at(limits, threshold)

    def over_label(self, label: int, limits: Limits) -> Iterator[tuple[float, LabelCounts]]:
        """Reuse runs in which all labels have the same threshold: one sweep for all labels, not one for each."""
        self._common = self._common or list(self.over(range(len(self.items)), limits))
        return iter(self._common)


def _above(candidates: Sequence[Candidate], limits: Limits) -> list[Candidate]:
    """Return the candidates above the thresholds of their labels."""
    floors = limits.tolist()
    return [candidate for candidate in candidates if candidate.score > floors[candidate.label]]


def spaced(steps: int, floor: float) -> list[float]:
    """Return evenly spaced thresholds from `floor` to below 1."""
    return [round(floor + (1 - floor) * step / steps, 6) for step in range(steps)]


def between(low: float, high: float) -> float:
    """Return a threshold that `high` exceeds and `low` does not: 0.5 if possible, else a short number between."""
    for digits in range(1, 9):
        for threshold in (0.5, round((low + high) / 2, digits)):
            if low <= threshold < high and low <= np.float32(threshold) < high:
                return threshold
    return low
