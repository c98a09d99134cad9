"""Windows over texts of any length: how words are cut into windows, and windows padded into batches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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
    """

    ids: IntArray
    counts: IntArray

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
    """

    ids: IntArray
    positions: IntArray

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
    """

    text: int
    start: int
    stop: int
    own_start: int
    own_stop: int
    ids: IntArray
    counts: IntArray
    prompt: Prompt

    @property
    def n_words(self) -> int:
        """Number of words in the window."""
        return self.stop - self.start

    @property
    def n_pieces(self) -> int:
        """Number of subword tokens of prompt and text, without special tokens."""
        return len(self.ids) + len(self.prompt.ids)


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copy a tensor to a device; to a CUDA device asynchronously, through pinned memory."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


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
        """True for words with subword tokens: spans start and end at these only, ``(rows, words)``."""
        return self.piece_count > 0


class BackboneOutput(NamedTuple):
    """The output of a backbone: `words` ``(rows, words, hidden)`` and `prompt` ``(rows, labels, hidden)``."""

    words: Tensor
    prompt: Tensor


def layout(counts: IntArray, window: int, stride: int, min_overlap: int) -> list[tuple[int, int, int, int]]:
    """Cut a text into windows and assign each word to the window in which it is most central.

    Parameters
    ----------
    counts
        Number of subword tokens of each word, ``(words,)``, at most `window`. A word without any counts as one.
    window
        Largest number of subword tokens in a window.
    stride
        Subword tokens from the start of a window to the start of the next.
    min_overlap
        Smallest number of words that neighbours share, so that a span that starts in the words a window owns ends
        inside the window: twice the largest span width. Less where a window holds fewer words.

    Returns
    -------
    list of (start, stop, own_start, own_stop)
        In words. The owned ranges cover the text without gap or overlap. The last window starts as early as possible,
        so that it has as much context as the others.
    """
    n_words = len(counts)
    ends = np.concatenate([[0], np.cumsum(np.maximum(counts, 1))])
    if ends[-1] <= window:
        return [(0, n_words, 0, n_words)]
    bounds: list[tuple[int, int]] = []
    start = 0
    while True:
        stop = int(np.searchsorted(ends, ends[start] + window, side="right")) - 1
        if stop >= n_words:
            if bounds:
                start = int(np.searchsorted(ends, ends[n_words] - window, side="left"))
            bounds.append((start, n_words))
            break
        bounds.append((start, stop))
        after = int(np.searchsorted(ends, ends[start] + stride, side="right")) - 1
        at_least = start + max(1, (stop - start) // 2) if min_overlap else start + 1
        start = max(min(after, stop - min_overlap), at_least)
    return _with_owners(bounds, ends, min_overlap // 2)


def _with_owners(
    bounds: list[tuple[int, int]], ends: IntArray, reach: int
) -> list[tuple[int, int, int, int]]:
    rows = []
    own_start = 0
    for index, (start, stop) in enumerate(bounds):
        if index + 1 == len(bounds):
            own_stop = stop
        else:
            next_start = bounds[index + 1][0]
            middle = int(np.searchsorted(ends, (ends[next_start] + ends[stop]) / 2, side="left"))
            own_stop = max(min(middle, stop - reach), next_start, own_start)
        rows.append((start, stop, own_start, own_stop))
        own_start = own_stop
    return rows
