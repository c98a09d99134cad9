"""ConvKB: filters over head, relation and tail."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.triples.base import Triple, by_relation


@registry.triples.register("convkb")
class ConvKB(Triple):
    """``W relu(a_f h + b_f r + c_f t + d_f) + w0``, over all filters ``f`` and all dimensions.

    Of use for comparison: it holds ``filters x hidden`` numbers for each pair and relation.

    Parameters
    ----------
    n_filters
        Filters, each with one weight for head, relation and tail.
    dropout
        Of what the filters give.

    Notes
    -----
    Source: Nguyen et al., "A Novel Embedding Model for Knowledge Base Completion Based on Convolutional Neural
    Network", 2018; GLiNER's ``ConvKB``.
    """

    def __init__(self, n_filters: int = 32, dropout: float = 0.3) -> None:
        super().__init__()
        self.n_filters = n_filters
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Make filters and output layer."""
        self.conv = nn.Conv1d(3, self.n_filters, 1)
        self.fc = nn.Linear(self.n_filters * hidden_size, 1)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        of_head, of_relation, of_tail = self.conv.weight[..., None, :, 0].unbind(-1)  # (filters, 1) each
        bias = self.conv.bias
        assert bias is not None
        pairs = head[:, :, None] * of_head + tail[:, :, None] * of_tail + bias[:, None]
        return by_relation(
            self._score, [pairs], [relations[:, :, None] * of_relation], 3 * pairs.shape[2] * head.shape[2]
        )

    def _score(self, pairs: Tensor, relations: Tensor) -> Tensor:
        filtered = F.dropout((pairs + relations).relu(), self.dropout, self.training)
        score: Tensor = self.fc(filtered.flatten(3))
        return score.squeeze(-1)
