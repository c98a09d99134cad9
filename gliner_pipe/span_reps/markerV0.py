"""Start and end word of a span, joined by a two-layer network, in factored form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.model.layers import projection
from gliner_pipe.registry import registry
from gliner_pipe.span_reps.base import SpanRep


@registry.span_reps.register("markerV0")
class MarkerV0(SpanRep):
    """A span is what its first and its last word say; the default of GLiNER's span models.

    With ``s_i`` and ``e_j`` the projections of first and last word, a span's vector is
    ``W2 relu(W1 relu([s_i; e_j]) + b1) + b2``. The first layer splits into a part of the first word and a part of the
    last, each computed once a word; the second folds into the label vectors. What is left for each span is one
    addition and one product with the labels: the same numbers (1e-6) at about a sixth of the time.

    Parameters
    ----------
    max_width
        Words in the widest span.
    dropout
        Dropout of all hidden layers.

    Notes
    -----
    Source: GLiNER's ``SpanMarkerV0``; the factored form is this project's.
    """

    def __init__(self, max_width: int = 12, dropout: float = 0.4) -> None:
        super().__init__()
        self.max_width = max_width
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Make the three projections."""
        self.project_start = projection(hidden_size, hidden_size, self.dropout)
        self.project_end = projection(hidden_size, hidden_size, self.dropout)
        self.out_project = projection(2 * hidden_size, hidden_size, self.dropout)

    def score(self, words: Tensor, labels: Tensor) -> Tensor:
        """Score all spans, one width at a time."""
        first, last = self._halves(words)
        out = self._layer(3)
        weight = (labels @ out.weight).transpose(1, 2)  # (rows, 4 hidden, labels)
        bias = (labels @ out.bias)[:, None, :]
        n_words, width = words.shape[1], self.max_width or 1
        last = F.pad(last, (0, 0, 0, width - 1))
        drop = self.out_project[2]
        scores = []
        for k in range(width):
            hidden = (first + last[:, k : k + n_words]).relu_()
            scores.append(torch.baddbmm(bias, drop(hidden), weight))
        return torch.stack(scores, 2)

    def represent(self, words: Tensor, spans: Tensor) -> Tensor:
        """Vectors of chosen spans."""
        first, last = self._halves(words)
        wide = (-1, -1, first.shape[-1])
        hidden = first.gather(1, spans[:, :, :1].expand(*wide)) + last.gather(
            1, spans[:, :, 1:].expand(*wide)
        )
        return self._layer(3)(self.out_project[2](hidden.relu()))

    def _halves(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """What the first and the last word of a span put into the hidden layer, ``(rows, words, 4 hidden)``."""
        layer = self._layer(0)
        size = words.shape[-1]
        first = F.linear(self.project_start(words).relu(), layer.weight[:, :size], layer.bias)
        last = F.linear(self.project_end(words).relu(), layer.weight[:, size:])
        return first, last

    def _layer(self, index: int) -> nn.Linear:
        layer = self.out_project[index]
        assert isinstance(layer, nn.Linear)
        return layer
