"""Start and end word of a span and the last word of the text, joined by a two-layer network, in factored form."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor

from gliner_pipe.model.layers import projection
from gliner_pipe.registry import registry
from gliner_pipe.span_reps._marker import FactoredMarker, pick


@registry.span_reps.register("markerV2")
class MarkerV2(FactoredMarker):
    """A span is what its first and its last word say, and what the last word of the text says.

    Use it where words see the words before them only (causal backbones): the last word has read all of the text. With
    backbones that read both ways ``markerV0`` does as well for less.

    Parameters
    ----------
    max_width
        Words in the widest span.
    dropout
        Dropout of all hidden layers.

    Notes
    -----
    Source: GLiNER's ``SpanMarkerV2``; the factored form is this project's.
    """

    n_parts: ClassVar[int] = 3

    def __init__(self, max_width: PositiveInt = 12, dropout: float = 0.4) -> None:
        super().__init__(max_width, dropout)

    def build(self, hidden_size: int) -> None:
        """Make the projections."""
        super().build(hidden_size)
        self.project_context = projection(hidden_size, hidden_size, self.dropout)

    def context(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Projection of the last word of each row, ``(rows, hidden)``; zeros where there is none."""
        positions = torch.arange(words.shape[1], device=words.device)
        last = (positions * word_mask).amax(1, keepdim=True)
        return self.project_context(pick(words, last))[:, 0] * word_mask.any(1, keepdim=True)
