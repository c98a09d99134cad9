"""Base classes of scorers: pairs of gold and predicted mentions, counted and scored by label."""

# no postponed annotations here: confit reads them in the modules of the subclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from spacy.training import Example

from gliner_pipe.data.annotations import DEFAULT_SPANS_KEY
from gliner_pipe.metrics.alignment import SpanGetter, Unit, paired_mentions
from gliner_pipe.metrics.counts import CountFunction, Pair, count_exact, score_mentions

if TYPE_CHECKING:
    from typing_extensions import Self

#: spaCy's contract: takes examples with gold and predicted documents, returns scores.
ExampleScorer = Callable[..., dict[str, Any]]


class MentionScorer(ABC):
    """Scores the mentions of examples by label. Picklable, so that a component can hold it."""

    #: Decides which mentions are correct.
    count: CountFunction = staticmethod(count_exact)
    #: Fixed label set; None for all labels of the data.
    labels: list[str] | None = None
    #: Key of the scores over all mentions together.
    micro_key: str = "micro"
    #: Key of the mean over the labels that occur in the gold data.
    macro_key: str = "macro"

    @property
    def keys(self) -> dict[str, Any]:
        """The keys of the averages, for `score_mentions`."""
        return {"micro_key": self.micro_key, "macro_key": self.macro_key}

    @abstractmethod
    def pair(self, example: Example) -> Pair | None:
        """Return gold and predicted mentions of one example; None if it has no gold annotation of this kind."""

    def reading(self, gold: SpanGetter, predicted: SpanGetter) -> "Self":
        """Return the scorer for a pipeline with gold and predicted spans at these places; its own places are kept."""
        return self

    def pairs(self, examples: Iterable[Example]) -> list[Pair]:
        """Return the pairs of all examples with gold annotations."""
        return [pair for pair in map(self.pair, examples) if pair is not None]

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples; the settings of a component, which spaCy passes, are ignored."""
        return score_mentions(self.pairs(examples), self.count, labels=self.labels, **self.keys)


@dataclass(eq=False)
class SpanScorer(MentionScorer):
    """Scores spans of documents.

    Parameters
    ----------
    span_getter
        Where gold spans are read: the key of a span group, ``"ents"``, a list of these, or a mapping from these to
        labels. A document without the group is read from its ``doc.ents``. By default where the pipeline that is
        scored reads its gold spans, or ``"gliner"`` without a pipeline.
    predicted_getter
        Where predicted spans are read; by default as `span_getter` if that is set, else where the pipeline writes them.
    labels
        Fixed label set; None for all labels of the data.
    """

    #: ``"boundaries"`` to count whole spans, ``"tokens"`` to measure their overlap.
    unit: ClassVar[Unit] = "boundaries"

    span_getter: SpanGetter | None = None
    predicted_getter: SpanGetter | None = None
    labels: list[str] | None = None

    @property
    def getters(self) -> tuple[SpanGetter, SpanGetter]:
        """Where gold and predicted spans are read."""
        gold = DEFAULT_SPANS_KEY if self.span_getter is None else self.span_getter
        return gold, gold if self.predicted_getter is None else self.predicted_getter

    def reading(self, gold: SpanGetter, predicted: SpanGetter) -> "Self":
        """Return the scorer with these places where it has none of its own."""
        if self.span_getter is not None:
            return self
        places = predicted if self.predicted_getter is None else self.predicted_getter
        return replace(self, span_getter=gold, predicted_getter=places)

    def pair(self, example: Example) -> Pair:
        """Return gold and predicted spans of one example."""
        return paired_mentions(example, *self.getters, self.unit)


@dataclass(eq=False)
class AveragedSpanScorer(SpanScorer):
    """Scores spans of documents, with the averages under keys of choice.

    Parameters
    ----------
    span_getter, predicted_getter, labels
        See `SpanScorer`.
    micro_key
        Key of the scores over all spans together.
    macro_key
        Key of the mean over the labels that occur in the gold data.
    """

    micro_key: str = "micro"
    macro_key: str = "macro"


def with_places(scorer: ExampleScorer, gold: SpanGetter, predicted: SpanGetter) -> ExampleScorer:
    """Return a scorer of this package that reads spans where a pipeline has them; any other scorer unchanged."""
    return scorer.reading(gold, predicted) if isinstance(scorer, MentionScorer) else scorer


def with_labels(scorer: ExampleScorer, labels: Sequence[str]) -> ExampleScorer:
    """Return a copy of a `SpanScorer` without a fixed label set that has this one; any other scorer unchanged."""
    if not isinstance(scorer, SpanScorer) or scorer.labels is not None:
        return scorer
    fixed = copy(scorer)
    fixed.labels = list(labels)
    return fixed
