"""One more layer on each word of another backbone."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from gliner_pipe.backbones._stacked import Stacked
from gliner_pipe.backbones.base import Backbone
from gliner_pipe.registry import registry


@registry.backbones.register("dense")
class Dense(Stacked):
    """A linear layer, an activation and a layer norm on each word by itself, of the width of the vectors below.

    Use it where a Hugging Face model has such a layer before its classifier: ModernBERT has, and a tagger over
    ModernBERT can be written for `transformers` with it only.

    Parameters
    ----------
    embedding
        The backbone below.
    activation
        As `transformers` names it: ``gelu``, ``relu``, ``silu`` ...
    bias
        Of the linear layer.
    norm_bias, norm_eps
        Of the layer norm.
    """

    def __init__(
        self,
        embedding: Backbone,
        activation: str = "gelu",
        bias: bool = False,
        norm_bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.activation = activation
        self.bias = bias
        self.norm_bias = norm_bias
        self.norm_eps = norm_eps

    def make(self, size: int) -> None:
        """Make the layers."""
        from transformers.activations import get_activation

        self.dense = nn.Linear(size, size, bias=self.bias)
        self.act: Any = get_activation(self.activation)
        self.norm = nn.LayerNorm(size, eps=self.norm_eps, bias=self.norm_bias)

    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map each word."""
        read: Tensor = self.norm(self.act(self.dense(words)))
        return read
