"""Context encoders: a second encoder over the word vectors, run before spans are built."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.block import Block
from gliner_pipe.registry import registry


class ContextEncoder(Block):
    """Maps word vectors to new ones of the same shape."""

    family = "context_encoders"

    @abstractmethod
    def build(self, hidden_size: int) -> None:
        """Make the weights for vectors of this width."""

    @abstractmethod
    def forward(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Read the words.

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


@registry.context_encoders.register("lstm")
class Lstm(ProjectedEncoder):
    """Reads the words of each row in turn, forth and, by default, back.

    Use it where the encoder has no ``rnn_layers`` of its own. Rows are read to their own length, so padding never
    changes a number.

    Parameters
    ----------
    n_layers
        Layers.
    width
        Of the layers, both directions together; that of the words when not given.
    dropout
        Between layers.
    bidirectional
        False: each word sees the words before it only.

    Notes
    -----
    Source: GLiNER's ``RNNContextEncoder`` (``span_encoder_config`` of the type ``rnn``).
    """

    def __init__(
        self,
        n_layers: PositiveInt = 1,
        width: PositiveInt | None = None,
        dropout: float = 0.4,
        bidirectional: bool = True,
    ) -> None:
        super().__init__(n_layers, width, dropout)
        self.bidirectional = bidirectional

    def build(self, hidden_size: int) -> None:
        """Make the weights."""
        width = self.width or hidden_size
        if self.bidirectional and width % 2:
            raise ConfigError(
                f"{WHERE}.width", f"found {width}, which two directions cannot share", "even numbers"
            )
        self.project(hidden_size, width)
        self.encoder = nn.LSTM(
            width,
            width // 2 if self.bidirectional else width,
            self.n_layers,
            dropout=self.dropout if self.n_layers > 1 else 0.0,  # torch warns where there is nothing between
            bidirectional=self.bidirectional,
            batch_first=True,
        )

    def encode(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Run the layers; a row without words is read as one of one word, which is then masked."""
        lengths = word_mask.sum(1).clamp_min(1).cpu()
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.encoder(packed)[0], batch_first=True, total_length=words.shape[1])[0]


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
