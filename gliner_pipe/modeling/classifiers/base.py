"""Base class of classifiers, which score the labels of a whole text."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from gliner_pipe.modeling.block import Block


class Classifier(Block):
    """Scores labels of a text by their vectors, which have met the text in the encoder."""

    family = "classifiers"

    @abstractmethod
    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width."""

    @abstractmethod
    def forward(self, labels: Tensor) -> Tensor:
        """Return the logit of each label.

        Parameters
        ----------
        labels
            Vectors of labels of ``classes`` tasks, ``(..., hidden)``.

        Returns
        -------
        Tensor
            ``(...)``.
        """
