"""Backbones stacked on another backbone: their shared base, and ``dense`` and ``lstm``."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import Backbone, BackboneOutput, WindowBatch
from gliner_pipe.modeling.backbones.windows import Pieces, Prompt, Window
from gliner_pipe.modeling.lstm import BiLSTM
from gliner_pipe.registry import registry


class Stacked(Backbone):
    """Reads the word vectors of `embedding`, window by window, and gives others.

    Words without pieces keep the zero vector, and what stands at padding is never read. Vectors of labels in the prompt
    are passed on as they are.

    Attributes
    ----------
    embedding
        The backbone below.
    """

    embedding: Backbone

    @abstractmethod
    def make(self, size: int) -> None:
        """Make the layers for vectors of width `size`."""

    @abstractmethod
    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map vectors ``(rows, words, hidden)``, zero at padding; `mask` is ``(rows, words)``."""

    def prompted(self, prompt: Tensor) -> Tensor:
        """Map the vectors of labels ``(rows, labels, hidden)``."""
        return prompt

    @property
    def output_size(self) -> int:
        """Width of the word vectors."""
        return self.embedding.output_size

    @property
    def max_tokens(self) -> int | Literal["auto"]:
        """Padded pieces to be run at once without gradients."""
        return self.embedding.max_tokens

    def build(self, new_tokens: Sequence[str] = ()) -> None:
        """Build the backbone below, and make the layers."""
        self.embedding.build(new_tokens)
        self.make(self.embedding.output_size)

    @property
    def n_specials(self) -> int:
        """Special pieces of a row."""
        return self.embedding.n_specials

    @property
    def blank_piece(self) -> int | None:
        """The piece that stands for a blank alone."""
        return self.embedding.blank_piece

    def tokenize(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """Cut the words of each text into pieces."""
        return self.embedding.tokenize(texts)

    def windows(
        self,
        pieces: Sequence[Pieces],
        prompts: Sequence[Prompt],
        min_overlap: int,
        report: Counter[str] | None = None,
    ) -> list[Window]:
        """Cut each text into windows."""
        return self.embedding.windows(pieces, prompts, min_overlap, report)

    def collate(self, windows: Sequence[Window]) -> WindowBatch:
        """Pad windows into one batch."""
        return self.embedding.collate(windows)

    def forward(self, batch: WindowBatch) -> BackboneOutput:
        """Run a batch of windows."""
        words, prompt = self.embedding.vectors(batch)
        mask = batch.word_mask
        words = self.read(words * mask[:, :, None], mask).float()
        return BackboneOutput(words * batch.scorable[:, :, None], self.prompted(prompt))

    def save_assets(self, path: Path) -> None:
        """Write what the backbone below needs."""
        self.embedding.save_assets(path)

    def load_assets(self, path: Path) -> None:
        """Make all modules from what ``save_assets`` wrote."""
        self.embedding.load_assets(path)
        self.make(self.embedding.output_size)


def stack_of(backbone: Any) -> list[Any]:
    """Return a backbone and those below it, the one that stands on no other last."""
    found = [backbone]
    while hasattr(found[-1], "embedding"):
        found.append(found[-1].embedding)
    return found


@registry.backbones.register("dense")
class Dense(Stacked):
    """A linear layer, an activation and a layer norm on each word by itself, of the width of the vectors below.

    Use it where a Hugging Face model has such a layer before its classifier: ModernBERT has, and a tagger over
    ModernBERT can be written for `transformers` with it only.

    Parameters
    ----------
    embedding
        The backbone below.
    activation
        As `transformers` names it: ``gelu``, ``relu``, ``silu`` ...
    bias
        Of the linear layer.
    norm_bias, norm_eps
        Of the layer norm.
    """

    def __init__(
        self,
        embedding: Backbone,
        activation: str = "gelu",
        bias: bool = False,
        norm_bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.activation = activation
        self.bias = bias
        self.norm_bias = norm_bias
        self.norm_eps = norm_eps

    def make(self, size: int) -> None:
        """Make the layers."""
        from transformers.activations import get_activation

        self.dense = nn.Linear(size, size, bias=self.bias)
        self.act: Any = get_activation(self.activation)
        self.norm = nn.LayerNorm(size, eps=self.norm_eps, bias=self.norm_bias)

    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map each word."""
        read: Tensor = self.norm(self.act(self.dense(words)))
        return read


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
