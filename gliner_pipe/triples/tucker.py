"""TuckER: a core tensor between head, relation and tail."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.registry import registry
from gliner_pipe.triples.base import Triple, by_relation


@registry.triples.register("tucker")
class TuckER(Triple):
    """``sum W[k, i, j] r[k] h[i] t[j]``, with batch normalisation of head and tail.

    Use it with small widths: the core has as many weights as the width of the vectors cubed, 134 million at 512 and
    453 million at 768.

    Parameters
    ----------
    dropout
        Of head, tail, and of what core and relation give.
    compatible
        Give GLiNER's numbers, which are not those of the formula: there the product of relations and core is read in
        another layout, so that a score depends on all the other pairs and relations of the batch. Set it for a
        checkpoint that was trained so, never for a new model.

    Notes
    -----
    Source: Balazevic et al., "TuckER: Tensor Factorization for Knowledge Graph Completion", 2019; GLiNER's ``TuckER``.
    """

    def __init__(self, dropout: float = 0.2, compatible: bool = False) -> None:
        super().__init__()
        self.dropout = dropout
        self.compatible = compatible

    def build(self, hidden_size: int) -> None:
        """Make core and normalisations."""
        core = torch.empty(hidden_size, hidden_size, hidden_size)
        self.W = nn.Parameter(nn.init.xavier_uniform_(core))
        self.bn0 = nn.BatchNorm1d(hidden_size)
        self.bn1 = nn.BatchNorm1d(hidden_size)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        n_groups, n_pairs, size = head.shape
        n_relations = relations.shape[1]
        head, tail = _normalised(self.bn0, head), _normalised(self.bn1, tail)
        if not self.compatible:
            head, tail = self._dropped(head), self._dropped(tail)
            # A core matrix for each relation, not for each pair.
            matrices = size * size // max(1, n_pairs)
            return by_relation(self._score, [head, tail], [relations], 2 * size + matrices)
        wide = (n_groups, n_pairs, n_relations, size)
        heads = self._dropped(head[:, :, None].expand(wide).reshape(-1, size))
        tails = self._dropped(tail[:, :, None].expand(wide).reshape(-1, size))
        every = relations[:, None].expand(wide).reshape(-1, size)
        mixed = self._dropped((every @ self.W).reshape(-1, size, size))
        return ((heads[:, None] @ mixed)[:, 0] * tails).sum(-1).reshape(wide[:3])

    def _dropped(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.dropout, self.training)

    def _score(self, head: Tensor, tail: Tensor, relations: Tensor) -> Tensor:
        """Score pairs, ``(groups, pairs, 1, hidden)``, for relations, ``(groups, 1, relations, hidden)``."""
        size = head.shape[-1]
        cores = self._dropped((relations[:, 0] @ self.W.flatten(1)).unflatten(2, (size, size)))
        led = head.transpose(1, 2) @ cores  # (groups, relations, pairs, hidden)
        return (led * tail.transpose(1, 2)).sum(-1).transpose(1, 2)


def _normalised(layer: nn.BatchNorm1d, vectors: Tensor) -> Tensor:
    """Batch normalisation over all pairs; by the running statistics where there are too few to have any."""
    rows = vectors.reshape(-1, vectors.shape[-1])
    if layer.training and len(rows) < 2:
        mean, variance = layer.running_mean, layer.running_var
        return F.batch_norm(rows, mean, variance, layer.weight, layer.bias).view_as(vectors)
    normalised: Tensor = layer(rows)
    return normalised.view_as(vectors)
