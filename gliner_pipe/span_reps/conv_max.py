"""Maximum over the words of a span."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import PositiveInt
from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.span_reps._stacked import ConvolutionSpanRep


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
