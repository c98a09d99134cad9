"""Keeps documents for validation and unseen labels out of the training data."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import (
    DEFAULT_SPANS_KEY,
    SpanSetter,
    gold_spans,
    set_supervision,
    supervision,
)
from gliner_pipe.data.lazy import Changed, LazyExamples, Subset
from gliner_pipe.errors import DataError

#: Key of the count of relations that are removed with their entities.
RELATIONS = "relations of these entities"


def hold_out(
    documents: Sequence[Example], share: float, seed: int
) -> tuple[Sequence[Example], list[Example]]:
    """Split documents at random into training and validation documents.

    Parameters
    ----------
    documents
        Whole documents, so that parts of one document are never on both sides.
    share
        Share to hold out, between 0 and 1; each side has at least one document.
    seed
        Seed of the random choice: the same documents and seed give the same split.

    Returns
    -------
    tuple
        Training documents and held-out documents, both in the order of `documents`. The held-out ones are in memory.

    Raises
    ------
    DataError
        Fewer than two documents.
    """
    if len(documents) < 2:
        found = f"has {len(documents)} document{'s' * (len(documents) != 1)}, too few to hold some out"
        raise DataError("train.train_data", found, "at least 2", "Set val_data instead of validation_split")
    number = min(max(1, round(share * len(documents))), len(documents) - 1)
    held = set(random.Random(f"{seed}-hold-out").sample(range(len(documents)), number))
    if isinstance(documents, LazyExamples):
        rest = np.setdiff1d(np.arange(len(documents), dtype=np.int32), list(held), assume_unique=True)
        return Subset(documents, array("i", rest.tolist())), [documents[i] for i in sorted(held)]
    return (
        [document for i, document in enumerate(documents) if i not in held],
        [document for i, document in enumerate(documents) if i in held],
    )


def without_labels(
    examples: Sequence[Example], labels: Collection[str], spans_key: SpanSetter
) -> tuple[Sequence[Example], Counter[str]]:
    """Return examples without the annotations of some labels, and the counts of :func:`drop_labels`."""

    def dropped(some: Iterable[Example]) -> Counter[str]:
        return drop_labels(list(some), labels, spans_key)

    if isinstance(examples, LazyExamples):
        counts = sum(examples.in_blocks(dropped, "counting unseen labels"), Counter[str]())
        return Changed(examples, lambda one: _changed(one, set(labels), spans_key, Counter())), counts
    changed = list(examples)
    return changed, drop_labels(changed, labels, spans_key)


def drop_labels(
    examples: list[Example], labels: Collection[str], spans_key: SpanSetter = DEFAULT_SPANS_KEY
) -> Counter[str]:
    """Remove entities with some labels from examples, so that a model is not trained on these labels.

    Relations of these entities are removed too, and the indices of the others adjusted. The labels are also removed
    from ``ner_labels`` and ``ner_negatives``.

    Parameters
    ----------
    examples
        Changed in place: an example with such a label is replaced by a copy without it. The example itself is not
        changed.
    labels
        The labels to remove.
    spans_key
        Span group whose positions relations refer to. Entities are removed from all groups and from ``doc.ents``.

    Returns
    -------
    Counter
        Number of removed entities by label, and of removed relations as :data:`RELATIONS`.
    """
    unwanted = set(labels)
    dropped: Counter[str] = Counter()
    for i, example in enumerate(examples):
        examples[i] = _changed(example, unwanted, spans_key, dropped)
    return +dropped


def _changed(example: Example, labels: set[str], spans_key: SpanSetter, dropped: Counter[str]) -> Example:
    if not _mentions(example.reference, labels):
        return example
    return Example(example.predicted, _without(example.reference, labels, spans_key, dropped))


def _mentions(doc: Doc, labels: set[str]) -> bool:
    stored = supervision(doc)
    named = {*stored.get("ner_labels", []), *stored.get("ner_negatives", [])}
    groups = (*doc.spans.values(), doc.ents)
    return bool(named & labels) or any(span.label_ in labels for group in groups for span in group)


def _without(doc: Doc, labels: set[str], spans_key: SpanSetter, dropped: Counter[str]) -> Doc:
    spans = gold_spans(doc, spans_key)
    dropped.update(span.label_ for span in spans if span.label_ in labels)
    places: dict[int, int] = {}
    for number, span in enumerate(spans):
        if span.label_ not in labels:
            places[number] = len(places)
    copy = doc.copy()
    for key, group in list(copy.spans.items()):
        copy.spans[key] = [span for span in group if span.label_ not in labels]
    unwanted = [ent for ent in copy.ents if ent.label_ in labels]
    if unwanted:
        copy.set_ents([], outside=unwanted, default="unmodified")
    set_supervision(copy, **_fields(doc, labels, places, dropped))
    return copy


def _fields(doc: Doc, labels: set[str], places: dict[int, int], dropped: Counter[str]) -> dict[str, Any]:
    stored: dict[str, Any] = dict(supervision(doc))
    for name in ("ner_labels", "ner_negatives"):
        if name in stored:
            stored[name] = [label for label in stored[name] if label not in labels]
    if "relations" in stored:
        kept = [
            [places[head], places[tail], label]
            for head, tail, label in stored["relations"]
            if head in places and tail in places
        ]
        dropped[RELATIONS] += len(stored["relations"]) - len(kept)
        stored["relations"] = kept
    return stored
