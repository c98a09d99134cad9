"""Targets and losses of span representations that propose spans by their boundaries."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.losses.base import Loss
from gliner_pipe.modeling.span_reps.base import own_starts
from gliner_pipe.modeling.span_reps.boundary_states import MASKED, Boundaries, Marginals

#: Options of the training, with their defaults: those of GLiNER2.5.
LOSS_OPTIONS = {
    "hard_negatives_per_positive": 5.0,
    "minimum_hard_negatives": 8.0,
    "proposal_loss_weight": 0.3,
    "rerank_listwise_weight": 0.3,
    "consistency_loss_weight": 0.1,
    "abstention_loss_weight": 0.2,
    "count_loss_weight": 0.2,
}
#: Weight of the loss of the words inside spans.
_INSIDE = 0.5


class Proposed(NamedTuple):
    """Spans that were proposed or forced, with all scores that are taught.

    Attributes
    ----------
    marginals
        Scores of boundaries and words.
    spans
        First and last boundary, ``(rows, queries, spans, 2)``; zeros for padding.
    valid
        False for padding, ``(rows, queries, spans)``.
    logits, totals
        Score of each span, and the one by which it is proposed, ``(rows, queries, spans)``.
    """

    marginals: Marginals
    spans: Tensor
    valid: Tensor
    logits: Tensor
    totals: Tensor


class Known(NamedTuple):
    """What the annotation of each query covers.

    Attributes
    ----------
    starts, ends
        Boundaries of which it is known whether a span starts or ends there, ``(rows, queries, boundaries)``.
    lasts
        Boundaries at which the last word of a span may end, ``(rows, queries, boundaries)``. A span that is known to
        start may end beyond the words that its window owns.
    words
        Words of which it is known whether they are inside a span, ``(rows, queries, words)``.
    queries
        False for padding, ``(rows, queries)``.
    whole
        Whether all words of the row are covered, ``(rows, queries)``.
    """

    starts: Tensor
    ends: Tensor
    lasts: Tensor
    words: Tensor
    queries: Tensor
    whole: Tensor

    @classmethod
    def of_labels(
        cls, read: Boundaries, windows: WindowBatch, label_mask: Tensor, outside: Tensor | None
    ) -> Known:
        """Return what is known for entity labels: the words that a window owns, without those nobody annotated.

        Words that are not in the text (`outside`) are known to be in no entity.
        """
        words = windows.annotated if outside is None else windows.annotated | (outside & read.word_mask)
        here = own_starts(windows) if outside is None else own_starts(windows) | (outside & read.word_mask)
        last = read.lengths[:, None]
        place = torch.arange(read.mask.shape[1], device=last.device)
        whole = (here | ~windows.scorable | ~read.word_mask).all(1)
        return cls._of(
            F.pad(here, (0, 1)) | (place == last),
            F.pad(here, (1, 0)) | (place == 0),
            F.pad(words, (1, 0)),
            here,
            label_mask,
            whole,
        )

    @classmethod
    def of_fields(cls, read: Boundaries, field_mask: Tensor, unnamed: Tensor | None) -> Known:
        """Return what is known for the fields of tasks: all words of a row, or for `unnamed` ones the gold alone."""
        whole = torch.ones_like(field_mask[:, 0])
        found = cls._of(read.mask, read.mask, read.mask, read.word_mask, field_mask, whole)
        if unnamed is None:
            return found
        named = torch.ones_like(field_mask)
        named[unnamed.unbind(1)] = False
        starts, ends, lasts, words, queries, whole = found
        each = named[..., None]
        return cls(starts & each, ends & each, lasts & each, words & each, queries, whole & named)

    @classmethod
    def _of(
        cls, starts: Tensor, ends: Tensor, lasts: Tensor, words: Tensor, queries: Tensor, whole: Tensor
    ) -> Known:
        each = queries[..., None]
        return cls(
            starts[:, None] & each,
            ends[:, None] & each,
            lasts[:, None] & each,
            words[:, None] & each,
            queries,
            whole[:, None] & queries,
        )

    def joined(self, other: Known) -> Known:
        """Return both, one after the other."""
        return Known(*(torch.cat(pair, 1) for pair in zip(self, other, strict=True)))


def padded(spans: Tensor, rows: int, n_queries: int) -> tuple[Tensor, Tensor]:
    """Collect spans by row and query, each once.

    Parameters
    ----------
    spans
        Row, first word, width - 1 and query of each, ``(spans, 4)``.
    rows, n_queries
        Size of the result.

    Returns
    -------
    (Tensor, Tensor)
        First and last boundary, ``(rows, queries, spans, 2)``, and which are not padding, ``(rows, queries, spans)``.
    """
    row, first, width, query = torch.unique(spans, dim=0).unbind(1)
    key, order = (row * n_queries + query).sort(stable=True)
    rank = torch.arange(len(key), device=key.device) - torch.searchsorted(key, key)
    most = int(rank.max()) + 1 if len(key) else 0
    places = key.new_zeros(rows * n_queries, most, 2)
    places[key, rank] = torch.stack([first, first + width + 1], 1)[order]
    mask = torch.zeros(rows * n_queries, most, dtype=torch.bool, device=key.device)
    mask[key, rank] = True
    return places.view(rows, n_queries, most, 2), mask.view(rows, n_queries, most)


def losses(
    some: Proposed,
    gold: Tensor,
    gold_mask: Tensor,
    known: Known,
    loss: Loss,
    shared: bool,
    options: dict[str, float],
) -> dict[str, Tensor]:
    """Return the losses of boundaries and spans, as sums over the queries.

    Parameters
    ----------
    some
        The spans and scores.
    gold, gold_mask
        Gold spans of each query; see ``padded``.
    known
        What the annotation covers.
    loss
        Loss of each score.
    shared
        Whether all queries have the same spans.
    options
        Values of ``LOSS_OPTIONS``.

    Notes
    -----
    Source: the training of GLiNER2.5 with ``loss_reduction = "per_query"``: the loss of a query is the mean over its
    boundaries or spans. There, it is the mean over the queries of a batch; here it is their sum, so that a batch may be
    split. Its auxiliary target of overlap, which ends with the training, is left out.
    """
    marginals = some.marginals
    n = marginals.starts.shape[2]
    starts, ends = (_marked(gold[..., side], gold_mask, n) for side in (0, 1))
    word = torch.arange(n - 1, device=gold.device)
    inside = (word >= gold[..., 0, None]) & (word < gold[..., 1, None]) & gold_mask[..., None]
    inside = inside.any(2)
    in_spans = marginals.inside.diff(dim=2) + marginals.inside_mean
    of_boundaries = _by_place(loss, marginals.starts, starts, known.starts | starts)
    of_boundaries = of_boundaries + _by_place(loss, marginals.ends, ends, known.ends | ends)
    of_boundaries = of_boundaries + _INSIDE * _by_place(loss, in_spans, inside, known.words | inside)

    first, last = some.spans.unbind(-1)
    valid = some.valid & known.starts.gather(2, first) & known.lasts.gather(2, last)
    positive = ((first * n + last)[..., None] == (gold[..., 0] * n + gold[..., 1])[:, :, None]) & gold_mask[
        :, :, None
    ]
    right = positive.any(-1) & some.valid
    valid = valid | right
    counted = right | hard_negatives(some.logits, right, valid, options)
    taught = _by_place if shared else separate
    of_spans = taught(loss, some.logits, right, counted)
    of_boundaries = of_boundaries + options["proposal_loss_weight"] * listwise(some.totals, right, valid)
    of_spans = of_spans + options["rerank_listwise_weight"] * listwise(some.logits, right, valid)
    of_spans = of_spans + options["consistency_loss_weight"] * _inconsistency(some, valid, known)
    return {"boundary": of_boundaries, "span": of_spans}


def absence_loss(logits: Tensor, gold_mask: Tensor, known: Known) -> Tensor:
    """Return the summed loss of ``there is no span of this query``, ``(rows, queries)``."""
    found = gold_mask.any(-1)
    each = F.binary_cross_entropy_with_logits(logits.float(), (~found).float(), reduction="none")
    return (each * (known.queries & (known.whole | found))).sum()


def count_loss(logits: Tensor, gold_mask: Tensor, known: Known) -> Tensor:
    """Return the summed loss of logarithms of the rate of spans, ``(rows, queries)``, as of a Poisson process."""
    counts = gold_mask.sum(-1).float()
    each = F.poisson_nll_loss(logits.float(), counts, log_input=True, full=False, reduction="none")
    return (each * known.whole).sum()


def hard_negatives(logits: Tensor, right: Tensor, valid: Tensor, options: dict[str, float]) -> Tensor:
    """Return the wrong spans of each query with the best scores, ``(rows, queries, spans)``.

    There are ``hard_negatives_per_positive`` of them for each right span, and at least ``minimum_hard_negatives``.
    """
    wrong = valid & ~right
    ranked = logits.detach().masked_fill(~wrong, -torch.inf).argsort(dim=-1, descending=True, stable=True)
    wanted = options["hard_negatives_per_positive"] * right.sum(-1, keepdim=True)
    return wrong & (ranked.argsort(-1) < wanted.clamp(min=options["minimum_hard_negatives"]))


def listwise(logits: Tensor, right: Tensor, valid: Tensor) -> Tensor:
    """Return the summed cross-entropy of the right ones among all: for each query that has any.

    Parameters
    ----------
    logits
        ``(..., spans)``.
    right, valid
        Which are right, and which are not padding.
    """
    some = right.any(-1)
    logits, right, valid = logits[some].float(), right[some], valid[some]
    every = logits.masked_fill(~valid, MASKED).logsumexp(-1)
    return (every - logits.masked_fill(~right, MASKED).logsumexp(-1)).sum()


def _inconsistency(some: Proposed, valid: Tensor, known: Known) -> Tensor:
    """Return the consistency loss of boundaries and spans: half the mean squared difference of each query.

    The score of a start is compared with the probability that at least one of the spans that start there is right; so
    is that of an end.
    """
    none = torch.log1p(-some.logits.float().sigmoid().masked_fill(~valid, 0.0).clamp(max=1 - 1e-6))
    total = none.new_zeros(())
    sides = (some.marginals.starts, known.starts), (some.marginals.ends, known.ends)
    for side, (marginal, keep) in enumerate(sides):
        place = some.spans[..., side]
        zeros = torch.zeros_like(marginal, dtype=torch.float32)
        keep = keep & (zeros.scatter_add(2, place, valid.float()) > 0)
        apart = 1 - zeros.scatter_add(2, place, none).exp() - marginal.float().sigmoid()
        total = total + (apart.square() * keep * per_query(keep)).sum()
    return 0.5 * total


def _marked(places: Tensor, mask: Tensor, n: int) -> Tensor:
    """Return which of `n` boundaries are among places, ``(rows, queries, places)``: ``(rows, queries, n)``."""
    counts = torch.zeros(*places.shape[:2], n, device=places.device)
    return counts.scatter_add(2, places, mask.float()) > 0


def per_query(mask: Tensor) -> Tensor:
    """Return one over the number of elements of each query that count, ``(..., 1)`` for ``(..., elements)``."""
    return mask.sum(-1, keepdim=True).clamp(min=1).reciprocal()


def separate(loss: Loss, logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the loss of scores, ``(..., elements)``, of queries that do not share their spans."""
    found: Tensor = loss(
        *(part.reshape(-1, part.shape[-1], 1, 1) for part in (logits, targets, mask)),
        weights=per_query(mask).reshape(-1, 1, 1, 1),
    )
    return found


def _by_place(loss: Loss, logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the loss of scores, ``(rows, queries, places)``, of queries that share their places."""
    found: Tensor = loss(
        *(part.transpose(1, 2)[:, :, None] for part in (logits, targets, mask)),
        weights=per_query(mask).transpose(1, 2)[:, :, None],
    )
    return found
