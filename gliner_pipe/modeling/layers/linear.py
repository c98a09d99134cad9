"""Linear layers that a CPU runs at its full speed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.layers.cache import Cache


class Linear(nn.Linear):
    """A linear layer whose weight is kept in the order in which the CPU reads it, while no gradients are asked for.

    A product else puts the weight in order each time: for the few rows of a short text that is half of its time, for
    many rows a tenth. What is kept takes as much memory as the weight, is made when it is first needed and forgotten
    when the weight changes, gradients are taken or the mode is switched (not all changes leave a trace, see ``marks``).
    It is no part of what is saved, copied or pickled.

    Notes
    -----
    The product is oneDNN's ``_linear_pointwise``, which torch ships and its own compiler calls. Elsewhere than on x86
    CPUs, and with numbers that these have no kernel for, the layer is the one of torch.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Packed columns by the first of them and the one after the last.
        self._packed: Cache[tuple[int, int], Tensor] = Cache()

    @classmethod
    def of(cls, linear: nn.Linear) -> Linear:
        """Make a layer with the weights, hooks and settings of `linear`."""
        made = cls.__new__(cls)
        made.__setstate__(vars(linear).copy())
        return made

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        if not self._packs(inputs):
            return super().forward(inputs)
        return _product(inputs, self._part(0, self.in_features), self.bias)

    def columns(self, inputs: Tensor, start: int, stop: int, bias: Tensor | None = None) -> Tensor:
        """Map ``(..., stop - start)``, some of the features, by the columns of the weight that are theirs."""
        if not self._packs(inputs):
            return F.linear(inputs, self.weight[:, start:stop], bias)
        return _product(inputs, self._part(start, stop), bias)

    def _packs(self, inputs: Tensor) -> bool:
        if torch.is_grad_enabled():
            self._packed.forget()
            return False
        return inputs.is_cpu and _has_kernel(inputs, self.weight)

    def _part(self, start: int, stop: int) -> Tensor:
        weight = self.weight

        def pack() -> Tensor:
            columns = weight.detach()[:, start:stop].contiguous()
            packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(columns)
            return packed

        return self._packed.get((start, stop), pack, (weight,))

    def train(self, mode: bool = True) -> Linear:
        """Set the training mode."""
        self._packed.forget()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._packed.forget()
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        state.pop("_packed", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._packed = Cache()


def _product(inputs: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    n, size = inputs.numel() // inputs.shape[-1], inputs.shape[-1]
    rows = inputs.reshape(n, size)
    if (more := _rows_of_kernel(n) - n) > 0:
        rows = F.pad(rows, (0, 0, 0, more))
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")[:n]
    return product.view(*inputs.shape[:-1], product.shape[-1])


def _rows_of_kernel(n: int) -> int:
    """Number of rows that `n` are filled up to: to 32 as they are, then one of 16 between a power of two and the next.

    oneDNN writes a kernel for each number of rows that it meets; it takes some 0.6 MB for each width and is kept. With
    as many kernels as there are lengths, a stream of texts would take ever more memory. For few rows, those of a short
    text by itself, filling them up would take longer than it is worth.
    """
    if n <= 32:
        return n
    step = 1 << max(2, (n - 1).bit_length() - 5)
    return -(-n // step) * step


def _kernels() -> frozenset[torch.dtype]:
    """Numbers that this machine multiplies with packed weights."""
    on_x86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")
    if not (
        on_x86 and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return frozenset()
    has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return frozenset((torch.float32, torch.bfloat16) if has_bf16 else (torch.float32,))


_KERNELS = _kernels()


def _has_kernel(inputs: Tensor, weight: Tensor) -> bool:
    return (
        inputs.dtype in _KERNELS
        and inputs.dtype == weight.dtype
        and inputs.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and not (weight.is_inference() and not torch.is_inference_mode_enabled())
    )


def take_linears(model: nn.Module) -> None:
    """Exchange the linear layers inside a model for those above; names of weights stay as they are."""
    made: dict[int, Linear] = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, made.setdefault(id(child), Linear.of(child)))
