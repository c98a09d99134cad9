"""Relation extraction from entity vectors: adjacency of entity pairs, then classification of their relation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gliner_pipe.modeling.batch import RelationTargets, SpanVectors
from gliner_pipe.modeling.layers.cache import evaluating
from gliner_pipe.modeling.span_reps.base import Representations

#: Maximum number of pairs classified at once.
PAIRS_AT_ONCE = 1 << 14


class RelationPrediction(NamedTuple):
    """A relation between two spans, each given as first and last word; the label is an index, the score in [0, 1]."""

    head: tuple[int, int]
    tail: tuple[int, int]
    label: int
    score: float


def relation_losses(
    model: Any, vectors: Representations, word_mask: Tensor, relation_mask: Tensor, gold: RelationTargets
) -> dict[str, Tensor]:
    """Return the losses ``adjacency`` (is a pair related?) and ``relation`` (by which relations?), as unweighted sums.

    There is no adjacency loss if the relation layer proposes all pairs.

    Parameters
    ----------
    model
        With a relation layer.
    vectors
        Words and labels.
    word_mask, relation_mask
        False for padding, ``(rows, words)`` and ``(rows, relation labels)``.
    gold
        Gold relations and the pairs to classify.
    """
    entities = model.span_rep.represent(vectors.span_words, gold.spans, word_mask)
    losses: dict[str, Tensor] = {}
    if not model.relation_layer.proposes_all:
        losses["adjacency"] = _adjacency_loss(model, entities, gold)
    losses["relation"] = _classification_loss(model, entities, vectors.relations, relation_mask, gold)
    return losses


def _adjacency_loss(model: Any, entities: Tensor, gold: RelationTargets) -> Tensor:
    """Loss over all ordered pairs of two different entities, ``(rows, entities, entities)``."""
    adjacency = model.relation_layer(entities, gold.span_mask)
    targets = torch.zeros_like(adjacency)
    row, head, tail, _ = gold.triples.unbind(1)
    targets[row, head, tail] = 1.0
    mask = gold.span_mask[:, :, None] & gold.span_mask[:, None, :]
    mask = mask & ~torch.eye(mask.shape[1], dtype=torch.bool, device=mask.device)
    logits = torch.logit(adjacency.float(), eps=1e-6)
    loss: Tensor = model.relation_loss(logits[..., None], targets[..., None], mask[..., None])
    return loss


def _classification_loss(
    model: Any, entities: Tensor, relations: Tensor, relation_mask: Tensor, gold: RelationTargets
) -> Tensor:
    """Loss over the gold and sampled pairs and all relation labels, ``(pairs, relation labels)``."""
    row, head, tail = gold.pairs.unbind(1)
    index = torch.arange(len(row), device=row.device)
    logits = entities.new_zeros(len(row), relations.shape[1])
    for one in row.unique().tolist():
        here = index[row == one]
        heads, tails = entities[one, head[here]][None], entities[one, tail[here]][None]
        logits = logits.index_copy(0, here, model.triple(heads, relations[one][None], tails)[0])
    labelled = gold.triples[gold.triples[:, 3] >= 0]
    which, pair = (labelled[:, None, :3] == gold.pairs).all(2).nonzero().unbind(1)
    targets = torch.zeros_like(logits)
    targets[pair, labelled[which, 3]] = 1.0
    mask = relation_mask[row]
    loss: Tensor = model.relation_loss(logits[:, None, None], targets[:, None, None], mask[:, None, None])
    return loss


def find_relations(
    model: Any,
    windows: Sequence[SpanVectors],
    limits: Sequence[float],
    adjacency_threshold: float,
    reach: int = 1,
) -> list[RelationPrediction]:
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
        Minimum adjacency score, in [0, 1], before a pair's relation is classified.
    reach
        Maximum distance, in windows, between the two entities of a relation.

    Returns
    -------
    list of RelationPrediction
        Ordered by position of the window, head, tail and label. Each pair of spans is classified once, in the first
        group of ``reach + 1`` windows that holds both.
    """
    predictions = []
    with evaluating(model), torch.inference_mode():
        for group, n_new in _groups(windows, reach):
            spans = torch.cat([window.spans for window in group])
            vectors = torch.cat([window.vectors for window in group])
            relations = torch.stack([window.relations for window in group]).mean(0)
            if len(spans) < 2 or not len(relations):
                continue
            mask = torch.ones(1, len(spans), dtype=torch.bool).to(spans.device)
            adjacency = model.relation_layer(vectors[None], mask)[0]
            proposed = adjacency > (0 if model.relation_layer.proposes_all else adjacency_threshold)
            proposed.fill_diagonal_(False)
            proposed[n_new:, n_new:] = False
            thresholds = torch.tensor(list(limits), device=spans.device)
            for some in proposed.nonzero().split(PAIRS_AT_ONCE):
                head, tail = some.unbind(1)
                scores = model.triple(vectors[head][None], relations[None], vectors[tail][None])[0].sigmoid()
                pair, label = (scores > thresholds).nonzero().unbind(1)
                columns = spans[head[pair]], spans[tail[pair]], label, scores[pair, label]
                for h, t, name, score in zip(*(column.tolist() for column in columns), strict=True):
                    predictions.append(RelationPrediction((h[0], h[1]), (t[0], t[1]), name, score))
    return predictions


def _groups(windows: Sequence[SpanVectors], reach: int) -> Iterator[tuple[Sequence[SpanVectors], int]]:
    """Yield groups of neighbouring windows, and how many of their spans form pairs that no earlier group had."""
    last = max(len(windows) - reach - 1, 0)
    for at in range(last + 1 if windows else 0):
        group = windows[at : at + reach + 1]
        yield group, sum(len(window.spans) for window in group) if at == last else len(group[0].spans)
