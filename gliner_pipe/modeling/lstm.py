"""A bidirectional LSTM over padded rows."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.precision import HeadCopy


def check_even(width: int, where: str) -> None:
    """Raise a :class:`ConfigError` if vectors cannot be split into two directions of the same width."""
    if width % 2:
        raise ConfigError(
            where,
            f"found vectors of the odd width {width}, but each direction computes half of them",
            "an even width",
            "Set hidden_size of the transformer",
        )


class BiLSTM(nn.Module):
    """Reads each row up to its own length, so that padding does not change the result.

    Parameters
    ----------
    hidden_size
        Width of input and output, half of it per direction.
    n_layers
        Number of layers.
    """

    def __init__(self, hidden_size: int, n_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(hidden_size, hidden_size // 2, n_layers, batch_first=True, bidirectional=True)
        self.reduced = HeadCopy()

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map ``(rows, words, hidden)`` to the same shape; `mask` is ``(rows, words)``."""
        output: Tensor = self.reduced.run(self.lstm, lambda lstm, words: _read(lstm, words, mask), words)
        return output


def make_rnn(width: int, n_layers: int) -> BiLSTM | None:
    """Return the LSTM over the words of an encoder; None if it has no layers."""
    if not n_layers:
        return None
    check_even(width, "components.*.model.encoder.rnn_layers")
    return BiLSTM(width, n_layers)


def _read(lstm: nn.LSTM, words: Tensor, mask: Tensor) -> Tensor:
    lengths = mask.sum(1).cpu()
    if int(lengths.min()) == words.shape[1]:
        output: Tensor = lstm(words)[0]  # nothing is padded
        return output
    packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
    output, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, total_length=words.shape[1])
    return output
