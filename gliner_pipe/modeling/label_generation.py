"""Training loss of generated labels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gliner_pipe.modeling.batch import LabelGenerationTargets
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
