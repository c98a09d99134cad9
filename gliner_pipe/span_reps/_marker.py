"""What the marker representations share: first and last word of a span in factored form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.model.layers import projection
from gliner_pipe.model.linear import Linear
from gliner_pipe.precision.running import RunningHead
from gliner_pipe.span_reps._marker_training import train_scores
from gliner_pipe.span_reps.base import SpanRep, all_alike

#: Numbers of hidden vectors that are held at once on a CPU: 1 MiB as fp32.
NUMBERS_AT_ONCE = 1 << 18


class FactoredMarker(SpanRep):
    """Base of the markers with a two-layer network on top.

    With ``s_i`` and ``e_j`` the projections of first and last word, and ``c`` what the row as a whole says (nothing
    in the plain form), a span's vector is ``W2 relu(W1 relu([s_i; e_j; c]) + b1) + b2``. The first layer splits into
    parts, each computed once a word or once a row; the second folds into the label vectors. What is left for each
    span is one addition and one product with the labels.

    Parameters
    ----------
    max_width
        Words in the widest span.
    dropout
        Dropout of all hidden layers.
    """

    #: Vectors that are laid side by side for a span.
    n_parts: ClassVar[int] = 2

    def __init__(self, max_width: int = 12, dropout: float = 0.4) -> None:
        super().__init__()
        self.max_width = max_width
        self.dropout = dropout
        self.running = RunningHead()

    def build(self, hidden_size: int) -> None:
        """Make the projections."""
        self.project_start = projection(hidden_size, hidden_size, self.dropout)
        self.project_end = projection(hidden_size, hidden_size, self.dropout)
        self.out_project = projection(self.n_parts * hidden_size, hidden_size, self.dropout)

    def context(self, words: Tensor, word_mask: Tensor) -> Tensor | None:
        """What each row as a whole adds to all its spans, ``(rows, hidden)``; None for nothing."""
        return None

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Score all spans, one width at a time."""
        first, last = self.running.run(self, lambda head, words: head._halves(words, word_mask), words)
        out = self._layer(3)
        weight, bias = folded(labels, out)
        width = self.max_width or 1
        if torch.onnx.is_in_onnx_export():
            return _score_in_graph(first, last, weight, bias, width)
        if not torch.is_grad_enabled():
            return _score_in_place(first, last, weight, bias, width)
        return train_scores(first, last, weight, bias, width, self._dropped)

    @property
    def _dropped(self) -> float:
        drop = self.out_project[2]
        assert isinstance(drop, nn.Dropout)
        return drop.p if drop.training else 0.0

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Vectors of chosen spans."""
        hidden = self.running.run(self, lambda head, words: head._hidden(words, spans, word_mask), words)
        return self._layer(3)(self.out_project[2](hidden.relu()))

    def _hidden(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """The hidden layer of chosen spans, before its rectifier."""
        starts, ends = spans.unbind(-1)
        hidden = at_places(self._of_first, words, starts) + at_places(self._of_last, words, ends)
        context = self._of_context(words, word_mask)
        return hidden if context is None else hidden + context

    def _halves(self, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the first and the last word of a span put into the hidden layer, ``(rows, words, 4 hidden)``.

        What the row as a whole puts there is in the first.
        """
        first, last = self._of_first(words), self._of_last(words)
        context = self._of_context(words, word_mask)
        return first if context is None else first + context, last

    def _of_first(self, words: Tensor) -> Tensor:
        layer = self._layer(0)
        return layer.columns(self.project_start(words).relu(), 0, words.shape[-1], layer.bias)

    def _of_last(self, words: Tensor) -> Tensor:
        size = words.shape[-1]
        return self._layer(0).columns(self.project_end(words).relu(), size, 2 * size)

    def _of_context(self, words: Tensor, word_mask: Tensor) -> Tensor | None:
        context = self.context(words, word_mask)
        if context is None:
            return None
        layer = self._layer(0)
        return layer.columns(context.relu(), 2 * words.shape[-1], layer.in_features)[:, None]

    def _layer(self, index: int) -> Linear:
        layer = self.out_project[index]
        assert isinstance(layer, Linear)
        return layer


def folded(labels: Tensor, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Fold a layer that stands before the product with the labels into them.

    Parameters
    ----------
    labels
        ``(rows, labels, hidden)``; where all rows see one tensor, the work is done once.
    layer
        From ``inner`` to ``hidden``.

    Returns
    -------
    (Tensor, Tensor)
        Weight ``(rows, inner, labels)`` and bias ``(rows, 1, labels)``.
    """
    rows = labels.shape[0]
    if all_alike(labels):
        labels = labels[:1]
    weight = (labels @ layer.weight).transpose(1, 2)
    bias = (labels @ layer.bias)[:, None, :]
    return weight.expand(rows, -1, -1), bias.expand(rows, -1, -1)


def _score_in_graph(first: Tensor, last: Tensor, weight: Tensor, bias: Tensor, n_widths: int) -> Tensor:
    """Score all spans by steps whose number does not depend on the batch."""
    n_words = first.shape[1]
    last = F.pad(last, (0, 0, 0, n_widths - 1))
    hidden = [(first + last[:, k : k + n_words]).relu() for k in range(n_widths)]
    return torch.stack([torch.baddbmm(bias, one, weight) for one in hidden], 2)


def _score_in_place(first: Tensor, last: Tensor, weight: Tensor, bias: Tensor, n_widths: int) -> Tensor:
    """Score all spans that end in the row, without gradients.

    On a CPU some words at a time, so that their hidden vectors never leave its cache.
    """
    rows, n_words, size = first.shape
    scores = first.new_zeros(rows, n_words, n_widths, weight.shape[2])
    on_cpu = first.device.type == "cpu"
    n_rows = max(1, NUMBERS_AT_ONCE // (size * n_words)) if on_cpu else rows
    step = min(n_words, max(1, NUMBERS_AT_ONCE // size)) if on_cpu else n_words
    buffer = first.new_empty(min(rows, n_rows) * step * size)
    for top in range(0, rows, n_rows):
        some = slice(top, min(rows, top + n_rows))
        for at in range(0, n_words, step):
            for k in range(min(n_widths, n_words - at)):
                stop = min(at + step, n_words - k)
                shape = (some.stop - some.start, stop - at, size)
                hidden = buffer[: math.prod(shape)].view(shape)
                torch.add(first[some, at:stop], last[some, at + k : stop + k], out=hidden).relu_()
                scores[some, at:stop, k] = torch.baddbmm(bias[some], hidden, weight[some])
    return scores


def at_places(layer: Callable[[Tensor], Tensor], words: Tensor, places: Tensor) -> Tensor:
    """Apply `layer` to the words at some places, ``(rows, places)``: to all words where these are no more than that."""
    if places.shape[1] < words.shape[1] and not torch.onnx.is_in_onnx_export():
        return layer(pick(words, places))
    return pick(layer(words), places)


def pick(vectors: Tensor, positions: Tensor) -> Tensor:
    """Take the vectors at `positions`, ``(rows, spans)``, from ``(rows, words, hidden)``."""
    return vectors.gather(1, positions[..., None].expand(-1, -1, vectors.shape[-1]))
