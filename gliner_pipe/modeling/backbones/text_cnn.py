"""A convolution over the words of another backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import Backbone
from gliner_pipe.modeling.backbones.stacked import Stacked
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Size

WHERE = "components.*.embedding"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


@registry.backbones.register("text_cnn")
class TextCnn(Stacked):
    """Convolutions over the vectors of neighbouring words.

    Use it between a transformer and a token classifier for more precise entity boundaries at little cost.

    Parameters
    ----------
    embedding
        The backbone below.
    kernel_sizes
        Number of words in the kernel of each convolution.
    out_channels
        Number of channels of each convolution; by default the width of the vectors below.
    output_size
        Width of the word vectors; by default that of the vectors below.
    activation
        Activation between the convolutions and the linear layer that combines them.
    residual
        Add the vectors below; `output_size` must then be their width.
    normalize
        Layer norm before (``pre``) or after (``post``) this addition, or none.

    Notes
    -----
    Source: ``eds.text_cnn`` of EDS-NLP.
    """

    def __init__(
        self,
        embedding: Backbone,
        kernel_sizes: list[Size] | None = None,
        out_channels: Size | None = None,
        output_size: Size | None = None,
        activation: Literal["relu", "gelu"] = "relu",
        residual: bool = True,
        normalize: Literal["pre", "post", "none"] = "pre",
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.kernel_sizes = [3] if kernel_sizes is None else kernel_sizes
        if not self.kernel_sizes:
            raise ConfigError(
                f"{WHERE}.kernel_sizes", f"found {self.kernel_sizes}", "one or more numbers of words"
            )
        self.out_channels = out_channels
        self.size = output_size
        self.activation = activation
        self.residual = residual
        self.normalize = normalize

    def make(self, size: int) -> None:
        """Create convolutions and linear layers."""
        if self.residual and self.output_size != size:
            raise ConfigError(
                f"{WHERE}.output_size",
                f"found {self.output_size} with residual = True over vectors of width {size}",
                f"{size}, or residual = False",
            )
        channels = self.out_channels or size
        self.convolutions = nn.ModuleList(nn.Conv1d(size, channels, kernel) for kernel in self.kernel_sizes)
        self.linear = nn.Linear(channels * len(self.kernel_sizes), self.output_size)
        self.project_prompt = nn.Linear(size, self.output_size) if self.output_size != size else None

    @property
    def output_size(self) -> int:
        """Width of the word vectors."""
        return self.size or self.embedding.output_size

    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        """Convolve word vectors; padding counts as zero, as do positions outside of the window."""
        columns = words.transpose(1, 2)
        found = [
            convolution(F.pad(columns, (kernel // 2, (kernel - 1) // 2)))
            for kernel, convolution in zip(self.kernel_sizes, self.convolutions, strict=True)
        ]
        added = self.linear(ACTIVATIONS[self.activation](torch.cat(found, 1)).transpose(1, 2)).float()
        if self.normalize == "pre":
            added = F.layer_norm(added, added.shape[-1:])
        total = words + added if self.residual else added
        return F.layer_norm(total, total.shape[-1:]) if self.normalize == "post" else total

    def prompted(self, prompt: Tensor) -> Tensor:
        """Project label vectors to the width of the word vectors."""
        return prompt if self.project_prompt is None else self.project_prompt(prompt).float()
