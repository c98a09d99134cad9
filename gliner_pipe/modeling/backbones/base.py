"""The contract of a backbone: words in, one vector per word out, for a text of any length; and its batches."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gliner_pipe.modeling.block import Block

IntArray = npt.NDArray[np.int64]
_Batch = TypeVar("_Batch", bound="TensorBatch")


@dataclass(frozen=True, slots=True)
class Pieces:
    """The subword tokens of one text.

    Attributes
    ----------
    ids
        Token ids, ``(tokens,)``.
    counts
        Number of subword tokens of each word, ``(words,)``; 0 for a word that the tokenizer drops (a zero-width space).
    n_added
        Number of words at the end that are not in the text: they are read, but no span holds them.
    """

    ids: IntArray
    counts: IntArray
    n_added: int = 0

    @property
    def n_words(self) -> int:
        """Number of words, including those without subword tokens."""
        return len(self.counts)


@dataclass(frozen=True, slots=True)
class Prompt:
    """The subword tokens before the text in every window.

    Attributes
    ----------
    ids
        Token ids, ``(tokens,)``.
    positions
        Index of the token that represents each label, ``(labels,)``; the backbone returns their vectors.
    word_counts
        Number of subword tokens of each of the words that end the prompt: they are rows of the word vectors, but no
        span of the text holds them. None if there are none.
    """

    ids: IntArray
    positions: IntArray
    word_counts: IntArray | None = field(default=None, kw_only=True)

    @property
    def n_labels(self) -> int:
        """Number of labels."""
        return len(self.positions)


@dataclass(frozen=True, slots=True)
class Window:
    """One window of one text: a row of a batch.

    Attributes
    ----------
    text
        Index of the text among the texts prepared together.
    start, stop
        The words in the window, ``[start, stop)``.
    own_start, own_stop
        The words that this window owns: a span is scored in the window that owns its first word.
    ids
        Token ids of these words, ``(tokens,)``.
    counts
        Number of subword tokens of each of these words, ``(stop - start,)``.
    prompt
        The prompt before them.
    n_added
        Number of words at the end that are not in the text.
    """

    text: int
    start: int
    stop: int
    own_start: int
    own_stop: int
    ids: IntArray
    counts: IntArray
    prompt: Prompt
    n_added: int = 0

    @property
    def n_prompt_words(self) -> int:
        """Number of words of the prompt, which are the first of the row."""
        return 0 if self.prompt.word_counts is None else len(self.prompt.word_counts)

    @property
    def first(self) -> int:
        """Position in the text of the first word of the row; negative where that is a word of the prompt."""
        return self.start - self.n_prompt_words

    @property
    def n_words(self) -> int:
        """Number of words in the row: those of the window, and of the prompt."""
        return self.stop - self.first

    @property
    def n_pieces(self) -> int:
        """Number of subword tokens of prompt and text, without special tokens."""
        return len(self.ids) + len(self.prompt.ids)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor to a device: from the CPU to a CUDA device asynchronously, through pinned memory.

    Other copies are waited for: an asynchronous one to the CPU could be read before it is complete.
    """
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@dataclass(frozen=True)
class TensorBatch:
    """Base of the batches: tensors and other values that are moved to a device together."""

    def to(self: _Batch, device: torch.device | str) -> _Batch:
        """Return the batch with all tensors, also of nested batches, on `device`; itself if they are there already."""
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
        Subword tokens of prompt and words, and special tokens, ``(rows, tokens)``.
    piece_start
        Position of the first subword token of each word, ``(rows, words)``.
    piece_count
        Number of subword tokens of each word, ``(rows, words)``; 0 for padding and for words without any.
    word_mask
        True for words, including those without subword tokens, ``(rows, words)``.
    prompt_positions
        Position of the subword token of each label, ``(rows, labels)``.
    prompt_mask
        True for labels, ``(rows, labels)``.
    own
        First and last (exclusive) word that each row owns, counted in the row, ``(rows, 2)``.
    unknown
        True for words that no span may start or end at, ``(rows, words)``: in training those that nobody annotated, and
        always those that are not in the text (of the prompt, or added at the end). None if there are none.
    """

    input_ids: Tensor
    attention_mask: Tensor
    piece_start: Tensor
    piece_count: Tensor
    word_mask: Tensor
    prompt_positions: Tensor
    prompt_mask: Tensor
    own: Tensor
    unknown: Tensor | None = None

    @property
    def annotated(self) -> Tensor:
        """True for words with subword tokens whose annotation is known: the loss covers these, ``(rows, words)``."""
        return self.scorable if self.unknown is None else self.scorable & ~self.unknown

    @property
    def scorable(self) -> Tensor:
        """True for words with subword tokens: spans start and end at these only, ``(rows, words)``."""
        return self.piece_count > 0


class BackboneOutput(NamedTuple):
    """The output of a backbone: `words` ``(rows, words, hidden)`` and `prompt` ``(rows, labels, hidden)``."""

    words: Tensor
    prompt: Tensor


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


def classified_parameters(
    models: Mapping[str, nn.Module],
) -> Iterator[tuple[str, nn.Parameter, bool, bool]]:
    """Yield each parameter of the models once, with what decides its learning rate and weight decay.

    Parameters
    ----------
    models
        Model of each component.

    Yields
    ------
    tuple
        Name, parameter, whether it is pretrained, and whether it has weight decay: biases and the parameters of
        normalisation layers have none.
    """
    backbone: set[int] = set()
    norms: set[int] = set()
    for model in models.values():
        backbone.update(map(id, pretrained_parameters(model)))
        for module in model.modules():
            if "norm" in type(module).__name__.lower():
                norms.update(id(parameter) for parameter in module.parameters(recurse=False))
    seen: set[int] = set()
    for component, model in models.items():
        for name, parameter in model.named_parameters():
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            # "bias" alone would miss bias_ih_l0 of an LSTM
            decays = id(parameter) not in norms and not name.rsplit(".", 1)[-1].startswith("bias")
            yield f"{component}.{name}", parameter, id(parameter) in backbone, decays


class WindowCache(Protocol):
    """Holds the output of a backbone for windows that occur again, see ``FeatureCache``."""

    def read(self, backbone: nn.Module, batch: WindowBatch) -> BackboneOutput:
        """Return the output of `backbone` for a batch, running it for new windows only."""


class Backbone(Block, PretrainedModule):
    """Computes the vectors of words, in windows over the text.

    The order of calls is ``build`` or ``load_assets`` (once), ``tokenize``, ``windows``, ``collate``, ``forward``.
    A backbone on top of another (a CNN, an LSTM) delegates all but ``forward`` to the one below.
    """

    family = "backbones"

    #: Cache of the vectors of windows while the weights are frozen; set by the training.
    features: WindowCache | None = None

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
        training: bool = False,
    ) -> list[Window]:
        """Cut each text into windows, in the order of the texts; `report` counts truncations.

        Windows for training may differ (``training_stride``). The mode of the model does not decide: a thread may cut
        the next texts while another one switches the mode.
        """

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


def pool_words(hidden: Tensor, start: Tensor, count: Tensor, how: str) -> Tensor:
    """Pool the subword tokens of each word.

    Parameters
    ----------
    hidden
        Vectors of the subword tokens, ``(rows, tokens, hidden)``.
    start, count
        First subword token of each word and their number, ``(rows, words)``.
    how
        ``first``, ``last``, ``mean`` or ``max``.

    Returns
    -------
    Tensor
        ``(rows, words, hidden)``; zero for words without subword tokens.
    """
    width = hidden.shape[-1]
    if how in ("first", "last"):
        at = start if how == "first" else start + (count - 1).clamp(min=0)
        return hidden.gather(1, at[:, :, None].expand(-1, -1, width)) * (count > 0)[:, :, None]
    if torch.onnx.is_in_onnx_export():
        return _pool_by_mask(hidden, start, count, how)
    rows, words = count.shape
    flat_words = torch.arange(rows * words, device=hidden.device).repeat_interleave(count.flatten())
    first_of_word = (count.flatten().cumsum(0) - count.flatten()).repeat_interleave(count.flatten())
    within = torch.arange(len(flat_words), device=hidden.device) - first_of_word
    tokens = hidden[flat_words // words, start.flatten()[flat_words] + within]
    pooled = hidden.new_zeros(rows * words, width)
    if how == "mean":
        pooled = pooled.index_add(0, flat_words, tokens) / count.flatten().clamp(min=1)[:, None]
    else:
        at = flat_words[:, None].expand(-1, width)
        pooled = pooled.scatter_reduce(0, at, tokens, "amax", include_self=False)
    return pooled.view(rows, words, width)


def _pool_by_mask(hidden: Tensor, start: Tensor, count: Tensor, how: str) -> Tensor:
    """Mean or maximum over the subword tokens of each word, without tensors of data-dependent size."""
    at = torch.arange(hidden.shape[1], device=hidden.device)
    inside = (at >= start[:, :, None]) & (at < (start + count)[:, :, None])  # (rows, words, tokens)
    if how == "mean":
        return inside.to(hidden.dtype) @ hidden / count.clamp(min=1)[:, :, None]
    # subword tokens outside all words are scattered to an extra last word
    of_word = torch.where(inside.any(1), inside.to(torch.uint8).argmax(1), count.shape[1])
    lowest = hidden.new_full((hidden.shape[0], count.shape[1] + 1, hidden.shape[2]), -torch.inf)
    pooled = lowest.scatter_reduce(1, of_word[:, :, None].expand_as(hidden), hidden, "amax")[:, :-1]
    return torch.where(count[:, :, None] > 0, pooled, 0.0)


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
