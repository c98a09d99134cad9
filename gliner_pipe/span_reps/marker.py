"""Start and end word of a span, joined by one linear layer, in factored form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.span_reps._marker import at_places
from gliner_pipe.span_reps.base import SpanRep


@registry.span_reps.register("marker")
class Marker(SpanRep):
    """A span is the sum of what its first and of what its last word say; the lightest of the markers.

    With ``s_i`` and ``e_j`` the projections of first and last word, a span's vector is ``W relu([s_i; e_j]) + b``.
    There is no nonlinearity behind the sum, so that a span's score is exactly the score of its first word as a start
    plus that of its last word as an end: words are scored, spans only added up. Much faster than ``markerV0``, which
    can tell pairs of words that belong together from pairs that do not.

    Parameters
    ----------
    max_width
        Words in the widest span.
    dropout
        Dropout of all hidden layers.

    Notes
    -----
    Source: GLiNER's ``SpanMarker``; the factored form is this project's.
    """

    def __init__(self, max_width: PositiveInt = 12, dropout: float = 0.4) -> None:
        super().__init__()
        self.max_width = max_width
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Make the three projections."""
        self.project_start = self._projection(hidden_size)
        self.project_end = self._projection(hidden_size)
        self.out_project = nn.Linear(2 * hidden_size, hidden_size)

    def _projection(self, size: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(size, 2 * size), nn.ReLU(), nn.Dropout(self.dropout), nn.Linear(2 * size, size)
        )

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Score all words as start and as end, and add."""
        size, n_words, width = words.shape[-1], words.shape[1], self.max_width or 1
        to_start, to_end = (labels @ self.out_project.weight).transpose(1, 2).split(size, 1)
        bias = (labels @ self.out_project.bias)[:, None, :]
        starts = torch.baddbmm(bias, self.project_start(words).relu(), to_start)
        ends = F.pad(self.project_end(words).relu() @ to_end, (0, 0, 0, width - 1))
        return torch.stack([starts + ends[:, k : k + n_words] for k in range(width)], 2)

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Vectors of chosen spans."""
        first = at_places(self.project_start, words, spans[..., 0])
        last = at_places(self.project_end, words, spans[..., 1])
        return self.out_project(torch.cat([first, last], -1).relu())
