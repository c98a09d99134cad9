"""Context encoders: a second encoder over the word vectors, run before spans are built."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.block import Block, check_divides
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Share, Size


class ContextEncoder(Block):
    """Maps word vectors to new vectors of the same shape."""

    family = "context_encoders"

    @property
    def looks_ahead(self) -> bool:
        """Whether the vector of a word depends on the words after it."""
        return True

    @abstractmethod
    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width."""

    @abstractmethod
    def forward(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Encode the words.

        Parameters
        ----------
        words
            ``(rows, words, hidden)``.
        word_mask
            False for padding, ``(rows, words)``.

        Returns
        -------
        Tensor
            ``(rows, words, hidden)``; zero for padding.
        """


class ProjectedEncoder(ContextEncoder):
    """Projects words to the width of its layers, applies the layers, and projects back."""

    def __init__(self, n_layers: int, width: int | None, dropout: float) -> None:
        super().__init__()
        self.n_layers = n_layers
        self.width = width
        self.dropout = dropout

    def project(self, hidden_size: int, width: int) -> None:
        """Create the projections between words of `hidden_size` and layers of `width`, if they differ."""
        same = hidden_size == width
        self.input_projection = nn.Identity() if same else nn.Linear(hidden_size, width)
        self.output_projection = nn.Identity() if same else nn.Linear(width, hidden_size)

    @abstractmethod
    def encode(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Apply the layers, ``(rows, words, width)`` to the same shape; the output of padding is ignored."""

    def forward(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Encode the words; padding is zero in input and output."""
        padding = ~word_mask[..., None]
        words = self.input_projection(words.masked_fill(padding, 0)).masked_fill(padding, 0)
        return self.output_projection(self.encode(words, word_mask)).masked_fill(padding, 0)


class TransformerContext(ProjectedEncoder):
    """Base class of context encoders whose layers come from `transformers`, without pretrained weights.

    Parameters
    ----------
    n_layers
        Number of layers.
    width
        Width of the layers; that of the words by default.
    dropout
        Dropout rate in the layers.
    n_heads
        Number of attention heads; by default as many as make each 64 wide or slightly wider.
    config
        Any other setting of the `transformers` configuration, by its name there; overrides the other arguments.
    """

    def __init__(
        self,
        n_layers: Size = 1,
        width: Size | None = None,
        n_heads: Size | None = None,
        dropout: Share = 0.4,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(n_layers, width, dropout)
        self.n_heads = n_heads
        self.config = config

    def settings(self, hidden_size: int, **more: Any) -> dict[str, Any]:
        """Return the settings of the `transformers` configuration; `more` are those of the model family.

        Raises
        ------
        ConfigError
            If the number of heads does not divide the width.
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
        check_divides("context.n_heads", settings["num_attention_heads"], width)
        return settings


def _heads(width: int) -> int:
    """Return the largest number of heads, at least 64 wide each, that divides the width."""
    return next(heads for heads in range(max(1, width // 64), 0, -1) if width % heads == 0)


@registry.context_encoders.register("deberta-v2")
class DebertaV2(TransformerContext):
    """Self-attention between the words of a row, with DeBERTa's relative positions.

    Use it after a causal backbone, in which no word sees the next, or after a frozen one. It has no pretrained weights.

    Parameters
    ----------
    n_layers, width, n_heads
        As in every context encoder from `transformers`.
    dropout
        Dropout rate of hidden vectors and attention weights.
    config
        Any other setting of ``transformers.DebertaV2Config``, such as ``position_buckets``.

    Notes
    -----
    Source: GLiNER's ``DebertaV2ContextEncoder`` (``span_encoder_config`` of the type ``deberta-v2``).
    """

    def build(self, hidden_size: int) -> None:
        """Create the weights."""
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
        """Apply the layers."""
        return self.encoder(words, word_mask.long(), output_hidden_states=False).last_hidden_state


@registry.context_encoders.register("lstm")
class Lstm(ProjectedEncoder):
    """An LSTM over the words of each row, bidirectional by default.

    Use it if the encoder has no ``rnn_layers``. Padding never affects the result.

    Parameters
    ----------
    n_layers
        Number of layers.
    width
        Width of the layers, both directions together; that of the words by default.
    dropout
        Dropout rate between layers.
    bidirectional
        False: each word only sees the words before it.

    Notes
    -----
    Source: GLiNER's ``RNNContextEncoder`` (``span_encoder_config`` of the type ``rnn``).
    """

    def __init__(
        self,
        n_layers: Size = 1,
        width: Size | None = None,
        dropout: Share = 0.4,
        bidirectional: bool = True,
    ) -> None:
        super().__init__(n_layers, width, dropout)
        self.bidirectional = bidirectional

    @property
    def looks_ahead(self) -> bool:
        """Whether the LSTM is bidirectional."""
        return self.bidirectional

    def build(self, hidden_size: int) -> None:
        """Create the weights."""
        width = self.width or hidden_size
        if self.bidirectional and width % 2:
            where = "components.*.model.context.width"
            raise ConfigError(where, f"found {width} with two directions", "even numbers")
        self.project(hidden_size, width)
        self.encoder = nn.LSTM(
            width,
            width // 2 if self.bidirectional else width,
            self.n_layers,
            dropout=self.dropout if self.n_layers > 1 else 0.0,  # PyTorch warns about dropout with one layer
            bidirectional=self.bidirectional,
            batch_first=True,
        )

    def encode(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Apply the layers; a row without words counts as one word, which is then masked."""
        lengths = word_mask.sum(1).clamp_min(1).cpu()
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.encoder(packed)[0], batch_first=True, total_length=words.shape[1])[0]


#: The input is vectors, so the token embeddings have a single, unused row.
NO_TOKENS = {
    "vocab_size": 1,
    "tie_word_embeddings": False,
    **{f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")},
}


@registry.context_encoders.register("modernbert")
class ModernBert(TransformerContext):
    """Self-attention between the words of a row, with ModernBERT's rotary positions.

    Use it like ``deberta-v2``; it is faster on long rows, since two layers of three only attend to nearby words. It has
    no pretrained weights.

    Parameters
    ----------
    n_layers, width, n_heads
        As in every context encoder from `transformers`. A single layer works too, unlike in GLiNER 0.2.29 with
        transformers 5.
    dropout
        Dropout rate of input vectors, attention weights and feed-forward layers.
    config
        Any other setting of ``transformers.ModernBertConfig``, such as ``local_attention``.

    Notes
    -----
    Source: GLiNER's ``ModernBertContextEncoder`` (``span_encoder_config`` of the type ``modernbert``).
    """

    def build(self, hidden_size: int) -> None:
        """Create the weights."""
        from transformers import ModernBertConfig, ModernBertModel

        settings = self.settings(
            hidden_size,
            embedding_dropout=self.dropout,
            attention_dropout=self.dropout,
            mlp_dropout=self.dropout,
        )
        n_layers = settings["num_hidden_layers"]
        self.project(hidden_size, settings["hidden_size"])
        # transformers 5 rejects a configuration without both kinds of attention, as with a single layer: configure at
        # least two layers and reduce the number afterwards
        config = ModernBertConfig(**{**settings, **NO_TOKENS, "num_hidden_layers": max(n_layers, 2)})
        config.num_hidden_layers = n_layers
        self.encoder = ModernBertModel(config)
        self.encoder.get_input_embeddings().requires_grad_(False)

    def encode(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Apply the layers."""
        return self.encoder(inputs_embeds=words, attention_mask=word_mask.long()).last_hidden_state
