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

WHERE = "components.*.embedding"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


@registry.backbones.register("text_cnn")
class TextCnn(Stacked):
    """Lets each word see its neighbours once more, whole words rather than pieces.

    Use it between a transformer and a tagger, to make borders of entities sharper at little cost.

    Parameters
    ----------
    embedding
        The backbone below.
    kernel_sizes
        Words that each convolution sees.
    out_channels
        Channels of each convolution; by default the width of the vectors below.
    output_size
        Width of the word vectors; by default that of the vectors below.
    activation
        Between the convolutions and the linear layer that joins them.
    residual
        Add the vectors below; their width is kept then.
    normalize
        Layer norm of what is added (``pre``), of the sum (``post``), or none.

    Notes
    -----
    Source: ``eds.text_cnn`` of EDS-NLP.
    """

    def __init__(
        self,
        embedding: Backbone,
        kernel_sizes: list[int] | None = None,
        out_channels: int | None = None,
        output_size: int | None = None,
        activation: Literal["relu", "gelu"] = "relu",
        residual: bool = True,
        normalize: Literal["pre", "post", "none"] = "pre",
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.kernel_sizes = [3] if kernel_sizes is None else kernel_sizes
        if not self.kernel_sizes or min(self.kernel_sizes) < 1:
            raise ConfigError(
                f"{WHERE}.kernel_sizes", f"found {self.kernel_sizes}", "one number of words or more"
            )
        self.out_channels = out_channels
        self.size = output_size
        self.activation = activation
        self.residual = residual
        self.normalize = normalize

    def make(self, size: int) -> None:
        """Make convolutions and linear layers."""
        if self.residual and self.output_size != size:
            raise ConfigError(
                f"{WHERE}.output_size",
                f"found {self.output_size} over vectors of width {size}, which are to be added",
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
        """Convolve words; padding is as far from them as the borders of the window."""
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
        """Bring the vectors of labels to the width of those of words."""
        return prompt if self.project_prompt is None else self.project_prompt(prompt).float()
