"""Start and end word of a span and the mean of all words, joined by a two-layer network, in factored form."""

from __future__ import annotations

from typing import ClassVar

from pydantic import PositiveInt
from torch import Tensor

from gliner_pipe.model.layers import projection
from gliner_pipe.registry import registry
from gliner_pipe.span_reps._marker import FactoredMarker


@registry.span_reps.register("markerV1")
class MarkerV1(FactoredMarker):
    """A span is what its first and its last word say, and what the text says on average.

    Use it for checkpoints that were trained with it; ``markerV2`` is its successor. All spans of a row share the mean,
    so it is one vector a row here and not one a span.

    Parameters
    ----------
    max_width
        Words in the widest span.
    dropout
        Dropout of all hidden layers.

    Notes
    -----
    Source: GLiNER's ``SpanMarkerV1``; the factored form is this project's. The mean is over the words of the row
    itself. GLiNER's is over the padding too, so that there a text's scores depend on the longest text of its batch;
    without padding both give the same numbers.
    """

    n_parts: ClassVar[int] = 3

    def __init__(self, max_width: PositiveInt = 12, dropout: float = 0.4) -> None:
        super().__init__(max_width, dropout)

    def build(self, hidden_size: int) -> None:
        """Make the projections."""
        super().build(hidden_size)
        # GLiNER's checkpoints hold this projection, though no span is made with it: kept so that they load and save
        # whole, frozen since it can never have a gradient.
        self.project_first = projection(hidden_size, hidden_size, self.dropout).requires_grad_(False)

    def context(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Mean of the words of each row, ``(rows, hidden)``; zeros where there are none."""
        mask = word_mask[..., None]
        return words.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp_min(1)
