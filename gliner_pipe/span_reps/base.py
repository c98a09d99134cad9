"""The contract of a span representation: the score of every span for every label."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from gliner_pipe.blocks import Block


class SpanRep(Block):
    """Scores spans against labels.

    Two calls, so that no vector is ever made for each of the ``words x widths`` spans: ``score`` for all of them,
    ``represent`` for the few that a further head needs.

    Attributes
    ----------
    max_width
        Words in the widest span; None where there is no limit.
    """

    family = "span_reps"

    max_width: int | None

    @abstractmethod
    def build(self, hidden_size: int) -> None:
        """Make the weights for vectors of this width."""

    @abstractmethod
    def score(self, words: Tensor, labels: Tensor) -> Tensor:
        """Score all spans.

        Parameters
        ----------
        words
            ``(rows, words, hidden)``.
        labels
            ``(rows, labels, hidden)``.

        Returns
        -------
        Tensor
            Logits, ``(rows, words, widths, labels)``: entry ``[r, i, k, c]`` is the span of words ``i`` to
            ``i + k``. Spans that end beyond the row carry numbers without meaning.
        """

    @abstractmethod
    def represent(self, words: Tensor, spans: Tensor) -> Tensor:
        """Vectors of chosen spans.

        Parameters
        ----------
        words
            ``(rows, words, hidden)``.
        spans
            First and last word (inclusive) of each span, ``(rows, spans, 2)``.

        Returns
        -------
        Tensor
            ``(rows, spans, hidden)``.
        """
