"""Pipelines that hold equal weights once, as several adapters of one encoder do."""

from __future__ import annotations

from hashlib import blake2b

import torch
from spacy.language import Language
from torch import Tensor

from gliner_pipe.pipeline.base import TorchPipe

#: Smaller tensors are not worth a comparison.
_LEAST_BYTES = 1 << 12


class SharedWeights:
    """Lets pipelines share weights that are equal bit for bit; results stay as they are.

    For pipelines that predict only: training one would change the others.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, Tensor] = {}

    def add(self, nlp: Language) -> int:
        """Replace weights of a pipeline by equal ones of earlier pipelines, and return the number of bytes saved."""
        saved = 0
        for _, pipe in nlp.pipeline:
            if not isinstance(pipe, TorchPipe):
                continue
            for weight in pipe.network.parameters():
                if weight.nbytes < _LEAST_BYTES:
                    continue
                known = self._known.setdefault(_digest(weight), weight)
                if known.data_ptr() != weight.data_ptr():
                    weight.data = known.data
                    saved += weight.nbytes
        return saved


def _digest(weight: Tensor) -> bytes:
    """Return a hash of the values, with dtype, shape and device."""
    content = weight.detach().cpu().contiguous().view(torch.uint8).numpy().data
    kind = f"{weight.dtype} {tuple(weight.shape)} {weight.device}"
    return blake2b(content, person=blake2b(kind.encode(), digest_size=16).digest()).digest()
