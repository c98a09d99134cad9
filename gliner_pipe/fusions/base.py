"""The contract of a fusion: what words and labels tell each other after the encoder."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from gliner_pipe.blocks import Block


class Fusion(Block):
    """Maps word and label vectors to new ones of the same shape."""

    family = "fusions"

    @abstractmethod
    def build(self, hidden_size: int) -> None:
        """Make the weights for vectors of this width."""

    @abstractmethod
    def forward(
        self, words: Tensor, labels: Tensor, word_mask: Tensor, label_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Fuse.

        Parameters
        ----------
        words, labels
            ``(rows, words, hidden)`` and ``(rows, labels, hidden)``.
        word_mask, label_mask
            False for padding, ``(rows, words)`` and ``(rows, labels)``.

        Returns
        -------
        tuple of Tensor
            New words and new labels.
        """
