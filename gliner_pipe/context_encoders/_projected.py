"""What the context encoders share: layers of a width of their own between two projections."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gliner_pipe.context_encoders.base import ContextEncoder
from gliner_pipe.errors import ConfigError

WHERE = "components.*.model.context"


class ProjectedEncoder(ContextEncoder):
    """Projects words to the width of its layers, runs these, and projects back; equal widths need no projection.

    Parameters
    ----------
    n_layers
        Layers.
    width
        Of the layers; that of the words when not given.
    dropout
        In the layers.
    """

    def __init__(self, n_layers: int, width: int | None, dropout: float) -> None:
        super().__init__()
        self.n_layers = n_layers
        self.width = width
        self.dropout = dropout

    def project(self, hidden_size: int, width: int) -> None:
        """Make the projections between words of `hidden_size` and layers of `width`."""
        same = hidden_size == width
        self.input_projection = nn.Identity() if same else nn.Linear(hidden_size, width)
        self.output_projection = nn.Identity() if same else nn.Linear(width, hidden_size)

    @abstractmethod
    def encode(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Run the layers, ``(rows, words, width)`` to the same shape; what comes out for padding is ignored."""

    def forward(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Read the words; padding goes in and comes out as zeros."""
        padding = ~word_mask[..., None]
        words = self.input_projection(words.masked_fill(padding, 0)).masked_fill(padding, 0)
        return self.output_projection(self.encode(words, word_mask)).masked_fill(padding, 0)


class TransformerContext(ProjectedEncoder):
    """Base of those whose layers come from `transformers`, without pretrained weights.

    Parameters
    ----------
    n_layers, width, dropout
        As in ``ProjectedEncoder``.
    n_heads
        Attention heads; when not given, as many as make them 64 wide or a little wider.
    config
        Any other setting of the configuration of `transformers`, by its name there; wins over what the arguments say.
    """

    def __init__(
        self,
        n_layers: int,
        width: int | None,
        n_heads: int | None,
        dropout: float,
        config: Mapping[str, Any] | None,
    ) -> None:
        super().__init__(n_layers, width, dropout)
        self.n_heads = n_heads
        self.config = config

    def settings(self, hidden_size: int, **more: Any) -> dict[str, Any]:
        """Settings of the configuration of `transformers`, those of the family among them.

        Raises
        ------
        ConfigError
            When the heads do not divide the width.
        """
        own = dict(self.config or {})
        width = own.get("hidden_size", self.width or hidden_size)
        sizes = {
            "hidden_size": width,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads or _heads(width),
            "intermediate_size": 4 * width,
        }
        settings = {**sizes, **more, **own}
        if width % (heads := settings["num_attention_heads"]):
            raise ConfigError(
                f"{WHERE}.n_heads",
                f"found {heads} with layers of width {width}",
                f"a number that divides {width}",
            )
        return settings


def _heads(width: int) -> int:
    """Heads of a width of 64, or of the next width that divides."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)
