"""From documents to predictions: what the component does when it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spacy.tokens import Doc

from gliner_pipe import annotate
from gliner_pipe.encoders.base import Query
from gliner_pipe.labels import LabelItem
from gliner_pipe.model.inference import Findings, TokenBudget, find

if TYPE_CHECKING:
    from gliner_pipe.component import Gliner


def predict(component: Gliner, docs: Sequence[Doc]) -> list[annotate.Prediction]:
    """Find what the component looks for in documents, all at once.

    Parameters
    ----------
    component
        With weights.
    docs
        Left as they are.

    Returns
    -------
    list of Prediction
        In words of the documents.
    """
    model = component.gliner
    annotate.install_extensions()  # a spawned process has none
    labels = [component.labels_of(doc) for doc in docs]
    split = component.word_splitter.split
    words = [split(doc).texts if items else [] for doc, items in zip(docs, labels, strict=True)]
    queries = [Query(tuple(item.text for item in items)) for items in labels]
    with component.placed():
        windows = model.encoder.prepare(words, queries, model.min_overlap, component.report)
    limits = [[component.limit(item) for item in items] for items in labels]
    if component.budget is None:
        component.budget = TokenBudget(model.encoder.backbone.max_tokens)
    found = find(model, windows, limits, component.budget)
    return [_prediction(component, *pair) for pair in zip(found, labels, strict=True)]


def _prediction(component: Gliner, found: Findings, items: Sequence[LabelItem]) -> annotate.Prediction:
    settings = component.cfg
    kept = component.gliner.decoder.decode(
        found.candidates, flat=settings["flat_ner"], multi_label=settings["multi_label"]
    )
    return annotate.Prediction([annotate.Entity(c.start, c.end, items[c.label].label, c.score) for c in kept])
