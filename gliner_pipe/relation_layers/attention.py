"""Attention of heads to tails."""

from __future__ import annotations

from torch import Tensor

from gliner_pipe.registry import registry
from gliner_pipe.relation_layers._heads import attention, attention_weights
from gliner_pipe.relation_layers.base import RelationLayer, among_valid


@registry.relation_layers.register("attention")
class Attention(RelationLayer):
    """How much each head attends to each tail, averaged over attention heads.

    The strengths of one head sum to 1, so that a head with several tails has weaker ties: set the threshold of pairs
    well below 0.5.

    Parameters
    ----------
    n_heads
        Attention heads; the width of the vectors must be a multiple.

    Notes
    -----
    Source: GLiNER's ``relations_layer = "attention"``, also written ``"attn"``; there a text without entities ends in
    an error. Of the attention layer, the values and the output projection are there for its checkpoints and do nothing.
    """

    def __init__(self, n_heads: int = 8) -> None:
        super().__init__()
        self.n_heads = n_heads

    def build(self, hidden_size: int) -> None:
        """Make the attention layer."""
        self.attn = attention(hidden_size, self.n_heads)
        # They have no influence: without a gradient no optimizer moves or decays them.
        self.attn.out_proj.requires_grad_(False)

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        return among_valid(attention_weights(self.attn, entities, mask).mean(1), mask)
