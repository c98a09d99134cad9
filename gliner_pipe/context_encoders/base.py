"""The contract of a context encoder: words read once more before spans are made of them."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from gliner_pipe.blocks import Block


class ContextEncoder(Block):
    """Maps word vectors to new ones of the same shape."""

    family = "context_encoders"

    @abstractmethod
    def build(self, hidden_size: int) -> None:
        """Make the weights for vectors of this width."""

    @abstractmethod
    def forward(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Read the words.

        Parameters
        ----------
        words
            ``(rows, words, hidden)``.
        word_mask
            False for padding, ``(rows, words)``.

        Returns
        -------
        Tensor
            ``(rows, words, hidden)``; zero for padding.
        """
