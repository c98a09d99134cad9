"""Sum of the words of a span."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import PositiveInt
from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.span_reps._stacked import ConvolutionSpanRep


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
