"""Label generation for the spans that were found, and its training loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gliner_pipe.modeling.batch import LabelGenerationTargets, SpanVectors
from gliner_pipe.modeling.decoders.generative import GenerativeDecoder
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.span_reps.base import Representations, by_row


def label_generation_loss(
    model: Any, vectors: Representations, word_mask: Tensor, gold: LabelGenerationTargets
) -> Tensor:
    """Return the loss of generated labels, as a sum.

    Parameters
    ----------
    model
        With a label generator.
    vectors
        Words and labels.
    word_mask
        False for padding, ``(rows, words)``.
    gold
        Gold labels and their spans or slots.
    """
    if model.label_generator.mode == "prompt":
        prefixes = vectors.labels[gold.spans[:, 0], gold.spans[:, 1]]
    else:
        places, listed = by_row(gold.spans, len(word_mask))
        prefixes = model.span_rep.represent(vectors.span_words, places, word_mask)[listed]
    loss: Tensor = model.label_generator.loss(prefixes, gold.words, gold.labels)
    return loss


def generate_labels(
    generator: GenerativeDecoder,
    entities: Sequence[Sequence[Candidate]],
    windows: Sequence[Sequence[SpanVectors]],
    words: Sequence[Sequence[str]],
    constraints: list[str] | None = None,
    n_sequences: int | None = None,
) -> list[list[tuple[str, ...]]]:
    """Generate labels for each entity of each text: for its span, or its slot in its window's prompt.

    Entities that share a span or a slot share the vector, so each vector is generated from once.

    Parameters
    ----------
    generator
        With weights.
    entities
        Selected entities of each text, in words.
    windows
        Span vectors of the windows of each text.
    words
        Words of each text.
    constraints
        The only labels to generate; None for any.
    n_sequences
        Labels per entity; None for the value of `generator`.
    """
    by_span = generator.mode == "span"
    vectors: list[Tensor] = []
    contexts: list[list[str]] = []
    rows: list[list[int]] = []  # for each entity of each text, its row of `vectors`
    for selected, found, texts in zip(entities, windows, words, strict=True):
        places: dict[tuple[int, int], tuple[int, int]] = {}
        for number, window in enumerate(found):
            for place, (start, end) in enumerate(window.spans.tolist()):
                places.setdefault((start, end), (number, place))
        known: dict[tuple[int, int], int] = {}
        rows.append([])
        for entity in selected:
            number, place = places[entity.start, entity.end]
            window = found[number]
            key = (number, place if by_span else entity.label)
            if key not in known:
                known[key] = len(vectors)
                vectors.append((window.vectors if by_span else window.labels)[key[1]])
                contexts.append(list(texts[entity.start : entity.end + 1]))
            rows[-1].append(known[key])
    if not vectors:
        return [[] for _ in entities]
    labels = generator.generate(torch.stack(vectors), contexts, constraints, n_sequences)
    return [[tuple(labels[row]) for row in of_one] for of_one in rows]
