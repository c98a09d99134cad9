"""Span representations that use all words of a span: convolutions, maximum, mean and sum."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.span_reps.by_width import StackedSpanRep
from gliner_pipe.registry import registry


class ConvolutionSpanRep(StackedSpanRep):
    """Base class: combines the words of a span, then applies ReLU and a linear layer."""

    def build(self, hidden_size: int) -> None:
        """Create the output layer."""
        self.project = nn.Sequential(nn.ReLU(), nn.Linear(hidden_size, hidden_size))

    def running(self, words: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Tensor]:
        """Yield the combined words of all spans, in order of width, each computed from the width before."""
        n_words = words.shape[1] - self.max_width + 1
        total = words[:, :n_words]
        yield total
        for k in range(1, self.max_width):
            total = combine(total, words[:, k : k + n_words])
            yield total

    def output(self) -> nn.Linear:
        """Return the output layer."""
        layer = self.project[1]
        assert isinstance(layer, nn.Linear)
        return layer


@registry.span_reps.register("conv_conv")
class ConvConv(ConvolutionSpanRep):
    """A convolution over all words of the span; each span width has its own convolution.

    Uses every word and their order, at the price of ``hidden² max_width² / 2`` weights: 42 million at width 768 and 12
    words. ``conv_share`` has a sixth of them. A span of one word is the word vector itself.

    Notes
    -----
    Source: GLiNER's ``SpanConv`` (``conv_conv``).
    """

    def build(self, hidden_size: int) -> None:
        """Create a convolution for each width from two words on."""
        super().build(hidden_size)
        self.convs = nn.ModuleList()
        for kernel in range(2, self.max_width + 1):
            conv = nn.Conv1d(hidden_size, hidden_size, kernel)
            nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu")
            self.convs.append(nn.ModuleDict({"conv": conv}))

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Yield the hidden vectors of all spans, in order of width."""
        n_words = words.shape[1] - self.max_width + 1
        yield words[:, :n_words].relu()
        columns = words.transpose(1, 2)
        for k in range(1, self.max_width):
            conv = self._conv(k)
            yield F.conv1d(columns[:, :, : n_words + k], conv.weight, conv.bias).relu().transpose(1, 2)

    def one_width(self, words: Tensor) -> Tensor:
        """Return the hidden vectors of spans of one width."""
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
    """A convolution over all words of the span, with weights by position in the span, shared by all widths.

    Uses every word and their order, with ``hidden² max_width`` weights. The hidden vector of a span is that of the span
    without its last word plus the contribution of the last word, so each width costs one product per word.

    Notes
    -----
    Source: GLiNER's ``ConvShare``, which convolves anew for each width; the running sum is this project's.
    """

    def build(self, hidden_size: int) -> None:
        """Create the weights of all positions."""
        super().build(hidden_size)
        # the name is misspelt in GLiNER's checkpoints
        self.conv_weigth = nn.Parameter(torch.empty(hidden_size, hidden_size, self.max_width))
        nn.init.kaiming_uniform_(self.conv_weigth, nonlinearity="relu")

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Yield the hidden vectors of all spans, in order of width."""
        n_words = words.shape[1] - self.max_width + 1
        total = words.new_zeros(())
        for k in range(self.max_width):
            total = total + F.linear(words[:, k : k + n_words], self.conv_weigth[:, :, k])
            yield total.relu()

    def one_width(self, words: Tensor) -> Tensor:
        """Return the hidden vectors of spans of one width."""
        weight = self.conv_weigth[:, :, : words.shape[1]]
        return F.conv1d(words.transpose(1, 2), weight).relu()[:, :, 0]


@registry.span_reps.register("conv_max")
class ConvMax(ConvolutionSpanRep):
    """The elementwise maximum of the words of the span.

    Uses every word but not their order, with few weights, which fit any ``max_width``. Use it for checkpoints trained
    with it.

    Notes
    -----
    Source: GLiNER's ``SpanConv`` (``conv_max``), which pools anew for each width; the running maximum is this
    project's.
    """

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Yield the hidden vectors of all spans, in order of width."""
        return (largest.relu() for largest in self.running(words, torch.maximum))

    def one_width(self, words: Tensor) -> Tensor:
        """Return the hidden vectors of spans of one width."""
        return words.amax(1).relu()


@registry.span_reps.register("conv_mean")
class ConvMean(ConvolutionSpanRep):
    """The mean of the words of the span.

    Uses every word but not their order, with few weights, which fit any ``max_width``. Use it for checkpoints trained
    with it.

    Notes
    -----
    Source: GLiNER's ``SpanConv`` (``conv_mean``), which adds anew for each width; the running sum is this project's.
    """

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Yield the hidden vectors of all spans, in order of width."""
        return (total.relu() / width for width, total in enumerate(self.running(words, torch.add), 1))

    def one_width(self, words: Tensor) -> Tensor:
        """Return the hidden vectors of spans of one width."""
        return words.mean(1).relu()


@registry.span_reps.register("conv_sum")
class ConvSum(ConvolutionSpanRep):
    """The sum of the words of the span.

    Uses every word but not their order, with few weights, which fit any ``max_width``. Unlike in ``conv_mean``, the
    vector grows with the width, so that the width has an effect. Use it for checkpoints trained with it.

    Notes
    -----
    Source: GLiNER's ``SpanConv`` (``conv_sum``), which adds anew for each width; the running sum is this project's.
    """

    def each_width(self, words: Tensor) -> Iterator[Tensor]:
        """Yield the hidden vectors of all spans, in order of width."""
        return (total.relu() for total in self.running(words, torch.add))

    def one_width(self, words: Tensor) -> Tensor:
        """Return the hidden vectors of spans of one width."""
        return words.sum(1).relu()
