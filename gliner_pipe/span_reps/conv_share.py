"""Words of a span through one convolution that all widths share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.span_reps._stacked import ConvolutionSpanRep


@registry.span_reps.register("conv_share")
class ConvShare(ConvolutionSpanRep):
    """A span is a convolution over all its words; the weights go by a word's place in the span.

    Reads every word of a span and their order, with ``hidden² max_width`` weights. The hidden vector of a span is that
    of the span without its last word plus what the last word adds, so each width costs one product a word.

    Parameters
    ----------
    max_width
        Words in the widest span; the weights are made for this number and no other.

    Notes
    -----
    Source: GLiNER's ``ConvShare``, which convolves anew for each width; the running sum is this project's.
    """

    def __init__(self, max_width: PositiveInt = 12) -> None:
        super().__init__(max_width)

    def build(self, hidden_size: int) -> None:
        """Make the weights of all places in a span."""
        super().build(hidden_size)
        # The name is misspelt in GLiNER's checkpoints.
        self.conv_weigth = nn.Parameter(torch.empty(hidden_size, hidden_size, self.max_width))
        nn.init.kaiming_uniform_(self.conv_weigth, nonlinearity="relu")

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Give the hidden vectors of all spans, width by width."""
        n_words = words.shape[1] - self.max_width + 1
        total = words.new_zeros(())
        for k in range(self.max_width):
            total = total + F.linear(words[:, k : k + n_words], self.conv_weigth[:, :, k])
            yield total.relu()

    def one_width(self, words: Tensor) -> Tensor:
        """Hidden vectors of spans whose words are given."""
        weight = self.conv_weigth[:, :, : words.shape[1]]
        return F.conv1d(words.transpose(1, 2), weight).relu()[:, :, 0]
