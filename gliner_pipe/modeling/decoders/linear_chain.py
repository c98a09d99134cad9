"""Linear-chain dynamic programming over tags: sums and maxima over all paths, in log space.

Tensors have the words first, ``(words, rows, chains, tags)``; scores of the start and end of a path are added to the
emissions beforehand. The only loop is over words. Scores are shifted at each word, so that they stay small, and as
precise, in texts of any length.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Scores(NamedTuple):
    """Emission and transition scores of paths.

    Attributes
    ----------
    emissions
        Including start scores at the first word and end scores at the last, ``(words, rows, chains, tags)``.
    transitions
        From tag to tag, ``(chains, tags, tags)``.
    mask
        True for words, ``(words, rows)``; padding is at the end.
    """

    emissions: Tensor
    transitions: Tensor
    mask: Tensor

    @classmethod
    def make(cls, emissions: Tensor, transitions: Tensor, start: Tensor, end: Tensor, mask: Tensor) -> Scores:
        """Build from emissions of ``(rows, words, chains, tags)`` and a mask of ``(rows, words)``."""
        mask = mask.T
        last = mask & ~torch.cat([mask[1:], torch.zeros_like(mask[:1])])
        first = torch.zeros_like(mask)
        first[:1] = mask[:1]
        first, last, valid = (each[:, :, None, None] for each in (first, last, mask))
        emissions = emissions.transpose(0, 1) + torch.where(first, start, 0.0) + torch.where(last, end, 0.0)
        emissions = torch.where(valid, emissions, 0.0)
        return cls(emissions, transitions, mask)

    def whole(self) -> list[bool]:
        """For each word position, whether no row has padding there."""
        return self.mask.all(1).tolist()


class _Step(torch.autograd.Function):
    """:func:`_step` that keeps no table of tags by tags for the backward pass."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, transitions: Tensor) -> Tensor:
        summed = _step(scores, transitions)
        ctx.save_for_backward(scores, transitions, summed)
        return summed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        scores, transitions, summed = ctx.saved_tensors
        share = (scores[..., None, :] + transitions).sub_(summed[..., None]).exp_().mul_(grad[..., None])
        return share.sum(-2), share.sum(0) if ctx.needs_input_grad[1] else None


def _step(scores: Tensor, transitions: Tensor) -> Tensor:
    """Sum over the previous tags: ``log sum_i exp(transitions_ji + scores_i)``, at least one of which is finite."""
    table = scores[..., None, :] + transitions
    highest = table.amax(-1, keepdim=True)
    return table.sub_(highest).exp_().sum(-1).log_().add_(highest.squeeze(-1))


def _shifted(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Subtract the maximum; the shift needs no gradient."""
    shift = scores.detach().amax(-1, keepdim=True)
    return scores - shift, shift


def prefixes(scores: Scores) -> tuple[list[Tensor], Tensor]:
    """Sum over all paths up to each word: scores by last tag, and the shift of each, ``(words, rows, chains)``.

    At padding, the scores of the last word are repeated, shifted by 0.
    """
    step = _Step.apply if torch.is_grad_enabled() else _step
    whole = scores.whole()
    transitions = scores.transitions.transpose(-1, -2).contiguous()
    current, shift = _shifted(scores.emissions[0])
    found, shifts = [current], [shift]
    for at, emission in enumerate(scores.emissions.unbind(0)[1:], 1):
        following = step(current, transitions) + emission
        if not whole[at]:
            following = torch.where(scores.mask[at, :, None, None], following, current)
        current, shift = _shifted(following)
        found.append(current)
        shifts.append(shift)
    return found, torch.stack(shifts).squeeze(-1)


def suffixes(scores: Scores) -> tuple[list[Tensor], Tensor]:
    """Sum over all paths after each word: scores by the tag of that word, and the shift of each."""
    step = _Step.apply if torch.is_grad_enabled() else _step
    whole = scores.whole()
    current = torch.zeros_like(scores.emissions[-1])
    found, shifts = [current], [current[..., :1]]
    emissions = scores.emissions.unbind(0)
    for at in range(len(emissions) - 1, 0, -1):
        before = step(emissions[at] + current, scores.transitions)
        if not whole[at]:
            before = torch.where(scores.mask[at, :, None, None], before, current)
        current, shift = _shifted(before)
        found.append(current)
        shifts.append(shift)
    return found[::-1], torch.stack(shifts[::-1]).squeeze(-1)


def log_marginals(scores: Scores) -> Tensor:
    """Log probability of each tag of each word, over all paths: ``(words, rows, chains, tags)``."""
    before, after = prefixes(scores)[0], suffixes(scores)[0]
    return (torch.stack(before) + torch.stack(after)).log_softmax(-1)


def log_likelihood(scores: Scores, gold: Tensor) -> Tensor:
    """Log probability of the gold tags, summed over all paths that agree with them: ``(rows, chains)``.

    Parameters
    ----------
    scores
        Scores of paths.
    gold
        Tags ``(words, rows, chains)``; below 0 if unknown.
    """
    inside = scores.mask[:, :, None]
    if (gold[scores.mask] >= 0).all():
        found, shifts = prefixes(scores)
        steps = path_scores(scores, gold.clamp(min=0))
        rest = torch.where(inside[0], found[-1].logsumexp(-1), 0.0)
        return torch.where(inside, steps - shifts, 0.0).sum(0) - rest
    n_rows = gold.shape[1]
    tags = torch.arange(scores.emissions.shape[-1], device=gold.device)
    excluded = inside[..., None] & (gold[..., None] >= 0) & (gold[..., None] != tags)
    both = torch.cat([scores.emissions.masked_fill(excluded, -torch.inf), scores.emissions], 1)
    found, shifts = prefixes(Scores(both, scores.transitions, scores.mask.repeat(1, 2)))
    total = found[-1].logsumexp(-1)
    # subtract word by word: the difference of two sums over a long text would be all rounding error
    return (shifts[:, :n_rows] - shifts[:, n_rows:]).sum(0) + total[:n_rows] - total[n_rows:]


def path_scores(scores: Scores, tags: Tensor) -> Tensor:
    """Score of each word of a path: its emission plus the transition to it, ``(words, rows, chains)``."""
    steps = scores.emissions.gather(-1, tags[..., None]).squeeze(-1)
    chains = torch.arange(tags.shape[-1], device=tags.device)
    transitions = scores.transitions[chains, tags[:-1], tags[1:]]
    return steps + torch.cat([torch.zeros_like(steps[:1]), transitions])


@torch.no_grad()
def best_path(scores: Scores) -> Tensor:
    """Find the path with the highest score (Viterbi): tags ``(words, rows, chains)``, 0 at padding."""
    whole = scores.whole()
    n_tags = scores.emissions.shape[-1]
    dtype = torch.uint8 if n_tags <= 256 else torch.int32
    transitions = scores.transitions.transpose(-1, -2).contiguous()
    current = _shifted(scores.emissions[0])[0]
    same = torch.arange(n_tags, device=current.device)
    origins = []
    for at in range(1, len(scores.emissions)):
        following, origin = (current[..., None, :] + transitions).max(-1)
        following = following + scores.emissions[at]
        if not whole[at]:
            valid = scores.mask[at, :, None, None]
            following, origin = torch.where(valid, following, current), torch.where(valid, origin, same)
        current = _shifted(following)[0]
        origins.append(origin.to(dtype))
    path = [current.argmax(-1, keepdim=True)]
    for origin in reversed(origins):
        path.append(origin.gather(-1, path[-1]).long())
    return torch.where(scores.mask[:, :, None], torch.stack(path[::-1]).squeeze(-1), 0)
