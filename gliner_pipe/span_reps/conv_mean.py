"""Mean of the words of a span."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import PositiveInt
from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.span_reps._stacked import ConvolutionSpanRep


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
