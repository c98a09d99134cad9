"""Linear layers with weights and inputs of 8 bits, for CPUs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError

#: Largest integer that a weight or an input becomes; the range is symmetric.
_LARGEST = 127
#: Where zero lies among the unsigned integers that the kernel takes for inputs.
_ZERO = 128


class Int8Linear(nn.Module):
    """A linear layer in int8: weights are rounded once, channel by channel, inputs as they come, row by row.

    A row has a scale of its own, so that an outlier in one word costs the others nothing and no text changes the scores
    of those that it shares a batch with. Scales, bias and result are fp32; the result has the numbers of the input.

    Parameters
    ----------
    linear
        The layer whose place it takes; it is left as it is.

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
        rows = inputs.float()
        largest = rows.abs().amax(-1, keepdim=True).clamp_min_(1e-12)
        # through int8, whose sign bit turned over is the unsigned integer: torch converts to uint8 a number at a time
        rounded = (rows * (_LARGEST / largest)).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(_ZERO)
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
        )
        if self.bias is None:
            products.mul_(largest)
        else:
            torch.addcmul(self.bias, products, largest, out=products)
        return products.to(inputs.dtype)

    def extra_repr(self) -> str:
        """Say how wide it is."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


def check_int8(device: torch.device, where: str) -> None:
    """Refuse devices that have no kernel.

    Raises
    ------
    ConfigError
        With what to take instead.
    """
    if device.type != "cpu":
        raise ConfigError(
            where,
            f"found 'int8' on {device}",
            "null, or int8 on the CPU",
            'A GPU is fast with dtype = "bf16"',
        )
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qlinear_pointwise")):
        raise ConfigError(where, "found 'int8', for which this build of torch has no oneDNN", "null")
