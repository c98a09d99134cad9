"""From scores of starts, ends and insides to spans, on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from gliner_pipe.span_reps.base import Found


def pair_boundaries(
    probs: Tensor, may_start: Tensor, may_end: Tensor, word_mask: Tensor, limits: Tensor
) -> Found:
    """Join each start with each end of the same label that is reached through words inside.

    Parameters
    ----------
    probs
        Of start, end and inside, ``(rows, words, labels, 3)``.
    may_start, may_end, word_mask
        Words at which a span may start and end, and words at all, ``(rows, words)``.
    limits
        A start and an end must be above it, all words from one to the other not below it, ``(rows, labels)``.

    Returns
    -------
    Found
        The score of a span is the least of the scores of its start, its end and its insides. Ordered by row, label,
        start and end.

    Notes
    -----
    In time that grows with what is found: words are laid out label by label, the ends within reach of a start are a
    stretch of the sorted ends, and the least inside of a span is had from tables over stretches of 1, 2, 4 ... words.
    """
    n_rows, n_words, n_labels, _ = probs.shape
    by_label = probs.permute(3, 0, 2, 1)  # (3, rows, labels, words)
    start, end, inside = (by_label[kind].reshape(-1) for kind in range(3))
    limit = limits[:, :, None].expand(n_rows, n_labels, n_words).reshape(-1)

    def laid_out(mask: Tensor) -> Tensor:
        return mask[:, None].expand(n_rows, n_labels, n_words).reshape(-1)

    starts = ((start > limit) & laid_out(may_start)).nonzero()[:, 0]
    ends = ((end > limit) & laid_out(may_end)).nonzero()[:, 0]
    reach = _reach((inside >= limit) & laid_out(word_mask), n_words)[starts]
    low = torch.searchsorted(ends, starts)
    n_ends = (torch.searchsorted(ends, reach) - low).clamp(min=0)
    first = starts.repeat_interleave(n_ends)
    within = torch.arange(len(first), device=probs.device) - (n_ends.cumsum(0) - n_ends).repeat_interleave(
        n_ends
    )
    last = ends[low.repeat_interleave(n_ends) + within]
    scores = torch.minimum(torch.minimum(start[first], end[last]), _least(inside, first, last))
    block = first // n_words
    return Found(block // n_labels, first % n_words, last % n_words, block % n_labels, scores)


def _reach(inside: Tensor, n_words: int) -> Tensor:
    """For each place the first place behind it, or at it, that is not inside or in the next block of words."""
    places = torch.arange(len(inside), device=inside.device)
    block_end = (places // max(n_words, 1) + 1) * n_words
    outside = torch.where(inside, len(inside), places)
    following = outside.flip(0).cummin(0).values.flip(0) if len(inside) else outside
    return torch.minimum(following, block_end)


def _least(values: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The least of ``values[first..last]`` for each pair."""
    result = values.new_full((len(first),), torch.inf)
    if not len(first):
        return result
    level = (last - first + 1).float().log2().floor().long()
    table = values
    for power in range(int(level.max()) + 1):
        if power:
            half = 1 << (power - 1)
            table = torch.minimum(table[:-half], table[half:])
        here = level == power
        at, to = first[here], last[here] - (1 << power) + 1
        result[here] = torch.minimum(table[at], table[to])
    return result
