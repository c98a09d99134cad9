"""Backbones stacked on another backbone: their base class, ``dense`` and ``lstm``."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from gliner_pipe.modeling.backbones.base import Backbone, BackboneOutput, Pieces, Prompt, Window, WindowBatch
from gliner_pipe.modeling.lstm import BiLSTM, check_even
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Positive, Size


class Stacked(Backbone):
    """Transforms the word vectors of `embedding`, window by window.

    Words without subword tokens keep the zero vector, and vectors at padding are never read. Label vectors of the
    prompt are returned unchanged.

    Attributes
    ----------
    embedding
        The backbone below.
    """

    embedding: Backbone

    @abstractmethod
    def make(self, size: int) -> None:
        """Create the layers for vectors of width `size`."""

    @abstractmethod
    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map word vectors ``(rows, words, hidden)``, zero at padding; `mask` is ``(rows, words)``."""

    def prompted(self, prompt: Tensor) -> Tensor:
        """Map label vectors ``(rows, labels, hidden)``."""
        return prompt

    @property
    def output_size(self) -> int:
        """Width of the word vectors."""
        return self.embedding.output_size

    @property
    def max_tokens(self) -> int | Literal["auto"]:
        """Largest number of subword tokens, padding included, in one batch without gradients."""
        return self.embedding.max_tokens

    def build(self, new_tokens: Sequence[str] = ()) -> None:
        """Build the backbone below and create the layers."""
        self.embedding.build(new_tokens)
        self.make(self.embedding.output_size)

    @property
    def n_specials(self) -> int:
        """Number of special tokens in each row."""
        return self.embedding.n_specials

    @property
    def blank_piece(self) -> int | None:
        """Id of the subword token that stands for a single space."""
        return self.embedding.blank_piece

    def tokenize(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """Cut the words of each text into subword tokens."""
        return self.embedding.tokenize(texts)

    def windows(
        self,
        pieces: Sequence[Pieces],
        prompts: Sequence[Prompt],
        min_overlap: int,
        report: Counter[str] | None = None,
        training: bool = False,
    ) -> list[Window]:
        """Cut each text into windows."""
        return self.embedding.windows(pieces, prompts, min_overlap, report, training)

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
        """Write configuration and tokenizer of the backbone below."""
        self.embedding.save_assets(path)

    def load_assets(self, path: Path) -> None:
        """Build all modules from what ``save_assets`` wrote."""
        self.embedding.load_assets(path)
        self.make(self.embedding.output_size)


def stack_of(backbone: Any) -> list[Any]:
    """Return a backbone and the ones below it, from top to bottom."""
    found = [backbone]
    while hasattr(found[-1], "embedding"):
        found.append(found[-1].embedding)
    return found


@registry.backbones.register("dense")
class Dense(Stacked):
    """A linear layer, an activation and a layer norm on each word, of the width of the vectors below.

    Use it for a Hugging Face model with such a layer before its classifier, such as ModernBERT: a token classifier over
    ModernBERT can be exported for `transformers` only with it.

    Parameters
    ----------
    embedding
        The backbone below.
    activation
        Name in `transformers`: ``gelu``, ``relu``, ``silu`` ...
    bias
        Whether the linear layer has a bias.
    norm_bias, norm_eps
        Whether the layer norm has a bias, and its epsilon.
    """

    def __init__(
        self,
        embedding: Backbone,
        activation: str = "gelu",
        bias: bool = False,
        norm_bias: bool = False,
        norm_eps: Positive = 1e-5,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.activation = activation
        self.bias = bias
        self.norm_bias = norm_bias
        self.norm_eps = norm_eps

    def make(self, size: int) -> None:
        """Create the layers."""
        from transformers.activations import get_activation

        self.dense = nn.Linear(size, size, bias=self.bias)
        self.act: Any = get_activation(self.activation)
        self.norm = nn.LayerNorm(size, eps=self.norm_eps, bias=self.norm_bias)

    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        """Map each word vector."""
        mapped: Tensor = self.norm(self.act(self.dense(words)))
        return mapped


WHERE = "components.*.embedding"


@registry.backbones.register("lstm")
class Lstm(Stacked):
    """A bidirectional LSTM over the words of each window.

    Use it between a transformer and a token classifier if distant context matters; ``text_cnn`` is faster. The width of
    the vectors does not change; each direction computes half of it.

    Parameters
    ----------
    embedding
        The backbone below.
    layers
        Number of layers.
    """

    def __init__(self, embedding: Backbone, layers: Size = 1) -> None:
        super().__init__()
        self.embedding = embedding
        self.layers = layers

    def make(self, size: int) -> None:
        """Create the LSTM."""
        check_even(size, f"{WHERE}.embedding")
        self.rnn = BiLSTM(size, self.layers)

    def read(self, words: Tensor, mask: Tensor) -> Tensor:
        """Run the LSTM on each row up to its own length."""
        return self.rnn(words, mask)
