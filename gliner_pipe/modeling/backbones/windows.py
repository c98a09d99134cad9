"""How a text is cut into windows, and which window owns each word."""

from __future__ import annotations

import numpy as np

from gliner_pipe.modeling.backbones.base import IntArray


def default_stride(window: int) -> int:
    """Return the subword tokens from the start of a window to the start of the next if no stride is set.

    Parameters
    ----------
    window
        Largest number of subword tokens in a window.
    """
    return max(1, 2 * window // 3)


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
