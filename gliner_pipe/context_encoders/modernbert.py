"""Layers of ModernBERT over the words."""

from __future__ import annotations

from typing import Any

from pydantic import PositiveInt
from torch import Tensor

from gliner_pipe.context_encoders._projected import TransformerContext
from gliner_pipe.registry import registry

#: The model is fed vectors; its table of tokens has one row, which nobody reads.
NO_TOKENS = {
    "vocab_size": 1,
    "tie_word_embeddings": False,
    **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")},
}


@registry.context_encoders.register("modernbert")
class ModernBert(TransformerContext):
    """Lets the words of a row attend to each other, with ModernBERT's rotary positions.

    Use it as ``deberta-v2``; it is the faster of the two on long rows, since two layers of three see near words only.
    It starts without pretrained weights.

    Parameters
    ----------
    n_layers
        Layers; one works as well, unlike in GLiNER 0.2.29 with transformers 5.
    width
        Of the layers; that of the words when not given.
    n_heads
        Attention heads; when not given, as many as make them 64 wide or a little wider.
    dropout
        Of vectors on entry, attention and the layers' networks.
    config
        Any other setting of ``transformers.ModernBertConfig``, such as ``local_attention``.

    Notes
    -----
    Source: GLiNER's ``ModernBertContextEncoder`` (``span_encoder_config`` of the type ``modernbert``).
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
        from transformers import ModernBertConfig, ModernBertModel

        settings = self.settings(
            hidden_size,
            embedding_dropout=self.dropout,
            attention_dropout=self.dropout,
            mlp_dropout=self.dropout,
        )
        n_layers = settings["num_hidden_layers"]
        self.project(hidden_size, settings["hidden_size"])
        # transformers 5 refuses a configuration in which not all kinds of attention occur, as in one of a single layer:
        # it is made for two layers at least and cut afterwards.
        config = ModernBertConfig(**{**settings, **NO_TOKENS, "num_hidden_layers": max(n_layers, 2)})
        config.num_hidden_layers = n_layers
        self.encoder = ModernBertModel(config)
        self.encoder.get_input_embeddings().requires_grad_(False)

    def encode(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Run the layers."""
        return self.encoder(inputs_embeds=words, attention_mask=word_mask.long()).last_hidden_state
