"""Linear layers with 8-bit weights and inputs, for CPUs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.layers.linear import rows_of_kernel

#: Largest quantized value; the range is symmetric.
_LARGEST = 127
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
        rows = inputs.reshape(n, self.in_features).float()
        largest = rows.abs().amax(-1, keepdim=True).clamp_min_(1e-12)
        # int8 with its sign bit flipped is the unsigned integer: the conversion of torch to uint8 is not vectorised
        rounded = (rows * (_LARGEST / largest)).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(_ZERO)
        products = torch.ops.onednn.qlinear_pointwise(
            self.padded(rounded),
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
    def padded(rows: Tensor) -> Tensor:
        """Pad rows to one of few numbers, as oneDNN keeps a kernel for each; see ``rows_of_kernel``."""
        if torch.compiler.is_compiling():
            return rows
        more = rows_of_kernel(len(rows)) - len(rows)
        return F.pad(rows, (0, 0, 0, more)) if more else rows

    def extra_repr(self) -> str:
        """Return the widths, for ``repr``."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


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
