"""ComplEx: threefold product of complex numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.triples.base import Triple, check_parts


@registry.triples.register("complex")
class ComplEx(Triple):
    """Real part of ``sum h * r * conj(t)``, where the halves of a vector are its real and its imaginary part.

    Use it where relations have a direction and no weights are wanted. The width of the vectors must be even.

    Notes
    -----
    Source: Trouillon et al., "Complex Embeddings for Simple Link Prediction", 2016; GLiNER's ``ComplEx``.
    """

    def build(self, hidden_size: int) -> None:
        """Nothing to make."""
        check_parts("complex", hidden_size, 2)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        head_re, head_im = head.chunk(2, -1)
        tail_re, tail_im = tail.chunk(2, -1)
        real = head_re * tail_re + head_im * tail_im
        imaginary = head_re * tail_im - head_im * tail_re
        return torch.cat([real, imaginary], -1) @ relations.transpose(1, 2)
