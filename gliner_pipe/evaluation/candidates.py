"""The spans that a pipeline weighs, with their scores, found once for any thresholds."""

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
from gliner_pipe.evaluation.label_sets import fresh_docs
from gliner_pipe.metrics.alignment import SpanGetter, Unit, paired_spans
from gliner_pipe.metrics.counts import CountFunction, Counts, Mention
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.inference import TokenBudget, predict_spans
from gliner_pipe.modeling.span_reps.base import SpanRep
from gliner_pipe.modeling.span_reps.token_level import TokenLevel
from gliner_pipe.pipeline.word_splitters import read_words

#: The span group that candidates are put into on documents of our own.
_KEY = "candidates"


def weighs_apart(component: Any) -> bool:
    """Say whether each score of a component is the same under any threshold.

    It is where all spans are scored and those above their thresholds are candidates, which is what `SpanRep.find` does.
    For tokens, the score of a span is the least of its words' scores, all of which must reach the threshold: the same.
    It is not where spans found by their words are scored once more (``represent_spans``), nor can that be said of other
    ways; nor of the label where a language model writes it.
    """
    if writes_labels(component):
        return False
    span_rep = component.gliner.span_rep
    if type(span_rep) is TokenLevel:
        return not span_rep.represent_spans
    return type(span_rep).find is SpanRep.find


def writes_labels(component: Any) -> bool:
    """Say whether entities bear labels that a language model wrote, so that no threshold of a label reaches them."""
    writer = component.gliner.label_generator
    return writer is not None and (writer.mode == "prompt" or component.cfg["use_generated_labels"])


@dataclass
class Weighed:
    """What was found in one document, before thresholds.

    Attributes
    ----------
    gold
        Gold mentions.
    candidates
        Ordered as a decoder takes them.
    mentions
        What each candidate is in offsets common with gold, by its words and label; None for one that is not on the
        borders of tokens.
    """

    gold: set[Mention]
    candidates: list[Candidate]
    mentions: Mapping[tuple[int, int, int], Mention | None]


class Candidates:
    """Candidates of all documents.

    Parameters
    ----------
    component
        The ``gliner`` component.
    documents
        One entry a document.
    labels
        Names of the labels that were asked for.
    count
        What counts as right.
    """

    def __init__(
        self, component: Any, documents: Sequence[Weighed], labels: Sequence[str], count: CountFunction
    ) -> None:
        self.component, self.documents, self.labels, self.count = component, documents, labels, count

    def counts(self, index: int, limits: np.ndarray[Any, Any]) -> Mapping[str, Counts]:
        """Counts of one document by label, with a threshold for each label."""
        document = self.documents[index]
        passed = [candidate for candidate in document.candidates if candidate.score > limits[candidate.label]]
        settings = self.component.cfg
        kept = self.component.gliner.decoder.decode(
            passed, flat=settings["flat_ner"], multi_label=settings["multi_label"]
        )
        found = {document.mentions[candidate[:3]] for candidate in kept}
        return self.count(document.gold, {mention for mention in found if mention is not None})

    def events(self, varied: Sequence[int]) -> list[tuple[float, int]]:
        """Scores of candidates of some labels with the number of their document, the highest first."""
        wanted = set(varied)
        scores = {
            (candidate.score, index)
            for index, document in enumerate(self.documents)
            for candidate in document.candidates
            if candidate.label in wanted
        }
        return sorted(scores, reverse=True)


def weigh(
    nlp: Language,
    component: Any,
    examples: Sequence[Example],
    *,
    floor: float,
    gold_getter: SpanGetter,
    unit: Unit,
    count: CountFunction,
    gold_labels: Sequence[str] | None,
    batch_size: int | None,
) -> Candidates:
    """Find the candidates of documents.

    Parameters
    ----------
    nlp, component
        The pipeline and its ``gliner`` component, with the labels to ask for.
    examples
        Gold documents.
    floor
        Least score of a candidate; less for a label whose own threshold is lower.
    gold_getter
        Where gold spans stand.
    unit
        Of the mentions.
    count
        What counts as right.
    gold_labels
        Gold spans of others are left out.
    batch_size
        Documents a batch.
    """
    component._ready()
    names = [name for name, _ in nlp.pipeline]
    at = next(place for place, (_, pipe) in enumerate(nlp.pipeline) if pipe is component)
    size = batch_size or nlp.batch_size
    with nlp.select_pipes(disable=names[at:]):
        docs = list(nlp.pipe(fresh_docs(nlp, examples), batch_size=size))
    documents = []
    for batch in util.minibatch(zip(docs, examples, strict=True), size=component.cfg["batch_size"] or size):
        found = _find(component, [doc for doc, _ in batch], floor)
        for (doc, example), candidates in zip(batch, found, strict=True):
            spans, mentions = _mentions(component, doc, candidates), {}
            doc.spans[_KEY] = [span for span in spans if span is not None]
            gold, aligned = paired_spans(Example(doc, example.reference), gold_getter, _KEY, unit)
            following = iter(aligned)
            for candidate, span in zip(candidates, spans, strict=True):
                mentions[candidate[:3]] = None if span is None else next(following)
            kept = {item for item in gold if gold_labels is None or item[0] in gold_labels}
            documents.append(Weighed(kept, candidates, mentions))
    return Candidates(component, documents, component.labels, count)


def _find(component: Any, docs: Sequence[Doc], floor: float) -> list[list[Candidate]]:
    model = component.gliner
    asked = [component.labels_of(doc) for doc in docs]
    if any(labels != component.label_items for labels in asked):
        raise ConfigError(
            "find_threshold",
            "found documents that are asked for labels of their own (doc._.gliner_labels)",
            "one label set for all documents",
            "Disable the component that sets them",
        )
    queries = [
        Query(
            tuple(item.text for item in labels),
            tuple(item.text for item in component.relations_of(doc)) if labels else (),
        )
        for doc, labels in zip(docs, asked, strict=True)
    ]
    with component.placed():
        read, pieces = read_words(
            model.encoder.backbone, [component.word_splitter.split(doc) for doc in docs]
        )
        texts = [words.texts for words in read]
        windows = model.encoder.prepare(texts, queries, model.min_overlap, component.report, pieces)
    limits = [[min(floor, component.limit(item)) for item in labels] for labels in asked]
    budget = component.budget or TokenBudget(model.encoder.backbone.max_tokens)
    return [
        [one._replace(start=words.number(one.start), end=words.number(one.end)) for one in some.candidates]
        for some, words in zip(predict_spans(model, windows, limits, budget), read, strict=True)
    ]


def _mentions(component: Any, doc: Doc, candidates: Sequence[Candidate]) -> list[Span | None]:
    """The span of each candidate, where it is on the borders of tokens."""
    words, mode = component.word_splitter.split(doc), component.cfg["alignment_mode"]
    spans = (
        words.span(doc, start, end, component.labels[label], mode) for start, end, label, _ in candidates
    )
    return [span if span is not None and len(span) else None for span in spans]
