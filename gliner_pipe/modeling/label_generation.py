"""Training loss of generated labels, and the prompt of label generators."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gliner_pipe.modeling.batch import LabelGenerationTargets
from gliner_pipe.modeling.decoders.generative import GenerativeDecoder
from gliner_pipe.modeling.span_reps.base import Representations, by_row

#: Prompt label that stands for entities of any kind.
BLANK_LABEL = "entity"


def bare_slots(generator: GenerativeDecoder | None, n_slots: int) -> tuple[str, ...] | None:
    """Return the prompt for mode ``prompt``: entity tokens without labels; None if the prompt holds labels."""
    return None if generator is None or generator.mode != "prompt" else ("",) * n_slots


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
