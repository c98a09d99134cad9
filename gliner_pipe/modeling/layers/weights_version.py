"""What tells weights that have changed from those that have not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

#: Tensors that lie in memory.
_PLAIN = (Tensor, nn.Parameter)


def marks(weights: Iterable[Tensor]) -> tuple[Any, ...]:
    """Return what changes when the numbers in weights do, they move, or others take their place.

    Parameters
    ----------
    weights
        What something that is kept was made of.

    Returns
    -------
    tuple
        To be compared with a later one.

    Notes
    -----
    Not all optimizers leave a trace: a fused one writes to weights without counting it. So whoever keeps something has
    to forget it when gradients are taken, too.
    """
    return tuple(
        (
            id(weight),
            weight.dtype,
            weight.device,
            0 if weight.is_inference() else weight._version,
            weight.data_ptr() if type(weight) in _PLAIN and weight.layout is torch.strided else 0,
        )
        for weight in weights
    )
