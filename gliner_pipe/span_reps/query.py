"""First word of a span, weighed by a vector for the span's width."""

from __future__ import annotations

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.span_reps._stacked import FirstWordSpanRep


@registry.span_reps.register("query")
class Query(FirstWordSpanRep):
    """A span is its first word, each number of it weighed by what was learned for spans of this many words.

    The span's vector is ``relu(W (w_i * q_k) + b)``. It reads no word but the first, so all that it knows of the rest
    is what the encoder put there; use it for checkpoints that were trained with it.

    Parameters
    ----------
    max_width
        Words in the widest span; the weights are made for this number and no other.

    Notes
    -----
    Source: GLiNER's ``SpanQuery``.
    """

    def __init__(self, max_width: PositiveInt = 12) -> None:
        super().__init__(max_width)

    def build(self, hidden_size: int) -> None:
        """Make a vector for each width, and the projection."""
        self.query_seg = nn.Parameter(torch.empty(hidden_size, self.max_width).uniform_(-1, 1))
        self.project = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.ReLU())

    def from_first(self, words: Tensor, k: int) -> Tensor:
        """Vectors of the spans of ``k + 1`` words that start at `words`."""
        return self.project(words * self.query_seg[:, k])
