"""Finds the scored spans of documents once, so that any threshold can be applied to them afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from spacy import util
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import unannotated_docs
from gliner_pipe.metrics.alignment import paired_spans
from gliner_pipe.metrics.base import SpanScorer
from gliner_pipe.metrics.counts import Mention
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.inference import TokenBudget, predict_spans
from gliner_pipe.modeling.span_reps.base import SpanRep
from gliner_pipe.modeling.span_reps.token_level import TokenLevel
from gliner_pipe.pipeline.gliner.restrictions import matching, patterns_of
from gliner_pipe.pipeline.word_splitters import Words

#: Temporary span group for the candidates.
_KEY = "candidates"


@dataclass
class DocCandidates:
    """Gold mentions and candidates of one document.

    Attributes
    ----------
    gold
        Gold mentions.
    candidates
        Candidates in the order that the decoder expects.
    mentions
        The mention of each candidate, in the same offsets as `gold`, by its first word, last word and label; None for a
        candidate that does not align with token boundaries.
    tokens
        First token, end token and label of each candidate, likewise; None where words are tokens, so that alignment
        makes no conflicts.
    """

    gold: set[Mention]
    candidates: list[Candidate]
    mentions: Mapping[tuple[int, int, int], Mention | None]
    tokens: Mapping[tuple[int, int, int], tuple[int, int, str] | None] | None = None


def scores_ignore_threshold(component: Any) -> bool:
    """Say whether the span scores of a component are the same under any threshold.

    They are if all spans are scored and those above their threshold become candidates, as in `SpanRep.find`. They also
    are with token-level scores: the score of a span is the minimum over its words, which must all exceed the threshold.
    They are not if spans are found by their words and scored again (``represent_spans``), if a language model generates
    the labels, or in any other span representation.
    """
    if generates_labels(component):
        return False
    span_rep = component.gliner.span_rep
    if type(span_rep) is TokenLevel:
        return not span_rep.represent_spans
    return type(span_rep).find is SpanRep.find


def generates_labels(component: Any) -> bool:
    """Say whether a language model generates the labels of entities, so that no label can have a threshold."""
    writer = component.gliner.label_generator
    return writer is not None and (writer.mode == "prompt" or component.cfg["use_generated_labels"])


def find_candidates(
    nlp: Language,
    component: Any,
    examples: Sequence[Example],
    scorer: SpanScorer,
    floor: float,
    batch_size: int,
) -> list[DocCandidates]:
    """Find the candidates of documents.

    Parameters
    ----------
    nlp, component
        The pipeline and its ``gliner`` component, with the labels to predict. Components before it are run.
    examples
        Gold documents.
    scorer
        Selects the gold mentions and their unit.
    floor
        Minimum score of a candidate; a label with a lower threshold of its own has that as minimum.
    batch_size
        Documents per batch.

    Raises
    ------
    ConfigError
        If a document has labels of its own.
    """
    component._ready()
    names = [name for name, _ in nlp.pipeline]
    at = next(place for place, (_, pipe) in enumerate(nlp.pipeline) if pipe is component)
    with nlp.select_pipes(disable=names[at:]):
        docs = list(nlp.pipe(unannotated_docs(nlp, examples), batch_size=batch_size))
    documents = []
    size = component.cfg["batch_size"] or batch_size
    for batch in util.minibatch(zip(docs, examples, strict=True), size=size):
        found = _predict_candidates(component, [doc for doc, _ in batch], floor)
        for (doc, example), candidates in zip(batch, found, strict=True):
            words = component.word_splitter.split(doc)
            spans = _spans(component, doc, words, candidates)
            doc.spans[_KEY] = [span for span in spans if span is not None]
            pair = Example(doc, example.reference)
            gold, aligned = paired_spans(pair, scorer.getters[0], _KEY, scorer.unit)
            following = iter(aligned)
            mentions = {
                candidate[:3]: None if span is None else next(following)
                for candidate, span in zip(candidates, spans, strict=True)
            }
            kept = {item for item in gold if scorer.labels is None or item[0] in scorer.labels}
            tokens = None
            if words.offsets is not None:
                tokens = {
                    candidate[:3]: None if span is None else (span.start, span.end, span.label_)
                    for candidate, span in zip(candidates, spans, strict=True)
                }
            documents.append(DocCandidates(kept, candidates, mentions, tokens))
    return documents


def _predict_candidates(component: Any, docs: Sequence[Doc], floor: float) -> list[list[Candidate]]:
    model = component.gliner
    label_sets = [component.labels_of(doc) for doc in docs]
    if any(labels != component.label_items for labels in label_sets):
        raise ConfigError(
            "find_threshold",
            "found documents with labels of their own (doc._.gliner_labels)",
            "one label set for all documents",
            "Disable the component that sets them",
        )
    prepared = component.prepare(docs)
    component.add_to_report(prepared.report)
    limits = [np.minimum(one.limits, floor) for one in prepared.requests]
    budget = component.budget or TokenBudget(model.encoder.backbone.max_tokens)
    found = predict_spans(model, prepared.windows, limits, budget, given=prepared.given)
    candidates = []
    for some, request, words in zip(found, prepared.requests, prepared.read, strict=True):
        those = some.candidates
        if request.patterns:
            those = matching(those, request.labels, request.patterns, request.doc, request.words, words)
        candidates.append(
            [one._replace(start=words.number(one.start), end=words.number(one.end)) for one in those]
        )
    return candidates


def _spans(component: Any, doc: Doc, words: Words, candidates: Sequence[Candidate]) -> list[Span | None]:
    """Return the span of each candidate; None if it does not align with token boundaries, or with its pattern."""
    mode, patterns = component.cfg["alignment_mode"], patterns_of(component.label_items)
    found: list[Span | None] = []
    text = doc.text
    for start, end, label, _ in candidates:
        name = component.labels[label]
        span = words.span(doc, start, end, name, mode, text)
        fits = (
            span is not None and len(span) and (name not in patterns or patterns[name].fullmatch(span.text))
        )
        found.append(span if fits else None)
    return found
