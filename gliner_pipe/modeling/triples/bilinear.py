"""Triple scorers based on products of head, relation and tail."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.triples.base import Triple, by_relation
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Share


@registry.triples.register("distma")
class DistMA(Triple):
    """``h . r + h . t + r . t``.

    Use it as a baseline without weights. It is symmetric in head and tail.

    Notes
    -----
    Source: GLiNER's ``DistMA``.
    """

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        return (head + tail) @ relations.transpose(1, 2) + (head * tail).sum(-1, keepdim=True)


@registry.triples.register("distmult")
class DistMult(Triple):
    """``sum h * r * t``.

    Use it as a baseline without weights. It is symmetric in head and tail.

    Notes
    -----
    Source: Yang et al., "Embedding Entities and Relations for Learning and Inference in Knowledge Bases", 2015;
    GLiNER's ``DistMult``.
    """

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        return (head * tail) @ relations.transpose(1, 2)


@registry.triples.register("complex")
class ComplEx(Triple):
    """Real part of ``sum h * r * conj(t)``, where the halves of a vector are its real and its imaginary part.

    Use it if relations have a direction and no weights are wanted. The width of the vectors must be even.

    Notes
    -----
    Source: Trouillon et al., "Complex Embeddings for Simple Link Prediction", 2016; GLiNER's ``ComplEx``.
    """

    parts: ClassVar[int] = 2

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        head_re, head_im = head.chunk(2, -1)
        tail_re, tail_im = tail.chunk(2, -1)
        real = head_re * tail_re + head_im * tail_im
        imaginary = head_re * tail_im - head_im * tail_re
        return torch.cat([real, imaginary], -1) @ relations.transpose(1, 2)


@registry.triples.register("hole")
class HolE(Triple):
    """``r . (h (*) t)``, where (*) is the circular correlation, computed in single precision.

    Use it if relations have a direction and no weights are wanted, at any width.

    Notes
    -----
    Source: Nickel et al., "Holographic Embeddings of Knowledge Graphs", 2016; GLiNER's ``HolE``.
    """

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        size = head.shape[-1]
        if not head.numel():  # the Fourier transform rejects empty tensors
            return (head * tail) @ relations.transpose(1, 2)
        spectrum = torch.fft.rfft(head.float()).conj() * torch.fft.rfft(tail.float())
        pairs: Tensor = torch.fft.irfft(spectrum, n=size)
        return pairs.to(relations.dtype) @ relations.transpose(1, 2)


@registry.triples.register("quate")
class QuatE(Triple):
    """``(h (x) r) . t``, where a vector is four parts of quaternions and (x) is the Hamilton product.

    Use it if relations have a direction and no weights are wanted. The width of the vectors must be a multiple of 4.
    Unlike in the paper, relations are not normalised: the length of a label vector expresses confidence.

    Notes
    -----
    Source: Zhang et al., "Quaternion Knowledge Graph Embeddings", 2019; GLiNER's ``QuatE``.
    """

    parts: ClassVar[int] = 4

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        a, b, c, d = head.chunk(4, -1)
        w, x, y, z = tail.chunk(4, -1)
        # the four parts of conj(h) (x) t, by which those of the relation are multiplied
        pairs = [
            a * w + b * x + c * y + d * z,
            a * x - b * w + d * y - c * z,
            a * y - c * w - d * x + b * z,
            a * z - d * w + c * x - b * y,
        ]
        return torch.cat(pairs, -1) @ relations.transpose(1, 2)


@registry.triples.register("simple")
class SimplE(Triple):
    """``(sum h1 * r1 * t2 + sum t1 * r2 * h2) / 2``, where 1 and 2 are the halves of a vector.

    Use it if relations have a direction and no weights are wanted. The width of the vectors must be even.

    Notes
    -----
    Source: Kazemi and Poole, "SimplE Embedding for Link Prediction in Knowledge Graphs", 2018; GLiNER's ``SimplE``.
    """

    parts: ClassVar[int] = 2

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        head_1, head_2 = head.chunk(2, -1)
        tail_1, tail_2 = tail.chunk(2, -1)
        pairs = torch.cat([head_1 * tail_2, tail_1 * head_2], -1)
        return 0.5 * (pairs @ relations.transpose(1, 2))


@registry.triples.register("tucker")
class TuckER(Triple):
    """``sum W[k, i, j] r[k] h[i] t[j]``, with batch normalisation of head and tail.

    Use it with small widths only: the core has the cube of the width as weights, 134 million at 512 and 453 million at
    768.

    Parameters
    ----------
    dropout
        Dropout rate of head, tail, and the product of core and relation.
    compatible
        Compute GLiNER's scores, which do not follow the formula: there the product of relations and core is read in
        another layout, so that a score depends on all other pairs and relations of the batch. Set it for checkpoints
        trained with GLiNER, never for a new model.

    Notes
    -----
    Source: Balazevic et al., "TuckER: Tensor Factorization for Knowledge Graph Completion", 2019; GLiNER's ``TuckER``.
    """

    def __init__(self, dropout: Share = 0.2, compatible: bool = False) -> None:
        super().__init__()
        self.dropout = dropout
        self.compatible = compatible

    def build(self, hidden_size: int) -> None:
        """Create the core and the batch normalisations."""
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
            # one core matrix for each relation, not for each pair
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
        products = head.transpose(1, 2) @ cores  # (groups, relations, pairs, hidden)
        return (products * tail.transpose(1, 2)).sum(-1).transpose(1, 2)


def _normalised(layer: nn.BatchNorm1d, vectors: Tensor) -> Tensor:
    """Apply batch normalisation over all pairs; fewer than two pairs use the running statistics."""
    rows = vectors.reshape(-1, vectors.shape[-1])
    if layer.training and len(rows) < 2:
        mean, variance = layer.running_mean, layer.running_var
        return F.batch_norm(rows, mean, variance, layer.weight, layer.bias).view_as(vectors)
    normalised: Tensor = layer(rows)
    return normalised.view_as(vectors)
