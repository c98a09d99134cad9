"""What is kept out of training: documents to validate on, and labels that are to stay unseen."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import (
    DEFAULT_SPANS_KEY,
    SpanSetter,
    gold_spans,
    set_supervision,
    supervision,
)
from gliner_pipe.errors import ConfigError, DataError

#: What relations of entities with a held-out label are counted as.
RELATIONS = "relations of these entities"


def hold_out(documents: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Split documents at random into those to train on and those to validate on.

    Parameters
    ----------
    documents
        Whole documents: parts of one document must not fall on both sides.
    share
        Share to be held out, between 0 and 1; at least one document falls on each side.
    seed
        Decides which: the same documents and seed give the same split.

    Returns
    -------
    tuple of list of Example
        To train on and held out, both in the order of `documents`.

    Raises
    ------
    ConfigError
        If the share is none.
    DataError
        If there are fewer than two documents.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise ConfigError("train.validation_split", f"is {share!r}", "a share between 0 and 1, e.g. 0.1")
    if len(documents) < 2:
        found = f"has {len(documents)} document{'s' * (len(documents) != 1)}, too few to hold some out"
        raise DataError("train.train_data", found, "at least 2", "Name val_data instead of validation_split")
    number = min(max(1, round(share * len(documents))), len(documents) - 1)
    held = set(random.Random(f"{seed}-hold-out").sample(range(len(documents)), number))
    return (
        [document for i, document in enumerate(documents) if i not in held],
        [document for i, document in enumerate(documents) if i in held],
    )


def drop_labels(
    examples: list[Example], labels: Collection[str], spans_key: SpanSetter = DEFAULT_SPANS_KEY
) -> Counter[str]:
    """Take entities with some labels out of examples, so that a model does not get to see these labels.

    Relations of these entities go with them, those that remain count anew; the labels are taken out of
    ``ner_labels`` and ``ner_negatives``, too.

    Parameters
    ----------
    examples
        Changed in place: an example that has such a label gives way to a copy without it. The example itself
        stays as it is.
    labels
        The labels.
    spans_key
        Span group that relations count in. Entities are taken out of all groups and of ``doc.ents``.

    Returns
    -------
    Counter
        Number of entities by label, and of relations as :data:`RELATIONS`.
    """
    unwanted = set(labels)
    dropped: Counter[str] = Counter()
    for i, example in enumerate(examples):
        if _mentions(example.reference, unwanted):
            examples[i] = Example(
                example.predicted, _without(example.reference, unwanted, spans_key, dropped)
            )
    return +dropped


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
