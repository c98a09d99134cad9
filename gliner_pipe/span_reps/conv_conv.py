"""Words of a span through a convolution for the span's width."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.span_reps._stacked import ConvolutionSpanRep


@registry.span_reps.register("conv_conv")
class ConvConv(ConvolutionSpanRep):
    """A span is a convolution over all its words; spans of each width have a convolution of their own.

    Reads every word of a span and their order, at the price of ``hidden² max_width² / 2`` weights: 42 million at
    width 768 and 12 words. ``conv_share`` does with a sixth of them. A span of one word is the word itself.

    Parameters
    ----------
    max_width
        Words in the widest span; the weights are made for this number and no other.

    Notes
    -----
    Source: GLiNER's ``SpanConv`` (``conv_conv``).
    """

    def __init__(self, max_width: PositiveInt = 12) -> None:
        super().__init__(max_width)

    def build(self, hidden_size: int) -> None:
        """Make a convolution for each width from two words on."""
        super().build(hidden_size)
        self.convs = nn.ModuleList()
        for kernel in range(2, self.max_width + 1):
            conv = nn.Conv1d(hidden_size, hidden_size, kernel)
            nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
            self.convs.append(nn.ModuleDict({"conv": conv}))

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Give the hidden vectors of all spans, width by width."""
        n_words = words.shape[1] - self.max_width + 1
        yield words[:, :n_words].relu()
        columns = words.transpose(1, 2)
        for k in range(1, self.max_width):
            conv = self._conv(k)
            yield F.conv1d(columns[:, :, : n_words + k], conv.weight, conv.bias).relu().transpose(1, 2)

    def one_width(self, words: Tensor) -> Tensor:
        """Hidden vectors of spans whose words are given."""
        if words.shape[1] == 1:
            return words[:, 0].relu()
        conv = self._conv(words.shape[1] - 1)
        return F.conv1d(words.transpose(1, 2), conv.weight, conv.bias).relu()[:, :, 0]

    def _conv(self, k: int) -> nn.Conv1d:
        block = self.convs[k - 1]
        assert isinstance(block, nn.ModuleDict)
        conv = block["conv"]
        assert isinstance(conv, nn.Conv1d)
        return conv
