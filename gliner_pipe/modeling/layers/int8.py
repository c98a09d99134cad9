"""Linear layers with 8-bit weights and inputs, for CPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.layers.linear import rows_of_kernel

#: Largest quantized value; the range is symmetric.
_LARGEST = 127
#: Elements that are quantized at a time: they and the results in between stay in the cache of a core.
_AT_ONCE = 1 << 16
#: Zero point of the unsigned integers that the kernel takes as inputs.
_ZERO = 128


class Int8Linear(nn.Module):
    """A linear layer in int8: weights are quantized once, per channel, and inputs at each call, per row.

    Each row has its own scale, so that an outlier in one word does not cost the others precision and a text does not
    change the scores of the other texts in its batch. Scales and bias are fp32; the output has the dtype of the input.

    Parameters
    ----------
    linear
        The layer to quantize; it is not modified.

    Notes
    -----
    The product is oneDNN's ``qlinear_pointwise``, which torch ships and its own compiler calls.
    """

    weight: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scales = weight.abs().amax(1).clamp_min(1e-12) / _LARGEST
        rounded = (weight / scales[:, None]).round_().to(torch.int8)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", torch.ops.onednn.qlinear_prepack(rounded, None))
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(len(scales), dtype=torch.long))
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(..., in_features)`` to ``(..., out_features)``."""
        n = inputs.numel() // self.in_features
        rounded, largest = self._quantized(inputs.reshape(n, self.in_features))
        products = torch.ops.onednn.qlinear_pointwise(
            rounded,
            1 / _LARGEST,
            _ZERO,
            self.weight,
            self.scales,
            self.zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )[:n]
        if self.bias is None:
            products.mul_(largest)
        else:
            torch.addcmul(self.bias, products, largest, out=products)
        return products.view(*inputs.shape[:-1], self.out_features).to(inputs.dtype)

    @staticmethod
    def _quantized(rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows as unsigned integers, and the largest absolute value of each, ``(rows, 1)``.

        Many rows are quantized some at a time: otherwise the passes over memory take longer than the product. Rows are
        padded to one of few numbers, as oneDNN keeps a kernel for each; see ``rows_of_kernel``.
        """
        n, width = rows.shape
        step = max(1, _AT_ONCE // width)
        compiles = torch.compiler.is_compiling()
        padded = n if compiles else rows_of_kernel(n)
        if compiles or n <= step:
            scaled, largest = _scaled(rows)
            rounded = scaled.to(torch.int8)
            if padded > n:
                rounded = F.pad(rounded, (0, 0, 0, padded - n))
        else:
            rounded = torch.empty(padded, width, dtype=torch.int8)
            rounded[n:] = 0
            largest = torch.empty(n, 1)
            for at in range(0, n, step):
                rounded[at : at + step], largest[at : at + step] = _scaled(rows[at : at + step])
        # int8 with its sign bit flipped is the unsigned integer: the conversion of torch to uint8 is not vectorised
        return rounded.view(torch.uint8).bitwise_xor_(_ZERO), largest

    def extra_repr(self) -> str:
        """Return the widths, for ``repr``."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def _scaled(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Scale rows to the range of integers and round them; return the largest absolute value of each too."""
    rows = rows.float()
    largest = torch.maximum(rows.amax(-1, keepdim=True), rows.amin(-1, keepdim=True).neg_()).clamp_min_(1e-12)
    return (rows * (_LARGEST / largest)).round_(), largest


def check_int8(device: torch.device, where: str) -> None:
    """Check that a device has an int8 kernel.

    Raises
    ------
    ConfigError
        If it has none.
    """
    if device.type != "cpu":
        raise ConfigError(
            where,
            f"found 'int8' on {device}",
            "null, or int8 on the CPU",
            'Set dtype = "bf16" on a GPU',
        )
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        raise ConfigError(where, "found 'int8', which needs oneDNN, missing in this build of torch", "null")
