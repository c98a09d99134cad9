"""From the scores of words to entities, and from entities to annotations of a spaCy document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup
from torch import Tensor

from gliner_pipe.data.annotations import SpanSetter, span_places
from gliner_pipe.data.token_targets import write_value
from gliner_pipe.modeling.token_classifier import TokenClassifier
from gliner_pipe.pipeline.annotate import UNALIGNED, Entity, set_ents
from gliner_pipe.pipeline.word_splitters import WordSplitter


def find(model: TokenClassifier, emissions: Sequence[Tensor], *, words: bool) -> list[list[Entity]]:
    """Decode whole texts.

    Parameters
    ----------
    model
        With weights.
    emissions
        Of each text, from ``model.score``.
    words
        Whether each word has a label, and not each span.

    Returns
    -------
    list of list of Entity
        For each text, ordered by start; with `words` they are one word each.
    """
    if words:
        return [_words(model, *one) for one in model.decoder.decode_words(emissions)]
    return [
        [Entity(start, end, model.labels[label], score) for start, end, label, score in one]
        for one in model.decoder.decode(emissions)
    ]


def _words(model: TokenClassifier, tags: Tensor, scores: Tensor) -> list[Entity]:
    """Return the best label of each word that has one."""
    owners = model.decoder.tables.labels.tolist()
    found = []
    for word, (row, chances) in enumerate(zip(tags.tolist(), scores.tolist(), strict=True)):
        labels = [owners[chain][tag] for chain, tag in enumerate(row)]
        named = [pair for pair in zip(chances, labels, strict=True) if pair[1] >= 0]
        if named:
            score, label = max(named)
            found.append(Entity(word, word, model.labels[label], score))
    return found


def write_spans(
    doc: Doc,
    entities: Sequence[Entity],
    *,
    setter: SpanSetter,
    labels: Sequence[str],
    splitter: WordSplitter,
    settings: Mapping[str, Any],
    report: Counter[str],
) -> None:
    """Write entities to the places of a span setter; groups get ``attrs["scores"]``.

    Parameters
    ----------
    doc
        Changed in place.
    entities
        In words.
    setter
        ``"ents"`` takes the best entities that do not overlap, ``"*"`` is a group for each label.
    labels
        Each has a group, perhaps empty, where the setter has ``"*"``.
    splitter
        What the words are.
    settings
        Of the component.
    report
        Counts what could not be written.
    """
    words = splitter.split(doc)
    found: list[tuple[Span, float]] = []
    for entity in entities:
        span = words.span(doc, entity.start, entity.end, entity.label, settings["alignment_mode"])
        if span is None or not len(span):
            report[UNALIGNED] += 1
        else:
            found.append((span, entity.score))
    for place, wanted in span_places(setter).items():
        chosen = [item for item in found if wanted is None or item[0].label_ in wanted]
        if place == "ents":
            spans, scores = [span for span, _ in chosen], [score for _, score in chosen]
            set_ents(doc, spans, scores, settings["overwrite_ents"], report)
        elif place == "*":
            for label in labels:
                if wanted is None or label in wanted:
                    _set_group(doc, label, [item for item in chosen if item[0].label_ == label])
        else:
            _set_group(doc, place, chosen)


def write_words(doc: Doc, entities: Sequence[Entity], target: str) -> None:
    """Write the label of each word to an attribute of its token."""
    for entity in entities:
        for token in doc[entity.start : entity.end + 1]:
            write_value(token, target, entity.label)


def _set_group(doc: Doc, key: str, items: Sequence[tuple[Span, float]]) -> None:
    group = SpanGroup(doc, name=key, spans=[span for span, _ in items])
    group.attrs["scores"] = np.array([score for _, score in items], dtype=np.float32)
    doc.spans[key] = group
