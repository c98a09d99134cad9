"""What the representations share that make the vectors of one width of spans after the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.span_reps.base import SpanRep


class StackedSpanRep(SpanRep):
    """Scores the spans of one width at a time, so that memory never holds the vectors of all widths.

    Parameters
    ----------
    max_width
        Words in the widest span.
    """

    max_width: int

    def __init__(self, max_width: int = 12) -> None:
        super().__init__()
        self.max_width = max_width

    @abstractmethod
    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Give the hidden vectors of all spans of one word, then of two, up to the widest.

        Parameters
        ----------
        words
            ``(rows, words + max_width - 1, hidden)``: zeros follow the last word.

        Yields
        ------
        Tensor
            ``(rows, words, hidden)``.
        """

    @abstractmethod
    def one_width(self, words: Tensor) -> Tensor:
        """Hidden vectors of spans whose words are given, ``(spans, width, hidden)`` to ``(spans, hidden)``."""

    def output(self) -> nn.Linear | None:
        """Linear layer between hidden vector and span vector; None where they are one and the same."""
        return None

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Score all spans, one width at a time; a layer at the end folds into the labels."""
        layer = self.output()
        weight = labels if layer is None else labels @ layer.weight
        scores = [
            hidden @ weight.transpose(1, 2) for hidden in self.each_width(self._padded(words, word_mask))
        ]
        logits = torch.stack(scores, 2)
        return logits if layer is None else logits + (labels @ layer.bias)[:, None, None, :]

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Vectors of chosen spans; of one wider than `max_width`, only the first words count."""
        words = self._padded(words, word_mask)
        rows, n_spans = spans.shape[:2]
        first = spans[..., 0].flatten()
        row = torch.arange(rows, device=spans.device).repeat_interleave(n_spans)
        last = (spans[..., 1] - spans[..., 0]).flatten().clamp(0, self.max_width - 1)
        order = last.argsort()
        counts = torch.bincount(last, minlength=self.max_width).tolist()
        parts = []
        for k, chosen in enumerate(order.split(counts)):
            if len(chosen):
                inside = first[chosen, None] + torch.arange(k + 1, device=spans.device)
                parts.append(self.one_width(words[row[chosen, None], inside]))
        if not parts:
            return words.new_zeros(rows, n_spans, words.shape[-1])
        vectors = torch.cat(parts)[order.argsort()]
        layer = self.output()
        return (vectors if layer is None else layer(vectors)).unflatten(0, (rows, n_spans))

    def _padded(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Zeros at and after the end of each row, as many as the widest span can see."""
        return F.pad(words.masked_fill(~word_mask[..., None], 0), (0, 0, 0, self.max_width - 1))


class FirstWordSpanRep(StackedSpanRep):
    """Base of those that read a span's first word and its width only."""

    @abstractmethod
    def from_first(self, words: Tensor, k: int) -> Tensor:
        """Vectors of the spans of ``k + 1`` words that start at `words`, ``(..., hidden)`` to the same shape."""

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Give the vectors of all spans, width by width."""
        words = words[:, : words.shape[1] - self.max_width + 1]
        for k in range(self.max_width):
            yield self.from_first(words, k)

    def one_width(self, words: Tensor) -> Tensor:
        """Vectors of spans whose words are given."""
        return self.from_first(words[:, 0], words.shape[1] - 1)


class ConvolutionSpanRep(StackedSpanRep):
    """Base of those that slide over the words and end in a rectifier and a linear layer."""

    def build(self, hidden_size: int) -> None:
        """Make the last layer."""
        self.project = nn.Sequential(nn.ReLU(), nn.Linear(hidden_size, hidden_size))

    def running(self, words: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Tensor]:
        """Combine the words of all spans of one word, then of two, up to the widest, each from the one before."""
        n_words = words.shape[1] - self.max_width + 1
        total = words[:, :n_words]
        yield total
        for k in range(1, self.max_width):
            total = combine(total, words[:, k : k + n_words])
            yield total

    def output(self) -> nn.Linear:
        """Return the last layer."""
        layer = self.project[1]
        assert isinstance(layer, nn.Linear)
        return layer
