"""Scorers of spans, registered for spaCy and for confit: exact, overlap, token, zero-shot, and spaCy's own scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field
from spacy.scorer import Scorer
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import has_entities_annotated, span_places, trimmed
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.alignment import SpanGetter, Unit, get_spans
from gliner_pipe.metrics.base import AveragedSpanScorer, SpanScorer
from gliner_pipe.metrics.classes import score_component_classes
from gliner_pipe.metrics.counts import LabelCounts, count_overlap, count_token, score_mentions
from gliner_pipe.metrics.error_kinds import ErrorKindScorer
from gliner_pipe.metrics.records import score_component_records
from gliner_pipe.metrics.relations import score_component_relations
from gliner_pipe.metrics.seqeval import SeqevalScorer
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Share

logger = logging.getLogger("gliner_pipe")


@registry.scorers.register("gliner_pipe.ner_exact")
class ExactScorer(AveragedSpanScorer):
    """Counts a predicted span as correct if its label and both boundaries match a gold span.

    Use it as the main score: published entity-level F1 is computed this way. Parameters: see `AveragedSpanScorer`.
    """


@registry.scorers.register("gliner_pipe.ner_overlap")
@dataclass(eq=False)
class OverlapScorer(AveragedSpanScorer):
    """Counts a predicted span as correct if its Dice overlap with a gold span of its label reaches a threshold.

    Use it where the position of an entity matters more than its exact boundaries. Precision counts predicted spans and
    recall gold spans: two predictions that each overlap enough with one gold span are both correct.

    Parameters
    ----------
    span_getter, predicted_getter, labels, micro_key, macro_key
        See `AveragedSpanScorer`.
    threshold
        Minimum Dice overlap in tokens, above 0 and at most 1 (which equals the exact score).

    Raises
    ------
    ConfigError
        If the threshold is out of range.
    """

    unit: ClassVar[Unit] = "tokens"

    threshold: Annotated[Share, Field(gt=0)] = 0.5

    def count(self, gold: AbstractSet[Any], predicted: AbstractSet[Any]) -> LabelCounts:
        """Count the spans of one document by label."""
        return count_overlap(gold, predicted, self.threshold)


@registry.scorers.register("gliner_pipe.ner_token")
class TokenScorer(AveragedSpanScorer):
    """Counts tokens: a token is correct if it is inside a predicted and a gold span of the same label.

    Use it where the amount of covered text matters, as in de-identification. Parameters: see `AveragedSpanScorer`.
    """

    unit = "tokens"
    count = staticmethod(count_token)


@registry.scorers.register("gliner_pipe.zero_shot")
@dataclass(eq=False)
class ZeroShotScorer(AveragedSpanScorer):
    """Scores labels that were not trained on separately from the others, by exact spans.

    Use it in training with ``best_metric = "zero_shot.unseen.micro.f"`` to keep the model that generalises best. All
    labels are predicted together, so seen and unseen labels compete as in production: an unseen label predicted for a
    span of a seen one is a false positive among the unseen labels, and the span is missed among the seen ones.

    The result has ``unseen`` and ``seen``, each with a row for each label and the two averages.

    Parameters
    ----------
    span_getter, predicted_getter, micro_key, macro_key
        See `AveragedSpanScorer`.
    labels
        Fixed label set, seen and unseen; None for all labels of the data.
    unseen
        Labels that were not trained on; an evaluation with this scorer also predicts them.

    Raises
    ------
    ConfigError
        If `unseen` is empty.
    """

    unseen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.unseen:
            raise ConfigError("gliner_pipe.zero_shot.unseen", "is empty", "at least one label")
        self.unseen = list(dict.fromkeys(self.unseen))

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        pairs = self.pairs(examples)
        labels = self.labels
        if labels is None:
            labels = sorted({label for pair in pairs for side in pair for label, _, _ in side})
        groups = {"unseen": self.unseen, "seen": [label for label in labels if label not in self.unseen]}
        return {name: score_mentions(pairs, labels=group, **self.keys) for name, group in groups.items()}


@registry.scorers.register("gliner_pipe.spans_scorer.v1")
class ComponentScorer:
    """Computes spaCy's own exact scores under spaCy's names, for ``nlp.evaluate`` and ``spacy train``.

    Parameters
    ----------
    spans_key
        Key of the span group, gold and predicted.
    """

    def __init__(self, spans_key: str = "gliner") -> None:
        self.spans_key = spans_key

    def __call__(
        self,
        examples: Iterable[Example],
        *,
        spans_key: str | None = None,
        gold_spans_key: str | None = None,
        annotate_ents: bool | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Score one span group by ``Scorer.score_spans``, overlapping spans included.

        Gold documents with neither the group nor annotated entities are skipped. spaCy drops predicted spans that do
        not align with the tokens of the reference before counting; `ExactScorer` counts them as wrong.

        Parameters
        ----------
        examples
            Gold and predicted documents.
        spans_key
            Key of the predicted span group; the scorer's own by default. spaCy passes the setting of a component.
        gold_spans_key
            Key of the gold span group, if different; a document without it is read from its ``doc.ents``.
        annotate_ents
            Whether to score ``doc.ents``, too; by default if any were predicted. spaCy passes the setting of a
            component.

        Returns
        -------
        dict[str, Any]
            ``spans_{spans_key}_p``, ``_r``, ``_f`` and ``_per_type``; all None if there was nothing to measure. If
            ``doc.ents`` are scored, also the scores of `score_ents`. If relations were predicted and gold relations are
            known, also those of `score_component_relations`; likewise for classes and records.
        """
        examples = list(examples)
        key = spans_key or self.spans_key
        gold_key = gold_spans_key or key
        scores = _spacy_scores(examples, f"spans_{key}", gold_key, key)
        if annotate_ents is None:
            annotate_ents = any(example.predicted.has_annotation("ENT_IOB") for example in examples)
        if annotate_ents:
            scores |= score_ents(examples, gold_key)
        else:
            _warn_of_nothing(examples)
        others = score_component_classes(examples) | score_component_records(examples)
        return {**scores, **score_component_relations(examples, gold_key), **others}


def score_ents(examples: Iterable[Example], gold_getter: SpanGetter) -> dict[str, Any]:
    """Score ``doc.ents`` under the names of spaCy's ``ner``, which ``spacy evaluate`` prints.

    Parameters
    ----------
    examples
        Gold and predicted documents.
    gold_getter
        Where the gold spans of a document without gold ``doc.ents`` are read. Those that overlap others count, too.

    Returns
    -------
    dict[str, Any]
        ``ents_p``, ``ents_r``, ``ents_f`` and ``ents_per_type``; all None if there was nothing to measure.
    """
    examples = list(examples)
    _warn_of_nothing(examples)
    return _spacy_scores(examples, "ents", gold_getter, "ents", ents_first=True)


def _warn_of_nothing(examples: Sequence[Example]) -> None:
    """Warn that there are no documents: ``spacy evaluate`` reads none from other files than its own."""
    if not examples:
        logger.warning(
            "warning: there are no documents to score. spaCy's own commands read .spacy files only. For data in any "
            "other format: gliner-pipe evaluate PIPELINE DATA"
        )


def _spacy_scores(
    examples: Sequence[Example],
    name: str,
    gold: SpanGetter,
    predicted: SpanGetter,
    *,
    ents_first: bool = False,
) -> dict[str, Any]:
    """Return the scores of ``Scorer.score_spans`` under ``{name}_p`` and so on; gold documents without spans count not.

    With `ents_first` gold spans are read from ``doc.ents`` where a document has some, else from `gold`.
    """
    references = {id(example.reference) for example in examples}
    groups = [place for place in span_places(gold) if place != "*"]

    def place_of(doc: Doc) -> SpanGetter:
        if id(doc) not in references:
            return predicted
        return "ents" if ents_first and doc.has_annotation("ENT_IOB") else gold

    def has_annotation(doc: Doc) -> bool:
        if id(doc) not in references:
            return True
        known = any(group in doc.spans for group in groups) if groups else bool(doc.spans)
        return has_entities_annotated(doc) and (known or doc.has_annotation("ENT_IOB"))

    def getter(doc: Doc, _: str) -> list[Span]:
        return [trimmed(span) or span for span in get_spans(doc, place_of(doc))]

    scores: dict[str, Any] = Scorer.score_spans(
        examples, name, getter=getter, has_annotation=has_annotation, labeled=True, allow_overlap=True
    )
    return scores


#: Built-in metrics by their names on command lines and in config files.
METRICS: Mapping[str, Callable[..., SpanScorer]] = {
    "exact": ExactScorer,
    "overlap": OverlapScorer,
    "token": TokenScorer,
    "seqeval": SeqevalScorer,
    "errors": ErrorKindScorer,
}

#: Metrics computed by default.
DEFAULT_METRICS = ("exact", "overlap", "token")
