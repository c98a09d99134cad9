"""Fusions exchange information between words and labels after the encoder; ``cross_attention`` is built in."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.block import Block, check_divides
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Share, Size


class Fusion(Block):
    """Maps word and label vectors to new vectors of the same shape."""

    family = "fusions"

    @abstractmethod
    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width."""

    @abstractmethod
    def forward(
        self, words: Tensor, labels: Tensor, word_mask: Tensor, label_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Exchange information between words and labels.

        Parameters
        ----------
        words, labels
            ``(rows, words, hidden)`` and ``(rows, labels, hidden)``.
        word_mask, label_mask
            False for padding, ``(rows, words)`` and ``(rows, labels)``.

        Returns
        -------
        tuple of Tensor
            New word vectors and new label vectors.
        """


@registry.fusions.register("cross_attention")
class CrossAttention(Fusion):
    """Labels and words attend to each other.

    Use it with a ``bi_encoder``, which encodes labels and text separately; after a ``uni_encoder``, which encodes them
    together, it rarely helps.

    Parameters
    ----------
    pattern
        Steps joined by dashes: ``l2l`` labels attend to labels, ``t2t`` words to words, ``l2t`` labels to words,
        ``t2l`` words to labels.
    n_layers
        How often the pattern is applied, with new weights each time.
    n_heads
        Number of attention heads; must divide the width of the vectors.
    dropout
        Dropout rate of attention weights and attention output.

    Notes
    -----
    Source: GLiNER's ``post_fusion_schema``. As there, the residual connection starts from the normalised input.
    """

    def __init__(
        self,
        pattern: str = "l2t-t2l",
        n_layers: Size = 1,
        n_heads: Size = 8,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        self.steps = pattern.split("-")
        steps = ("l2l", "t2t", "l2t", "t2l")
        for step in self.steps:
            if step not in steps:
                where, allowed = "components.*.model.fusion.pattern", f"{', '.join(steps)}, joined by dashes"
                raise ConfigError(where, f"found the step {step!r}", allowed)
        self.n_layers = n_layers
        self.n_heads = n_heads
        self.dropout = dropout
        self.layers = nn.ModuleList()

    def build(self, hidden_size: int) -> None:
        """Create an attention block for each step of each layer."""
        check_divides("fusion.n_heads", self.n_heads, hidden_size)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                _Attention(hidden_size, self.n_heads, self.dropout, own=step[0] == step[2])
                for step in self.steps
            )
            for _ in range(self.n_layers)
        )

    def forward(
        self, words: Tensor, labels: Tensor, word_mask: Tensor, label_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Apply the pattern in each layer."""
        state = {"t": words, "l": labels}
        masks = {"t": word_mask, "l": label_mask}
        for layer in self.layers:
            assert isinstance(layer, nn.ModuleList)
            for step, attention in zip(self.steps, layer, strict=True):
                target, source = step[0], step[2]
                state[target] = attention(state[target], state[source], masks[source])
        return state["t"], state["l"]


class _Attention(nn.Module):
    """Attention of one sequence to another or to itself, between two layer norms."""

    def __init__(self, hidden_size: int, n_heads: int, dropout: float, own: bool) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.own = own
        self.pre_norm = nn.LayerNorm(hidden_size)
        self.post_norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        if own:
            self.q_proj = nn.Linear(hidden_size, hidden_size)
            self.k_proj = nn.Linear(hidden_size, hidden_size)
        self.v_proj = nn.Linear(hidden_size, hidden_size)
        layers = {
            name: nn.Linear(hidden_size, hidden_size) for name in ("query_layer", "key_layer", "value_layer")
        }
        self.projections = "self_attn" if own else "cross_attn"  # two names, as in GLiNER's checkpoints
        self.add_module(self.projections, nn.ModuleDict(layers))

    def forward(self, target: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        target = self.pre_norm(target)
        query, key = target, source
        if self.own:
            query, key, source = self.q_proj(target), self.k_proj(target), target
        layers: Any = self.get_submodule(self.projections)
        attended = F.scaled_dot_product_attention(
            self._heads(layers["query_layer"](query)),
            self._heads(layers["key_layer"](key)),
            self._heads(layers["value_layer"](self.v_proj(source))),
            attn_mask=mask[:, None, None, :],
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return self.post_norm(target + self.dropout(attended.transpose(1, 2).flatten(2)))

    def _heads(self, vectors: Tensor) -> Tensor:
        return vectors.unflatten(2, (self.n_heads, -1)).transpose(1, 2)
