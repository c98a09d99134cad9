"""First word of a span, through a layer for the span's width."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.span_reps._stacked import FirstWordSpanRep


@registry.span_reps.register("mlp")
class Mlp(FirstWordSpanRep):
    """A span is its first word, through a layer that spans of this many words have for themselves.

    The span's vector is ``relu(W_k w_i + b_k)``. It reads no word but the first, so all that it knows of the rest is
    what the encoder put there; use it for checkpoints that were trained with it.

    Parameters
    ----------
    max_width
        Words in the widest span; the weights are made for this number and no other.

    Notes
    -----
    Source: GLiNER's ``SpanMLP``.
    """

    def __init__(self, max_width: PositiveInt = 12) -> None:
        super().__init__(max_width)

    def build(self, hidden_size: int) -> None:
        """Make the layers of all widths, as one."""
        self.mlp = nn.Linear(hidden_size, hidden_size * self.max_width)

    def from_first(self, words: Tensor, k: int) -> Tensor:
        """Vectors of the spans of ``k + 1`` words that start at `words`."""
        size = words.shape[-1]
        own = slice(k * size, (k + 1) * size)
        return F.linear(words, self.mlp.weight[own], self.mlp.bias[own]).relu()
