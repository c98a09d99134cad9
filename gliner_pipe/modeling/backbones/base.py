"""The contract of a backbone: words in, one vector per word out, for a text of any length."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from torch import nn

from gliner_pipe.modeling.backbones.feature_cache import FeatureCache
from gliner_pipe.modeling.backbones.windows import BackboneOutput, Pieces, Prompt, Window, WindowBatch
from gliner_pipe.modeling.block import Block

__all__ = [
    "Backbone",
    "BackboneOutput",
    "PretrainedModule",
    "WindowBatch",
    "frozen_backbones",
    "pretrained_parameters",
]


class PretrainedModule(nn.Module):
    """A module with pretrained weights, which are trained with their own learning rate (``transformer_lr``)."""

    def pretrained_modules(self) -> Sequence[nn.Module]:
        """Return the modules whose weights are pretrained; by default the whole module."""
        return [self]


def pretrained_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the pretrained weights of `model`; a CNN or LSTM on top of a backbone is not pretrained."""
    for module in model.modules():
        if isinstance(module, PretrainedModule):
            innermost = [child for child in module.modules() if isinstance(child, PretrainedModule)][-1]
            for part in innermost.pretrained_modules():
                yield from part.parameters()


class Backbone(Block, PretrainedModule):
    """Computes the vectors of words, in windows over the text.

    The order of calls is ``build`` or ``load_assets`` (once), ``tokenize``, ``windows``, ``collate``, ``forward``.
    A backbone on top of another (a CNN, an LSTM) delegates all but ``forward`` to the one below.
    """

    family = "backbones"

    #: Cache of the vectors of windows while the weights are frozen; set by the training.
    features: FeatureCache | None = None

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Width of the word vectors, known once built."""

    @property
    @abstractmethod
    def max_tokens(self) -> int | Literal["auto"]:
        """Largest number of subword tokens, padding included, in one batch without gradients."""

    @property
    def n_specials(self) -> int:
        """Number of special tokens that are added to prompt and text in each row."""
        return 0

    @property
    def blank_piece(self) -> int | None:
        """Id of the subword token that stands for a single space and carries no text; None if there is none."""
        return None

    @abstractmethod
    def build(self, new_tokens: Sequence[str] = ()) -> None:
        """Load the pretrained weights and the tokenizer, and add `new_tokens` to both."""

    @abstractmethod
    def tokenize(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """Cut the words of each text into subword tokens."""

    @abstractmethod
    def windows(
        self,
        pieces: Sequence[Pieces],
        prompts: Sequence[Prompt],
        min_overlap: int,
        report: Counter[str] | None = None,
    ) -> list[Window]:
        """Cut each text into windows, in the order of the texts; `report` counts truncations."""

    @abstractmethod
    def collate(self, windows: Sequence[Window]) -> WindowBatch:
        """Pad windows into one batch, on the CPU."""

    @abstractmethod
    def forward(self, batch: WindowBatch) -> BackboneOutput:
        """Return the vectors of a batch; words without subword tokens have the zero vector."""

    def vectors(self, batch: WindowBatch) -> BackboneOutput:
        """Return the vectors of a batch, from the feature cache if there is one."""
        output: BackboneOutput = self(batch) if self.features is None else self.features.read(self, batch)
        return output

    @abstractmethod
    def save_assets(self, path: Path) -> None:
        """Write configuration and tokenizer, but no weights, to the folder `path`."""

    @abstractmethod
    def load_assets(self, path: Path) -> None:
        """Build the module from what ``save_assets`` wrote; its weights are loaded afterwards."""


def frozen_backbones(model: nn.Module) -> list[Backbone]:
    """Return the backbones of `model` with frozen weights only; of stacked ones, the outermost."""
    found: list[Backbone] = []
    inside: set[nn.Module] = set()
    for module in model.modules():  # outer modules come first
        if isinstance(module, Backbone) and module not in inside:
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                found.append(module)
                inside.update(module.modules())
    return found
