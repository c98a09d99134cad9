"""A bidirectional LSTM over padded rows."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class BiLSTM(nn.Module):
    """Reads each row to its own length, so padding never changes a number.

    Parameters
    ----------
    hidden_size
        Width of input and output; each direction gives half of it.
    n_layers
        Layers.
    """

    def __init__(self, hidden_size: int, n_layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(hidden_size, hidden_size // 2, n_layers, batch_first=True, bidirectional=True)

    def forward(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map ``(rows, words, hidden)`` to the same shape; `mask` is ``(rows, words)``."""
        lengths = mask.sum(1).cpu()
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=words.shape[1])
        return output
