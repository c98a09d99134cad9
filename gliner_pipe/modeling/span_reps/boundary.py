"""The span representation ``boundary``: spans of any width, proposed for each label by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.block import check_divides
from gliner_pipe.modeling.span_reps.base import SCORES_AT_ONCE, FoundSpans, Representations
from gliner_pipe.modeling.span_reps.boundary_base import (
    BoundarySpanRep,
    Candidates,
    extractive,
    n_distinct,
    query_mask_of,
    rank_in_group,
    with_forced,
)
from gliner_pipe.modeling.span_reps.boundary_scorers import Gated, PairScorer, Proposer
from gliner_pipe.modeling.span_reps.boundary_states import (
    MASKED,
    Boundaries,
    Marginals,
    SpanContent,
    at_boundaries,
)
from gliner_pipe.modeling.span_reps.boundary_training import Proposed
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Amount, AngleBase, Layers, Multiple, NonNegative, Positive, Share, Size


@registry.span_reps.register("boundary")
class Boundary(BoundarySpanRep):
    """Proposes spans for each label by itself: the best ends of the best starts, and the best starts of the best ends.

    Use it for entities of any length, and with many labels: their scores do not depend on each other.

    Parameters
    ----------
    start_top_k, end_top_k
        Number of starts and ends of a label that are tried.
    ends_per_start, starts_per_end
        Number of ends for each start, and of starts for each end.
    candidate_budget
        Most spans of a label and window.
    bidirectional_proposals
        Whether the best ends are tried, too.
    boundary_top_k_alpha, boundary_top_k_max, boundary_top_k_bucket
        `start_top_k` and `end_top_k` grow to this share of the words of a window, at most to the maximum, in steps of
        the bucket; 0 to keep them.
    query_conditioned_inside_weight
        Whether the weight of the words inside a span depends on the label.
    reranker_endpoint_compat, multihead_pair_compat_heads
        Whether the score of a span has a product of its ends, and in how many parts it is weighted.
    endpoint_difference_features
        Whether the score of a span has the difference of its ends.
    enable_rotary_endpoints, rotary_base
        Whether products of two ends depend on their distance, and the base of the angles.
    **options
        Those of :class:`BoundarySpanRep`.

    Notes
    -----
    Source: the boundary architecture of GLiNER2.5 with the candidate pool ``per_query``. There, budgets that grow with
    the text (`boundary_top_k_alpha`) depend on the longest text of the batch; here on the window alone.
    """

    def __init__(
        self,
        start_top_k: Size = 16,
        end_top_k: Size = 16,
        ends_per_start: Size = 8,
        starts_per_end: Size = 8,
        candidate_budget: Size = 128,
        bidirectional_proposals: bool = True,
        boundary_top_k_alpha: NonNegative = 0.0,
        boundary_top_k_max: Size = 128,
        boundary_top_k_bucket: Size = 8,
        query_conditioned_inside_weight: bool = False,
        reranker_endpoint_compat: bool = True,
        multihead_pair_compat_heads: Size = 8,
        endpoint_difference_features: bool = False,
        enable_rotary_endpoints: bool = False,
        rotary_base: AngleBase = 10000.0,
        boundary_dim: Size = 128,
        pair_dim: Size = 128,
        boundary_refinement_layers: Layers = 1,
        boundary_ffn_multiplier: Multiple = 2.0,
        boundary_attention_layers: Layers = 0,
        boundary_attention_heads: Size = 4,
        boundary_attention_window: Amount = 0,
        dropout: Share = 0.1,
        use_inside_evidence: bool = True,
        enable_span_content: bool = False,
        content_dim: Size = 64,
        content_soft_max_pool: bool = False,
        enable_abstention: bool = True,
        abstention_threshold: Share = 0.5,
        enable_count_head: bool = True,
        adaptive_threshold: bool = False,
        pair_temperature: Positive = 1.0,
        candidate_states: bool = False,
        loss_options: dict[str, float] | None = None,
    ) -> None:
        super().__init__(
            boundary_dim,
            pair_dim,
            boundary_refinement_layers,
            boundary_ffn_multiplier,
            boundary_attention_layers,
            boundary_attention_heads,
            boundary_attention_window,
            dropout,
            use_inside_evidence,
            enable_span_content,
            content_dim,
            content_soft_max_pool,
            enable_abstention,
            abstention_threshold,
            enable_count_head,
            adaptive_threshold,
            pair_temperature,
            candidate_states,
            loss_options,
        )
        self.start_top_k, self.end_top_k = start_top_k, end_top_k
        self.ends_per_start, self.starts_per_end = ends_per_start, starts_per_end
        self.candidate_budget = candidate_budget
        self.bidirectional_proposals = bidirectional_proposals
        self.boundary_top_k_alpha = boundary_top_k_alpha
        self.boundary_top_k_max, self.boundary_top_k_bucket = boundary_top_k_max, boundary_top_k_bucket
        self.query_conditioned_inside_weight = query_conditioned_inside_weight
        self.reranker_endpoint_compat = reranker_endpoint_compat
        self.multihead_pair_compat_heads = multihead_pair_compat_heads
        self.endpoint_difference_features = endpoint_difference_features
        self.rotary_base = rotary_base if enable_rotary_endpoints else None
        check_divides("span_rep.multihead_pair_compat_heads", multihead_pair_compat_heads, pair_dim)
        if enable_rotary_endpoints:
            check_divides("span_rep.boundary_dim", 2, boundary_dim)
            check_divides("span_rep.pair_dim", 2, pair_dim)

    def build(self, hidden_size: int) -> None:
        """Create the weights."""
        super().build(hidden_size)
        self.boundary_proposer = Proposer(hidden_size, self.boundary_dim, self.rotary_base)
        content = None
        if self.enable_span_content:
            content = SpanContent(hidden_size, self.content_dim, self.content_soft_max_pool, self.dropout)
        self.pair_scorer = PairScorer(
            hidden_size,
            self.boundary_dim,
            self.pair_dim,
            content,
            self.rotary_base,
            self.dropout,
            heads=self.multihead_pair_compat_heads,
            product=self.reranker_endpoint_compat,
            difference=self.endpoint_difference_features,
            inside=self.use_inside_evidence,
            inside_by_query=self.query_conditioned_inside_weight,
        )

    def in_blocks(self, vectors: Representations, windows: WindowBatch) -> Iterator[tuple[int, Candidates]]:
        """Yield the candidates of the entity labels, so many labels at once that memory is bounded."""
        yield from self._in_blocks(self.read(vectors, windows), vectors.labels, query_mask_of(vectors.labels))

    def of_fields(self, vectors: Representations, windows: WindowBatch) -> Candidates:
        """Return the candidates of the fields of all tasks; a field does not depend on the others."""
        assert vectors.tasks is not None
        blocks = self._in_blocks(self.read(vectors, windows), *extractive(vectors.tasks))
        return Candidates(*(torch.cat(part, 1) for part in zip(*(some for _, some in blocks), strict=True)))

    def _in_blocks(
        self, read: Boundaries, queries: Tensor, query_mask: Tensor
    ) -> Iterator[tuple[int, Candidates]]:
        rows, n = read.mask.shape
        most = max(max(self.start_top_k, self.end_top_k) * n, self.candidate_budget * self.pair_dim)
        step = max(1, SCORES_AT_ONCE // max(1, rows * most))
        for at in range(0, queries.shape[1], step):
            yield at, self.candidates(read, queries[:, at : at + step], query_mask[:, at : at + step])

    def candidates(self, read: Boundaries, queries: Tensor, query_mask: Tensor) -> Candidates:
        """Propose and score spans; a query does not depend on the others."""
        queries = queries.to(read.states.dtype)
        marginals = self.boundary_query_head(read, queries)
        both = self.boundary_proposer(read, queries)
        spans, totals, valid = self._chosen(read, marginals, both, query_mask)
        logits = self.pair_scorer(read, queries, marginals, spans, totals)
        return Candidates(spans, logits.masked_fill(~valid, MASKED), valid)

    def proposed(
        self, read: Boundaries, queries: Tensor, query_mask: Tensor, forced: Tensor, forced_mask: Tensor
    ) -> Proposed:
        """Propose spans for each query in addition to given ones, and score all of them."""
        queries = queries.to(read.states.dtype)
        marginals = self.boundary_query_head(read, queries)
        both = self.boundary_proposer(read, queries)
        with torch.no_grad():
            spans, _, valid = self._chosen(read, marginals, both, query_mask)
            most = spans.shape[2] + forced.shape[2]
            spans, valid = with_forced(spans, valid, forced, forced_mask & query_mask[..., None], most)
        totals = _totals(both, marginals, spans)
        return Proposed(
            marginals, spans, valid, self.pair_scorer(read, queries, marginals, spans, totals), totals
        )

    def _chosen(
        self, read: Boundaries, marginals: Marginals, both: Gated, query_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return first and last boundary of the best spans, their first scores, and which are not padding."""
        ways = [self._best(both, marginals.starts, marginals.ends, read, forward=True)]
        if self.bidirectional_proposals:
            ways.append(self._best(both, marginals.ends, marginals.starts, read, forward=False))
        codes, totals = (torch.cat(parts, -1) for parts in zip(*ways, strict=True))
        n = read.mask.shape[1]
        codes, totals = _distinct(codes, totals, min(self.candidate_budget, n * (n - 1) // 2))
        valid = totals.isfinite() & query_mask[..., None]
        codes = codes * valid
        spans = torch.stack([codes.div(n, rounding_mode="floor"), codes % n], -1)
        return spans, totals.masked_fill(~valid, 0.0), valid

    def _best(
        self, both: Gated, first: Tensor, second: Tensor, read: Boundaries, forward: bool
    ) -> tuple[Tensor, Tensor]:
        """Return the spans of the best boundaries of one kind, each with its best boundaries of the other.

        Parameters
        ----------
        both
            Vectors of starts and ends.
        first, second
            Logits of the one and the other kind, ``(rows, queries, boundaries)``.
        read
            The boundaries.
        forward
            Whether the first kind is the start.

        Returns
        -------
        (Tensor, Tensor)
            Code, ``start * boundaries + end``, and score of each span, ``(rows, queries, spans)``; a score of minus
            infinity is none.
        """
        rows, queries, n = first.shape
        k, best = self.start_top_k, self.ends_per_start
        if not forward:
            k, best = self.end_top_k, self.starts_per_end
        budgets = self._budgets(k, read.lengths)
        k = min(n, k if budgets is None else int(budgets.max()))
        scores, places = (part[..., :k] for part in first.sort(dim=-1, descending=True, stable=True))
        one, other = (both.starts, both.ends) if forward else (both.ends, both.starts)
        chosen = at_boundaries(one, places) * both.gates[:, :, None]
        totals = (chosen.flatten(1, 2) @ other.transpose(1, 2)).view(rows, queries, k, n)
        totals = totals + scores[..., None] + second[:, :, None]
        place = torch.arange(n, device=places.device)
        wrong = place <= places[..., None] if forward else place >= places[..., None]
        tried = places <= read.lengths[:, None, None]
        if budgets is not None:
            tried = tried & (torch.arange(k, device=places.device) < budgets[:, None, None])
        totals = totals.masked_fill(wrong | ~read.mask[:, None, None] | ~tried[..., None], -torch.inf)
        totals, others = totals.topk(min(best, n), -1)
        codes = places[..., None] * n + others if forward else others * n + places[..., None]
        return codes.masked_fill(totals.isinf(), n * n).flatten(2), totals.flatten(2)

    def _budgets(self, k: int, lengths: Tensor) -> Tensor | None:
        """Return the number of boundaries to try in each window, ``(rows,)``; None if it is `k` everywhere."""
        if not self.boundary_top_k_alpha:
            return None
        most, bucket = self.boundary_top_k_max, self.boundary_top_k_bucket
        wanted = (max(k, min(math.ceil(self.boundary_top_k_alpha * n), most)) for n in lengths.tolist())
        return torch.tensor([min(most, -(-n // bucket) * bucket) for n in wanted], device=lengths.device)

    def given(
        self, read: Boundaries, queries: Tensor, query_mask: Tensor, spans: Tensor, valid: Tensor
    ) -> Tensor:
        """Score given spans for all queries, so many queries at once that memory is bounded."""
        queries = queries.to(read.states.dtype)
        step = max(1, SCORES_AT_ONCE // max(1, spans.shape[0] * spans.shape[1] * self.pair_dim))
        parts = []
        for at in range(0, queries.shape[1], step):
            some = queries[:, at : at + step]
            wide = spans[:, None].expand(-1, some.shape[1], -1, -1)
            marginals = self.boundary_query_head(read, some)
            both = self.boundary_proposer(read, some)
            totals = _totals(both, marginals, wide)
            parts.append(self.pair_scorer(read, some, marginals, wide, totals))
        return torch.cat(parts, 1)

    def is_full(self, n_words: int, groups: FoundSpans) -> tuple[int, str]:
        """Return for how many labels of windows as many spans were found as are proposed."""
        options = "start_top_k, end_top_k and candidate_budget"
        if len(groups.rows) < min(self.start_top_k, self.candidate_budget) or self.boundary_top_k_alpha:
            return 0, options
        n_labels = int(groups.labels.max()) + 1
        group = groups.rows * n_labels + groups.labels
        full = n_distinct(group, groups.starts, n_words) >= self.start_top_k
        if self.bidirectional_proposals:
            full &= n_distinct(group, groups.ends, n_words) >= self.end_top_k
        full |= group.bincount() >= self.candidate_budget
        return int(full.sum()), options

    def not_proposed(self, n_words: int, gold: FoundSpans) -> tuple[int, str]:
        """Return how many gold spans of a label in a window are more than are proposed."""
        options = "start_top_k, end_top_k and candidate_budget"
        if len(gold.rows) <= min(self.start_top_k, self.candidate_budget) or self.boundary_top_k_alpha:
            return 0, options
        group = gold.rows * (int(gold.labels.max()) + 1) + gold.labels
        lost = rank_in_group(group, gold.starts, n_words) >= self.start_top_k
        if self.bidirectional_proposals:
            lost &= rank_in_group(group, gold.ends, n_words) >= self.end_top_k
        over = (group[~lost].bincount() - self.candidate_budget).clamp(min=0)
        return int(lost.sum() + over.sum()), options


def _totals(both: Gated, marginals: Marginals, spans: Tensor) -> Tensor:
    """Return the first score of spans, ``(rows, queries, spans)``."""
    ends = at_boundaries(both.starts, spans[..., 0]) * at_boundaries(both.ends, spans[..., 1])
    return (ends @ both.gates[..., None])[..., 0] + marginals.ends_of(spans)


def _distinct(codes: Tensor, totals: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Keep each span once, and at most so many, the best; spans without a score have the largest code."""
    codes, order = codes.sort(-1)
    totals = totals.gather(-1, order)
    again = F.pad(codes[..., 1:] == codes[..., :-1], (1, 0))
    totals = totals.masked_fill(again, -torch.inf)
    if most < totals.shape[-1]:
        totals, order = totals.topk(most, -1)
        codes = codes.gather(-1, order)
    return codes, totals
