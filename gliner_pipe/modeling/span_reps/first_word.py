"""Span representations made of the first word and the width of a span: ``query``, ``mlp`` and ``cat``."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from gliner_pipe.modeling.span_reps.by_width import FirstWordSpanRep
from gliner_pipe.registry import registry


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


#: Numbers that stand for a width.
WIDTH_SIZE = 128


@registry.span_reps.register("cat")
class Cat(FirstWordSpanRep):
    """A span is its first word beside what was learned for spans of this many words.

    The span's vector is ``relu(W [w_i; q_k] + b)``, which splits into a part of the word, computed once for all
    widths, and a part of the width, computed once for all words. It reads no word but the first, so all that it knows
    of the rest is what the encoder put there; use it for checkpoints that were trained with it.

    Parameters
    ----------
    max_width
        Words in the widest span; the weights are made for this number and no other.

    Notes
    -----
    Source: GLiNER's ``SpanCAT``; the factored form is this project's.
    """

    def __init__(self, max_width: PositiveInt = 12) -> None:
        super().__init__(max_width)

    def build(self, hidden_size: int) -> None:
        """Make a vector for each width, and the projection."""
        self.query_seg = nn.Parameter(torch.randn(WIDTH_SIZE, self.max_width))
        self.project = nn.Sequential(nn.Linear(hidden_size + WIDTH_SIZE, hidden_size), nn.ReLU())

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Give the vectors of all spans, width by width."""
        words = self._of_word(words[:, : words.shape[1] - self.max_width + 1])
        for k in range(self.max_width):
            yield (words + self._of_width(k)).relu()

    def from_first(self, words: Tensor, k: int) -> Tensor:
        """Vectors of the spans of ``k + 1`` words that start at `words`."""
        return (self._of_word(words) + self._of_width(k)).relu()

    def _of_word(self, words: Tensor) -> Tensor:
        layer = self._layer()
        return F.linear(words, layer.weight[:, :-WIDTH_SIZE], layer.bias)

    def _of_width(self, k: int) -> Tensor:
        # GLiNER reads its (128, widths) parameter as if it had been (widths, 128); so must we, for its weights.
        query = self.query_seg.view(self.max_width, WIDTH_SIZE)[k]
        return F.linear(query, self._layer().weight[:, -WIDTH_SIZE:])

    def _layer(self) -> nn.Linear:
        layer = self.project[0]
        assert isinstance(layer, nn.Linear)
        return layer
