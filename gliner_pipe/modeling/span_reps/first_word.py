"""Span representations that use only the first word and the width of a span: ``query``, ``mlp`` and ``cat``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.span_reps.by_width import StackedSpanRep
from gliner_pipe.registry import registry


class FirstWordSpanRep(StackedSpanRep):
    """Base class of the span representations that use only a span's first word and its width.

    The rest of the span counts only as far as the encoder put it into the first word: use them for checkpoints trained
    with them. Their weights depend on ``max_width``.
    """

    @abstractmethod
    def from_first(self, words: Tensor, k: int) -> Tensor:
        """Return the vectors of the spans of ``k + 1`` words that start at `words`, ``(..., hidden)``."""

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Yield the vectors of all spans, in order of width."""
        words = words[:, : words.shape[1] - self.max_width + 1]
        for k in range(self.max_width):
            yield self.from_first(words, k)

    def one_width(self, words: Tensor) -> Tensor:
        """Return the vectors of spans of one width."""
        return self.from_first(words[:, 0], words.shape[1] - 1)


@registry.span_reps.register("query")
class Query(FirstWordSpanRep):
    """The first word of the span, multiplied elementwise by a vector learned for the span's width.

    The span vector is ``relu(W (w_i * q_k) + b)``. Only the first word is used: use it for checkpoints trained with it.

    Notes
    -----
    Source: GLiNER's ``SpanQuery``.
    """

    def build(self, hidden_size: int) -> None:
        """Create a vector for each width, and the projection."""
        self.query_seg = nn.Parameter(torch.empty(hidden_size, self.max_width).uniform_(-1, 1))
        self.project = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.ReLU())

    def from_first(self, words: Tensor, k: int) -> Tensor:
        """Return the vectors of the spans of ``k + 1`` words that start at `words`."""
        return self.project(words * self.query_seg[:, k])


@registry.span_reps.register("mlp")
class Mlp(FirstWordSpanRep):
    """The first word of the span, through a linear layer of the span's width.

    The span vector is ``relu(W_k w_i + b_k)``. Only the first word is used: use it for checkpoints trained with it.

    Notes
    -----
    Source: GLiNER's ``SpanMLP``.
    """

    def build(self, hidden_size: int) -> None:
        """Create the layers of all widths as one."""
        self.mlp = nn.Linear(hidden_size, hidden_size * self.max_width)

    def from_first(self, words: Tensor, k: int) -> Tensor:
        """Return the vectors of the spans of ``k + 1`` words that start at `words`."""
        size = words.shape[-1]
        own = slice(k * size, (k + 1) * size)
        return F.linear(words, self.mlp.weight[own], self.mlp.bias[own]).relu()


#: Size of the width embedding.
WIDTH_SIZE = 128


@registry.span_reps.register("cat")
class Cat(FirstWordSpanRep):
    """The first word of the span, concatenated with an embedding of the span's width.

    The span vector is ``relu(W [w_i; q_k] + b)``. The product is split into a word part, computed once for all widths,
    and a width part, computed once for all words. Only the first word is used: use it for checkpoints trained with it.

    Notes
    -----
    Source: GLiNER's ``SpanCAT``; the factored form is this project's.
    """

    def build(self, hidden_size: int) -> None:
        """Create the width embeddings and the projection."""
        self.query_seg = nn.Parameter(torch.randn(WIDTH_SIZE, self.max_width))
        self.project = nn.Sequential(nn.Linear(hidden_size + WIDTH_SIZE, hidden_size), nn.ReLU())

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Yield the vectors of all spans, in order of width; the word part is computed once."""
        words = self._word_part(words[:, : words.shape[1] - self.max_width + 1])
        for k in range(self.max_width):
            yield (words + self._width_part(k)).relu()

    def from_first(self, words: Tensor, k: int) -> Tensor:
        """Return the vectors of the spans of ``k + 1`` words that start at `words`."""
        return (self._word_part(words) + self._width_part(k)).relu()

    def _word_part(self, words: Tensor) -> Tensor:
        layer = self._layer()
        return F.linear(words, layer.weight[:, :-WIDTH_SIZE], layer.bias)

    def _width_part(self, k: int) -> Tensor:
        # GLiNER reads its (128, widths) parameter as if it were (widths, 128); its checkpoints need the same here
        query = self.query_seg.view(self.max_width, WIDTH_SIZE)[k]
        return F.linear(query, self._layer().weight[:, -WIDTH_SIZE:])

    def _layer(self) -> nn.Linear:
        layer = self.project[0]
        assert isinstance(layer, nn.Linear)
        return layer
