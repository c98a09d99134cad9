"""The contract of a backbone: words in, one vector a word out, for a text of any length."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from gliner_pipe.modeling.backbones.feature_cache import FeatureCache
from gliner_pipe.modeling.backbones.windows import Pieces, Prompt, Window
from gliner_pipe.modeling.block import Block

_Batch = TypeVar("_Batch", bound="TensorBatch")


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor to a device; to a CUDA device through pinned memory, so that nobody waits for it."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


@dataclass(frozen=True)
class TensorBatch:
    """Base of the batches: tensors and plain values that move to a device together."""

    def to(self: _Batch, device: torch.device | str) -> _Batch:
        """Return the batch with all its tensors (those of nested batches too) on `device`; itself if they are there."""
        device = torch.device(device)
        moved: dict[str, Any] = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and value.device != device:
                moved[name] = to_device(value, device)
            elif isinstance(value, TensorBatch) and (there := value.to(device)) is not value:
                moved[name] = there
        return replace(self, **moved) if moved else self


@dataclass(frozen=True)
class WindowBatch(TensorBatch):
    """Windows, padded to the longest.

    Attributes
    ----------
    input_ids, attention_mask
        Prompt, words and special pieces, ``(rows, pieces)``.
    piece_start
        Position of the first piece of each word, ``(rows, words)``.
    piece_count
        Pieces of each word, ``(rows, words)``; 0 for padding and for words without pieces.
    word_mask
        True for words, those without pieces included, ``(rows, words)``.
    prompt_positions
        Position of the piece of each label, ``(rows, labels)``.
    prompt_mask
        True for labels, ``(rows, labels)``.
    own
        First and last (exclusive) own word of each row, counted in the row, ``(rows, 2)``.
    """

    input_ids: Tensor
    attention_mask: Tensor
    piece_start: Tensor
    piece_count: Tensor
    word_mask: Tensor
    prompt_positions: Tensor
    prompt_mask: Tensor
    own: Tensor

    @property
    def scorable(self) -> Tensor:
        """True for words with pieces, the only ones at which a span may start or end, ``(rows, words)``."""
        return self.piece_count > 0


class BackboneOutput(NamedTuple):
    """What a backbone hands on: `words` ``(rows, words, hidden)`` and `prompt` ``(rows, labels, hidden)``."""

    words: Tensor
    prompt: Tensor


class PretrainedModule(nn.Module):
    """Holds pretrained weights, which learn at a rate of their own (``transformer_lr``)."""

    def pretrained_modules(self) -> Sequence[nn.Module]:
        """Modules whose weights are pretrained; by default the whole."""
        return [self]


def pretrained_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the pretrained weights of `model`.

    A CNN or LSTM on top of a backbone is new: it learns with the rest of the task.
    """
    for module in model.modules():
        if isinstance(module, PretrainedModule):
            innermost = [child for child in module.modules() if isinstance(child, PretrainedModule)][-1]
            for part in innermost.pretrained_modules():
                yield from part.parameters()


class Backbone(Block, PretrainedModule):
    """Turns words into vectors, windows being its private matter.

    The order of calls is ``build`` or ``load_assets`` (once), ``tokenize``, ``windows``, ``collate``, ``forward``.
    A backbone on top of another (a CNN, an LSTM) hands all but ``forward`` to the one below.
    """

    family = "backbones"

    #: What is kept of windows while the weights stay; a training sets it.
    features: FeatureCache | None = None

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Width of the word vectors, known once built."""

    @property
    @abstractmethod
    def max_tokens(self) -> int | Literal["auto"]:
        """Padded pieces to be run at once without gradients."""

    @property
    def n_specials(self) -> int:
        """Special pieces that a row has beyond those of prompt and text."""
        return 0

    @property
    def blank_piece(self) -> int | None:
        """The piece that stands for a blank alone, which says nothing of a word; None where there is no such piece."""
        return None

    @abstractmethod
    def build(self, new_tokens: Sequence[str] = ()) -> None:
        """Load the pretrained weights and the tokenizer, and add `new_tokens` to both."""

    @abstractmethod
    def tokenize(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """Cut the words of each text into pieces."""

    @abstractmethod
    def windows(
        self,
        pieces: Sequence[Pieces],
        prompts: Sequence[Prompt],
        min_overlap: int,
        report: Counter[str] | None = None,
    ) -> list[Window]:
        """Cut each text into windows, in the order of the texts; `report` counts what is cut off."""

    @abstractmethod
    def collate(self, windows: Sequence[Window]) -> WindowBatch:
        """Pad windows into one batch, on the CPU."""

    @abstractmethod
    def forward(self, batch: WindowBatch) -> BackboneOutput:
        """Run a batch; words without pieces get the zero vector."""

    def vectors(self, batch: WindowBatch) -> BackboneOutput:
        """Run a batch, or take what is kept of its windows where there is a cache of features."""
        output: BackboneOutput = self(batch) if self.features is None else self.features.read(self, batch)
        return output

    @abstractmethod
    def save_assets(self, path: Path) -> None:
        """Write to the folder `path` what is needed beside the weights: configuration and tokenizer."""

    @abstractmethod
    def load_assets(self, path: Path) -> None:
        """Make the module from what ``save_assets`` wrote, with weights still to be filled in."""
