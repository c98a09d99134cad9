"""An LSTM over the words."""

from __future__ import annotations

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gliner_pipe.context_encoders._projected import WHERE, ProjectedEncoder
from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry


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
