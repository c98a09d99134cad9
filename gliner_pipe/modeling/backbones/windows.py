"""Sliding windows over texts of any length, cut between words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pieces:
    """The sub-word pieces of one text.

    Attributes
    ----------
    ids
        Piece ids, ``(pieces,)``.
    counts
        Pieces of each word, ``(words,)``; 0 for a word that the tokenizer knows nothing of (a zero-width space).
    """

    ids: IntArray
    counts: IntArray

    @property
    def n_words(self) -> int:
        """Number of words, those without pieces included."""
        return len(self.counts)


@dataclass(frozen=True, slots=True)
class Prompt:
    """Pieces that stand before the text in every window.

    Attributes
    ----------
    ids
        Piece ids, ``(pieces,)``.
    positions
        Which of them stand for a label, ``(labels,)``: their vectors are handed back.
    """

    ids: IntArray
    positions: IntArray

    @property
    def n_labels(self) -> int:
        """Number of labels that are asked for."""
        return len(self.positions)


@dataclass(frozen=True, slots=True)
class Window:
    """One window of one text: a row of a batch.

    Attributes
    ----------
    text
        Index of the text among those prepared together.
    start, stop
        The words in the window, ``[start, stop)``.
    own_start, own_stop
        The words that this window owns: a span is scored in the window that owns its first word.
    ids
        Piece ids of these words, ``(pieces,)``.
    counts
        Pieces of each of these words, ``(stop - start,)``.
    prompt
        What stands before them.
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
        """Pieces of prompt and text, special pieces not counted."""
        return len(self.ids) + len(self.prompt.ids)


def layout(counts: IntArray, window: int, stride: int, min_overlap: int) -> list[tuple[int, int, int, int]]:
    """Cut a text into windows and give each word to the window in which it is most central.

    Parameters
    ----------
    counts
        Pieces of each word, ``(words,)``, none above `window`. A word without pieces takes the room of one.
    window
        Pieces in a window at most.
    stride
        Pieces from the start of a window to the start of the next.
    min_overlap
        Words that neighbours share at least, so that a span which begins in a window's own words ends inside it:
        twice the largest span width. Not kept where so many words do not fit into a window.

    Returns
    -------
    list of (start, stop, own_start, own_stop)
        In words. The own ranges cover the text without gap or overlap; the last window reaches back as far as it
        may, so that no window is short of context.
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
