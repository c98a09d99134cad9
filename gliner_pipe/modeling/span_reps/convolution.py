"""Span representations made of all words of a span: convolutions, maximum, mean and sum."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from gliner_pipe.modeling.span_reps.by_width import ConvolutionSpanRep
from gliner_pipe.registry import registry


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


@registry.span_reps.register("conv_max")
class ConvMax(ConvolutionSpanRep):
    """A span is the largest of each number that its words hold.

    Reads every word of a span but not their order, with few weights, which serve any `max_width`. Use it for
    checkpoints that were trained with it.

    Parameters
    ----------
    max_width
        Words in the widest span.

    Notes
    -----
    Source: GLiNER's ``SpanConv`` (``conv_max``), which searches anew for each width; the running maximum is this
    project's.
    """

    def __init__(self, max_width: PositiveInt = 12) -> None:
        super().__init__(max_width)

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Give the hidden vectors of all spans, width by width."""
        for largest in self.running(words, torch.maximum):
            yield largest.relu()

    def one_width(self, words: Tensor) -> Tensor:
        """Hidden vectors of spans whose words are given."""
        return words.amax(1).relu()


@registry.span_reps.register("conv_mean")
class ConvMean(ConvolutionSpanRep):
    """A span is the mean of its words.

    Reads every word of a span but not their order, with few weights, which serve any `max_width`. Use it for
    checkpoints that were trained with it.

    Parameters
    ----------
    max_width
        Words in the widest span.

    Notes
    -----
    Source: GLiNER's ``SpanConv`` (``conv_mean``), which adds anew for each width; the running sum is this project's.
    """

    def __init__(self, max_width: PositiveInt = 12) -> None:
        super().__init__(max_width)

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Give the hidden vectors of all spans, width by width."""
        for k, total in enumerate(self.running(words, torch.add)):
            yield total.relu() / (k + 1)

    def one_width(self, words: Tensor) -> Tensor:
        """Hidden vectors of spans whose words are given."""
        return words.mean(1).relu()


@registry.span_reps.register("conv_sum")
class ConvSum(ConvolutionSpanRep):
    """A span is the sum of its words.

    Reads every word of a span but not their order, with few weights, which serve any `max_width`. Unlike in
    ``conv_mean``, wide spans have long vectors, so that the width has a say. Use it for checkpoints that were trained
    with it.

    Parameters
    ----------
    max_width
        Words in the widest span.

    Notes
    -----
    Source: GLiNER's ``SpanConv`` (``conv_sum``), which adds anew for each width; the running sum is this project's.
    """

    def __init__(self, max_width: PositiveInt = 12) -> None:
        super().__init__(max_width)

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Give the hidden vectors of all spans, width by width."""
        for total in self.running(words, torch.add):
            yield total.relu()

    def one_width(self, words: Tensor) -> Tensor:
        """Hidden vectors of spans whose words are given."""
        return words.sum(1).relu()
