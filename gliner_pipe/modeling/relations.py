"""From the vectors of entities to relations between them: pairs are proposed, then named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gliner_pipe.modeling.batch import RelationTargets, SpanVectors
from gliner_pipe.modeling.layers.eval_mode import evaluating
from gliner_pipe.modeling.span_reps.base import Readings

#: Pairs that are scored at once.
PAIRS_AT_ONCE = 1 << 14


class Tie(NamedTuple):
    """A relation between two spans, each given as first and last word; the label is an index, the score in [0, 1]."""

    head: tuple[int, int]
    tail: tuple[int, int]
    label: int
    score: float


def relation_losses(
    model: Any, read: Readings, word_mask: Tensor, relation_mask: Tensor, gold: RelationTargets
) -> dict[str, Tensor]:
    """Losses of a batch: ``adjacency``, whether two entities are tied, and ``relation``, how; sums, not weighted.

    Parameters
    ----------
    model
        With a relation layer.
    read
        Words and labels.
    word_mask, relation_mask
        False for padding, ``(rows, words)`` and ``(rows, relation labels)``.
    gold
        What is right.
    """
    assert model.relation_layer is not None and model.triple is not None
    vectors = model.span_rep.represent(read.span_words, gold.spans, word_mask)
    losses: dict[str, Tensor] = {}
    if not model.relation_layer.proposes_all:
        strength = model.relation_layer(vectors, gold.span_mask)
        targets = torch.zeros_like(strength)
        row, head, tail, _ = gold.ties.unbind(1)
        targets[row, head, tail] = 1.0
        mask = gold.span_mask[:, :, None] & gold.span_mask[:, None, :]
        mask = mask & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
        logits = torch.logit(strength.float(), eps=1e-6)
        losses["adjacency"] = model.relation_loss(logits[..., None], targets[..., None], mask[..., None])
    row, head, tail = gold.pairs.unbind(1)
    named = gold.ties[gold.ties[:, 3] >= 0]
    at = torch.arange(len(row), device=row.device)
    logits = vectors.new_zeros(len(row), read.relations.shape[1])
    for one in row.unique().tolist():
        here = at[row == one]
        ends = vectors[one, head[here]][None], vectors[one, tail[here]][None]
        logits = logits.index_copy(0, here, model.triple(ends[0], read.relations[one][None], ends[1])[0])
    targets = torch.zeros_like(logits)
    same = (named[:, None, :3] == gold.pairs).all(2)
    which, pair = same.nonzero().unbind(1)
    targets[pair, named[which, 3]] = 1.0
    mask = relation_mask[row]
    losses["relation"] = model.relation_loss(
        logits[:, None, None], targets[:, None, None], mask[:, None, None]
    )
    return losses


def find_relations(
    model: Any,
    windows: Sequence[SpanVectors],
    limits: Sequence[float],
    adjacency_threshold: float,
    reach: int = 1,
) -> list[Tie]:
    """Find the relations of one text.

    Parameters
    ----------
    model
        With a relation layer.
    windows
        Spans of the text with their vectors, window by window.
    limits
        Threshold of each relation label, in [0, 1].
    adjacency_threshold
        How strongly two spans must be tied before their relation is asked for, in [0, 1].
    reach
        How many windows further the second entity of a relation may stand.

    Returns
    -------
    list of Tie
        Ordered by place of the window, head, tail and label. Each pair of spans is looked at once, in the first
        group of ``reach + 1`` windows that holds both.
    """
    assert model.relation_layer is not None and model.triple is not None
    found = []
    with evaluating(model), torch.inference_mode():
        for group, new in _groups(windows, reach):
            spans = torch.cat([window.spans for window in group])
            vectors = torch.cat([window.vectors for window in group])
            relations = torch.stack([window.relations for window in group]).mean(0)
            if len(spans) < 2 or not len(relations):
                continue
            strength = model.relation_layer(
                vectors[None], torch.ones(1, len(spans), dtype=torch.bool).to(spans.device)
            )[0]
            proposed = (
                strength > adjacency_threshold if not model.relation_layer.proposes_all else strength > 0
            )
            proposed.fill_diagonal_(False)
            proposed[new:, new:] = False
            pairs = proposed.nonzero()
            bounds = torch.tensor(list(limits), device=spans.device)
            for some in pairs.split(PAIRS_AT_ONCE):
                head, tail = some.unbind(1)
                scores = model.triple(vectors[head][None], relations[None], vectors[tail][None])[0].sigmoid()
                pair, label = (scores > bounds).nonzero().unbind(1)
                columns = spans[head[pair]], spans[tail[pair]], label, scores[pair, label]
                for h, t, name, score in zip(*(column.tolist() for column in columns), strict=True):
                    found.append(Tie((h[0], h[1]), (t[0], t[1]), name, score))
    return found


def _groups(windows: Sequence[SpanVectors], reach: int) -> Iterator[tuple[Sequence[SpanVectors], int]]:
    """Yield neighbouring windows, and how many of their spans belong to pairs that no group before had."""
    last = max(len(windows) - reach - 1, 0)
    for at in range(last + 1 if windows else 0):
        group = windows[at : at + reach + 1]
        yield group, sum(len(window.spans) for window in group) if at == last else len(group[0].spans)
