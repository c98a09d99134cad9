"""Linear layers that run at full speed on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.layers.cache import Cache, CachingModule, as_kind


class Linear(CachingModule, nn.Linear):
    """A linear layer that, without gradients, caches its weight in the memory layout of the CPU kernel (packed).

    Otherwise each product packs the weight again: half of its time for the few rows of a short text, a tenth for many
    rows. The packed weight takes as much memory as the weight.

    Notes
    -----
    The product is oneDNN's ``_linear_pointwise``, which torch ships and its own compiler calls. Off x86 CPUs, and for
    dtypes without a kernel, the layer computes as ``nn.Linear``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Packed columns, by start and stop.
        self._cache: Cache[tuple[int, int], Tensor] = Cache()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        if not self._packs(inputs):
            return super().forward(inputs)
        return _product(inputs, self._part(0, self.in_features), self.bias)

    def then_gelu(self, inputs: Tensor) -> Tensor:
        """Map the inputs and apply GELU, in one pass over the outputs where the kernel can."""
        if not self._packs(inputs):
            return F.gelu(super().forward(inputs))
        return _product(inputs, self._part(0, self.in_features), self.bias, "gelu", "none")

    def columns(self, inputs: Tensor, start: int, stop: int, bias: Tensor | None = None) -> Tensor:
        """Map ``(..., stop - start)``, a slice of the input features, by the matching columns of the weight."""
        if not self._packs(inputs):
            return F.linear(inputs, self.weight[:, start:stop], bias)
        return _product(inputs, self._part(start, stop), bias)

    def _packs(self, inputs: Tensor) -> bool:
        if torch.is_grad_enabled():
            self._cache.forget()
            return False
        return inputs.is_cpu and _has_kernel(inputs, self.weight)

    def _part(self, start: int, stop: int) -> Tensor:
        weight = self.weight

        def pack() -> Tensor:
            columns = weight.detach()[:, start:stop].contiguous()
            packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(columns)
            return packed

        return self._cache.get((start, stop), pack, (weight,))


def _product(
    inputs: Tensor, packed: Tensor, bias: Tensor | None, activation: str = "none", variant: str = ""
) -> Tensor:
    n, size = inputs.numel() // inputs.shape[-1], inputs.shape[-1]
    rows = inputs.reshape(n, size)
    if (most := rows_of_kernel(n)) > n:
        padded = rows.new_empty(most, size)  # F.pad would write all rows twice
        padded[:n], padded[n:] = rows, 0
        rows = padded
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, activation, [], variant)[:n]
    return product.view(*inputs.shape[:-1], product.shape[-1])


def rows_of_kernel(n: int) -> int:
    """Return how many rows `n` rows are padded to: up to 32 none, above that 16 steps between powers of two.

    oneDNN compiles one kernel per number of rows and keeps it, some 0.6 MB for each width: without padding, memory
    would grow with each new length in a stream of texts. For few rows, as in one short text, padding costs more time
    than it saves.
    """
    if n <= 32:
        return n
    step = 1 << max(2, (n - 1).bit_length() - 5)
    return -(-n // step) * step


def filled(indices: Tensor) -> Tensor:
    """Repeat the first of a list of indices until the list is as long as ``rows_of_kernel`` says."""
    more = rows_of_kernel(len(indices)) - len(indices) if len(indices) else 0
    return torch.cat([indices, indices[:1].expand(more)]) if more else indices


def may_leave_out_padding(inputs: Tensor) -> bool:
    """Whether shapes may follow the data: on a CPU, without gradients, in a model that is not compiled or exported."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined]
    fixed = torch.compiler.is_compiling() or traced or torch.onnx.is_in_onnx_export()
    return inputs.is_cpu and not (fixed or torch.is_grad_enabled())


def without_padding(
    layers: Sequence[Callable[[Tensor], Tensor]], inputs: Tensor, mask: Tensor
) -> list[Tensor]:
    """Apply each layer to vectors, ``(rows, positions, size)``; where it can, not to those of padding.

    Parameters
    ----------
    layers
        Each maps single vectors.
    inputs
        The vectors.
    mask
        False for padding, whose output is then that of another position, ``(rows, positions)``.
    """
    real = mask.flatten().nonzero()[:, 0] if may_leave_out_padding(inputs) else mask
    if real is mask or not len(real):
        return [layer(inputs) for layer in layers]
    vectors = inputs.flatten(0, 1).index_select(0, filled(real))
    outputs = [layer(vectors) for layer in layers]
    if len(real) == mask.numel():
        return [output[: len(real)].view(*mask.shape, -1) for output in outputs]
    in_list = (mask.flatten().cumsum(0) - 1).clamp(min=0)
    return [output.index_select(0, in_list).view(*mask.shape, -1) for output in outputs]


def _kernels() -> frozenset[torch.dtype]:
    """Dtypes that this machine multiplies with packed weights."""
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
    """Replace the ``nn.Linear`` layers of a model by :class:`Linear`, in place; weights keep their names."""
    replaced: dict[int, Linear] = {}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, replaced.setdefault(id(child), as_kind(Linear, child)))


def projection(in_size: int, out_size: int, dropout: float) -> nn.Sequential:
    """Return two linear layers with a hidden width of four times the output: GLiNER's projection layer.

    Parameters
    ----------
    in_size, out_size
        Widths.
    dropout
        Dropout rate of the hidden layer.
    """
    return nn.Sequential(
        Linear(in_size, out_size * 4), nn.ReLU(), nn.Dropout(dropout), Linear(out_size * 4, out_size)
    )


def mlp(inputs: int, *sizes: int) -> nn.Sequential:
    """Return linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for size in sizes:
        layers += [Linear(inputs, size), nn.ReLU()]
        inputs = size
    return nn.Sequential(*layers[:-1])
