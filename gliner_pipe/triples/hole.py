"""HolE: circular correlation."""

from __future__ import annotations

import torch
from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.triples.base import Triple


@registry.triples.register("hole")
class HolE(Triple):
    """``r . (h (*) t)``, where (*) is the circular correlation, computed in single precision.

    Use it where relations have a direction and no weights are wanted, at any width.

    Notes
    -----
    Source: Nickel et al., "Holographic Embeddings of Knowledge Graphs", 2016; GLiNER's ``HolE``.
    """

    def build(self, hidden_size: int) -> None:
        """Nothing to make."""

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        size = head.shape[-1]
        if not head.numel():  # no Fourier transform of nothing
            return (head * tail) @ relations.transpose(1, 2)
        spectrum = torch.fft.rfft(head.float()).conj() * torch.fft.rfft(tail.float())
        pairs: Tensor = torch.fft.irfft(spectrum, n=size)
        return pairs.to(relations.dtype) @ relations.transpose(1, 2)
