"""Layers of DeBERTa over the words."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt
from torch import Tensor

from gliner_pipe.context_encoders._projected import TransformerContext
from gliner_pipe.registry import registry


@registry.context_encoders.register("deberta-v2")
class DebertaV2(TransformerContext):
    """Lets the words of a row attend to each other, with DeBERTa's relative positions.

    Use it where backbone and words part early: after a causal backbone, which lets no word see the next, or a frozen
    one. It starts without pretrained weights.

    Parameters
    ----------
    n_layers
        Layers.
    width
        Of the layers; that of the words when not given.
    n_heads
        Attention heads; when not given, as many as make them 64 wide or a little wider.
    dropout
        Of hidden vectors and attention.
    config
        Any other setting of ``transformers.DebertaV2Config``, such as ``position_buckets``.

    Notes
    -----
    Source: GLiNER's ``DebertaV2ContextEncoder`` (``span_encoder_config`` of the type ``deberta-v2``).
    """

    def __init__(
        self,
        n_layers: PositiveInt = 1,
        width: PositiveInt | None = None,
        n_heads: PositiveInt | None = None,
        dropout: float = 0.4,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(n_layers, width, n_heads, dropout, config)

    def build(self, hidden_size: int) -> None:
        """Make the weights."""
        from transformers import DebertaV2Config
        from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Encoder

        settings = self.settings(
            hidden_size,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            max_relative_positions=512,
        )
        self.project(hidden_size, settings["hidden_size"])
        self.encoder = DebertaV2Encoder(DebertaV2Config(**settings))

    def encode(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Run the layers."""
        return self.encoder(words, word_mask.long(), output_hidden_states=False).last_hidden_state
