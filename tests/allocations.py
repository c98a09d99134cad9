"""Counts the memory that operations of torch take: work that grows with it is seen without a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """A context in which ``numbers`` counts the elements of all tensors that are no views of others.

    ``largest`` is the number of elements of the largest of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers = self.largest = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[Any],
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {_address(one) for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)}
        for one in tree_leaves(made):
            if isinstance(one, Tensor) and _address(one) not in given:
                self.numbers += one.numel()
                self.largest = max(self.largest, one.numel())
        return made


def _address(tensor: Tensor) -> int:
    """The memory of a tensor; 0 for weights in a layout of oneDNN, which have no address."""
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else 0
