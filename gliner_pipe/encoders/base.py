"""The contract of an encoder: how labels meet the text."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from gliner_pipe.backbones.base import Backbone, TensorBatch, WindowBatch
from gliner_pipe.backbones.windows import Window
from gliner_pipe.blocks import Block


@dataclass(frozen=True)
class EncoderBatch(TensorBatch):
    """Input of an encoder: the windows of the texts, and what an encoder needs beside them."""

    windows: WindowBatch


class Encoded(NamedTuple):
    """What an encoder hands on.

    Attributes
    ----------
    words
        Vectors of the words of each window, ``(rows, words, hidden)``.
    labels
        Vectors of the labels of each window, ``(rows, labels, hidden)``.
    """

    words: Tensor
    labels: Tensor


class Encoder(Block):
    """Lets words and labels meet; works on windows, each a row of its batch."""

    family = "encoders"

    backbone: Backbone

    @property
    def output_size(self) -> int:
        """Width of word and label vectors, known once built."""
        return self.backbone.output_size

    @abstractmethod
    def build(self) -> None:
        """Load the pretrained weights and make the encoder's own."""

    @abstractmethod
    def prepare(
        self,
        texts: Sequence[Sequence[str]],
        labels: Sequence[Sequence[str]],
        min_overlap: int,
        report: Counter[str] | None = None,
    ) -> list[Window]:
        """Cut texts into windows.

        Parameters
        ----------
        texts
            The words of each text.
        labels
            What stands for each label of each text: its name or its description.
        min_overlap
            Words that neighbouring windows share.
        report
            Counts what is cut off.
        """

    @abstractmethod
    def collate(self, windows: Sequence[Window]) -> EncoderBatch:
        """Pad windows into one batch, on the CPU."""

    @abstractmethod
    def forward(self, batch: EncoderBatch) -> Encoded:
        """Run a batch."""

    def assets(self) -> Iterator[tuple[str, Backbone]]:
        """Backbones whose configuration and tokenizer are saved beside the weights, by name."""
        yield "backbone", self.backbone

    def save_assets(self, path: Path) -> None:
        """Write what is needed beside the weights into the folder `path`."""
        for name, backbone in self.assets():
            backbone.save_assets(path / name)

    @abstractmethod
    def load_assets(self, path: Path) -> None:
        """Make the modules from what ``save_assets`` wrote, with weights still to be filled in."""
