"""A bidirectional LSTM over the words of another backbone."""

from __future__ import annotations

from torch import Tensor

from gliner_pipe.backbones._stacked import Stacked
from gliner_pipe.backbones.base import Backbone
from gliner_pipe.encoders.lstm import BiLSTM
from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry

WHERE = "components.*.embedding"


@registry.backbones.register("lstm")
class Lstm(Stacked):
    """Reads the words of each window forwards and backwards.

    Use it between a transformer and a tagger where what came long before decides; ``text_cnn`` is faster. The width
    of the vectors is kept, each direction gives half of it.

    Parameters
    ----------
    embedding
        The backbone below.
    layers
        Layers of the LSTM.
    """

    def __init__(self, embedding: Backbone, layers: int = 1) -> None:
        super().__init__()
        if layers < 1:
            raise ConfigError(f"{WHERE}.layers", f"found {layers}", "1 or more")
        self.embedding = embedding
        self.layers = layers

    def make(self, size: int) -> None:
        """Make the LSTM."""
        if size % 2:
            raise ConfigError(
                f"{WHERE}.embedding",
                f"found vectors of width {size}, of which each direction cannot give half",
                "an even width",
                "Set hidden_size of the transformer",
            )
        self.rnn = BiLSTM(size, self.layers)

    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        """Read each row to its own length."""
        return self.rnn(words, mask)
