"""What a batch teaches about written labels, and the vectors that these are written from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from gliner_pipe.modeling.batch import WritingTargets
from gliner_pipe.modeling.span_reps.base import Readings, by_row

if TYPE_CHECKING:
    from gliner_pipe.modeling.decoders.generative import GenerativeDecoder

#: What the model is asked for where it shall find entities of any kind.
BLANK_LABEL = "entity"


def bare_slots(writer: GenerativeDecoder | None, n_slots: int) -> tuple[str, ...] | None:
    """What the model reads where the prompt holds entity tokens without labels; None where it holds labels."""
    return None if writer is None or writer.mode != "prompt" else ("",) * n_slots


def writing_loss(model: Any, read: Readings, word_mask: Tensor, gold: WritingTargets) -> Tensor:
    """Loss of written labels, as a sum.

    Parameters
    ----------
    model
        With a decoder that writes.
    read
        Words and labels.
    word_mask
        False for padding, ``(rows, words)``.
    gold
        What is right.
    """
    assert model.writer is not None
    if model.writer.mode == "prompt":
        vectors = read.labels[gold.spans[:, 0], gold.spans[:, 1]]
    else:
        places, listed = by_row(gold.spans, len(word_mask))
        vectors = model.span_rep.represent(read.span_words, places, word_mask)[listed]
    return model.writer.loss(vectors, gold.words, gold.labels)
