"""Base class of the span representations that compute span vectors one width after another."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.span_reps.base import SpanRep
from gliner_pipe.util.ranges import Size


class StackedSpanRep(SpanRep):
    """Scores the spans of one width at a time, so that memory never holds the vectors of all widths.

    Parameters
    ----------
    max_width
        Maximum span width in words. The weights of some blocks depend on it, as they say.
    """

    max_width: int

    def __init__(self, max_width: Size = 12) -> None:
        super().__init__()
        self.max_width = max_width

    @abstractmethod
    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Yield the hidden vectors of all spans, in order of width, from one word to ``max_width``.

        Parameters
        ----------
        words
            ``(rows, words + max_width - 1, hidden)``: padded with zeros at the end.

        Yields
        ------
        Tensor
            ``(rows, words, hidden)``.
        """

    @abstractmethod
    def one_width(self, words: Tensor) -> Tensor:
        """Return the hidden vectors of spans of one width: ``(spans, width, hidden)`` to ``(spans, hidden)``."""

    def output(self) -> nn.Linear | None:
        """Return the linear layer from hidden vector to span vector; None where they are the same."""
        return None

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Score all spans, one width at a time; the output layer is folded into the labels."""
        layer = self.output()
        weight = labels if layer is None else labels @ layer.weight
        scores = [
            hidden @ weight.transpose(1, 2) for hidden in self.each_width(self._padded(words, word_mask))
        ]
        logits = torch.stack(scores, 2)
        return logits if layer is None else logits + (labels @ layer.bias)[:, None, None, :]

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Compute the vectors of selected spans; wider ones are cut to their first ``max_width`` words."""
        words = self._padded(words, word_mask)
        rows, n_spans = spans.shape[:2]
        first = spans[..., 0].flatten()
        row = torch.arange(rows, device=spans.device).repeat_interleave(n_spans)
        last = (spans[..., 1] - spans[..., 0]).flatten().clamp(0, self.max_width - 1)
        order = last.argsort()
        counts = torch.bincount(last, minlength=self.max_width).tolist()
        parts = []
        for k, selected in enumerate(order.split(counts)):
            if len(selected):
                inside = first[selected, None] + torch.arange(k + 1, device=spans.device)
                parts.append(self.one_width(words[row[selected, None], inside]))
        if not parts:
            return words.new_zeros(rows, n_spans, words.shape[-1])
        vectors = torch.cat(parts)[order.argsort()]
        layer = self.output()
        return (vectors if layer is None else layer(vectors)).unflatten(0, (rows, n_spans))

    def _padded(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Set padding to zero and append zeros, so that the widest span fits at every word."""
        return F.pad(words.masked_fill(~word_mask[..., None], 0), (0, 0, 0, self.max_width - 1))
