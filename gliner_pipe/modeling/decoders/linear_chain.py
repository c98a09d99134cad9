"""Linear chains of tags: sums and maxima over all paths, in log space.

Everything here is laid out with the words first, ``(words, rows, chains, tags)``; what a path costs at its start and
end is added to the emissions beforehand. The only loop is over words. Scores are shifted at each word, so that numbers
stay small, and as exact, in texts of any length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Scores(NamedTuple):
    """What a path is scored by.

    Attributes
    ----------
    emissions
        With the scores of the start at the first word and those of the end at the last, ``(words, rows, chains,
        tags)``.
    transitions
        From tag to tag, ``(chains, tags, tags)``.
    mask
        True for words, ``(words, rows)``; padding stands at the end.
    """

    emissions: Tensor
    transitions: Tensor
    mask: Tensor

    @classmethod
    def make(cls, emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor, mask: Tensor) -> Scores:
        """Lay out emissions of ``(rows, words, chains, tags)`` and a mask of ``(rows, words)``."""
        mask = mask.T
        last = mask & ~torch.cat([mask[1:], torch.zeros_like(mask[:1])])
        first = torch.zeros_like(mask)
        first[:1] = mask[:1]
        first, last, there = (each[:, :, None, None] for each in (first, last, mask))
        emissions = emissions.transpose(0, 1) + torch.where(first, start, 0.0) + torch.where(last, end, 0.0)
        emissions = torch.where(there, emissions, 0.0)
        return cls(emissions, transitions, mask)

    def whole(self) -> list[bool]:
        """Whether a word is there in all rows."""
        return self.mask.all(1).tolist()


class _Mix(torch.autograd.Function):
    """:func:`_mix` that keeps no table of tags by tags for the way back."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, ways: Tensor) -> Tensor:
        mixed = _mix(scores, ways)
        ctx.save_for_backward(scores, ways, mixed)
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        scores, ways, mixed = ctx.saved_tensors
        share = (scores[..., None, :] + ways).sub_(mixed[..., None]).exp_().mul_(grad[..., None])
        return share.sum(-2), share.sum(0) if ctx.needs_input_grad[1] else None


def _mix(scores: Tensor, ways: Tensor) -> Tensor:
    """Sum over the tags that one comes from: ``log sum_i exp(ways_ji + scores_i)``, of which one is finite."""
    table = scores[..., None, :] + ways
    highest = table.amax(-1, keepdim=True)
    return table.sub_(highest).exp_().sum(-1).log_().add_(highest.squeeze(-1))


def _shifted(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores with a maximum of 0, and what was taken off, which the gradient need not know of."""
    shift = scores.detach().amax(-1, keepdim=True)
    return scores - shift, shift


def prefixes(scores: Scores) -> tuple[list[Tensor], Tensor]:
    """Sum over all paths up to each word: scores by last tag, and what each was shifted by ``(words, rows, chains)``.

    At padding, the scores of the last word stand, shifted by 0.
    """
    mix = _Mix.apply if torch.is_grad_enabled() else _mix
    whole = scores.whole()
    ways = scores.transitions.transpose(-1, -2).contiguous()
    current, shift = _shifted(scores.emissions[0])
    found, shifts = [current], [shift]
    for at, emission in enumerate(scores.emissions.unbind(0)[1:], 1):
        following = mix(current, ways) + emission
        if not whole[at]:
            following = torch.where(scores.mask[at, :, None, None], following, current)
        current, shift = _shifted(following)
        found.append(current)
        shifts.append(shift)
    return found, torch.stack(shifts).squeeze(-1)


def suffixes(scores: Scores) -> tuple[list[Tensor], Tensor]:
    """Sum over all paths behind each word: scores by the tag of that word, and what each was shifted by."""
    mix = _Mix.apply if torch.is_grad_enabled() else _mix
    whole = scores.whole()
    current = torch.zeros_like(scores.emissions[-1])
    found, shifts = [current], [current[..., :1]]
    emissions = scores.emissions.unbind(0)
    for at in range(len(emissions) - 1, 0, -1):
        before = mix(emissions[at] + current, scores.transitions)
        if not whole[at]:
            before = torch.where(scores.mask[at, :, None, None], before, current)
        current, shift = _shifted(before)
        found.append(current)
        shifts.append(shift)
    return found[::-1], torch.stack(shifts[::-1]).squeeze(-1)


def log_marginals(scores: Scores) -> Tensor:
    """Log probability of each tag of each word, over all paths: ``(words, rows, chains, tags)``."""
    before, behind = prefixes(scores)[0], suffixes(scores)[0]
    return (torch.stack(before) + torch.stack(behind)).log_softmax(-1)


def log_likelihood(scores: Scores, gold: Tensor) -> Tensor:
    """Log probability of the gold tags, summed over all paths that they allow: ``(rows, chains)``.

    Parameters
    ----------
    scores
        Of paths.
    gold
        Tags ``(words, rows, chains)``, below 0 where any may stand.
    """
    inside = scores.mask[:, :, None]
    if (gold[scores.mask] >= 0).all():
        found, shifts = prefixes(scores)
        steps = path_scores(scores, gold.clamp(min=0))
        rest = torch.where(inside[0], found[-1].logsumexp(-1), 0.0)
        return torch.where(inside, steps - shifts, 0.0).sum(0) - rest
    n_rows = gold.shape[1]
    tags = torch.arange(scores.emissions.shape[-1], device=gold.device)
    barred = inside[..., None] & (gold[..., None] >= 0) & (gold[..., None] != tags)
    both = torch.cat([scores.emissions.masked_fill(barred, -torch.inf), scores.emissions], 1)
    found, shifts = prefixes(Scores(both, scores.transitions, scores.mask.repeat(1, 2)))
    total = found[-1].logsumexp(-1)
    # word by word: the difference of two sums over a long text would be all rounding
    return (shifts[:, :n_rows] - shifts[:, n_rows:]).sum(0) + total[:n_rows] - total[n_rows:]


def path_scores(scores: Scores, tags: Tensor) -> Tensor:
    """Score of each word of a path: its emission and, but for the first, the way to it: ``(words, rows, chains)``."""
    steps = scores.emissions.gather(-1, tags[..., None]).squeeze(-1)
    chains = torch.arange(tags.shape[-1], device=tags.device)
    ways = scores.transitions[chains, tags[:-1], tags[1:]]
    return steps + torch.cat([torch.zeros_like(steps[:1]), ways])


@torch.no_grad()
def best_path(scores: Scores) -> Tensor:
    """Find the path of the highest score: tags ``(words, rows, chains)``, 0 at padding."""
    whole = scores.whole()
    n_tags = scores.emissions.shape[-1]
    kind = torch.uint8 if n_tags <= 256 else torch.int32
    ways = scores.transitions.transpose(-1, -2).contiguous()
    current = _shifted(scores.emissions[0])[0]
    here = torch.arange(n_tags, device=current.device)
    origins = []
    for at in range(1, len(scores.emissions)):
        following, origin = (current[..., None, :] + ways).max(-1)
        following = following + scores.emissions[at]
        if not whole[at]:
            there = scores.mask[at, :, None, None]
            following, origin = torch.where(there, following, current), torch.where(there, origin, here)
        current = _shifted(following)[0]
        origins.append(origin.to(kind))
    path = [current.argmax(-1, keepdim=True)]
    for origin in reversed(origins):
        path.append(origin.gather(-1, path[-1]).long())
    return torch.where(scores.mask[:, :, None], torch.stack(path[::-1]).squeeze(-1), 0)
