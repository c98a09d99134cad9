"""The span representation ``boundary_pool``: all labels share one pool of proposed spans, which see each other."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.block import check_divides
from gliner_pipe.modeling.layers.linear import Linear
from gliner_pipe.modeling.span_reps.base import SCORES_AT_ONCE, FoundSpans, Representations
from gliner_pipe.modeling.span_reps.boundary_base import (
    BoundarySpanRep,
    Candidates,
    extractive,
    n_distinct,
    rank_in_group,
    shared,
    with_forced,
)
from gliner_pipe.modeling.span_reps.boundary_states import (
    MASKED,
    Boundaries,
    Marginals,
    SpanContent,
    at_boundaries,
    width_features,
)
from gliner_pipe.modeling.span_reps.boundary_training import Proposed
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Amount, Layers, Multiple, Positive, Share, Size

#: How two spans lie to each other: the rows of the attention bias.
SAME, INSIDE, AROUND, CROSSING, SAME_START, SAME_END, LEFT, RIGHT = range(8)
#: The row for each sign of the difference of the starts and of the ends, from -1 to 1, of spans that overlap.
_OVERLAPS = (CROSSING, SAME_END, AROUND, SAME_START, SAME, SAME_START, INSIDE, SAME_END, CROSSING)
#: Added to the score of a span that is among the best of a query, so that it comes before all others.
_GUARANTEED = 5000.0


@registry.span_reps.register("boundary_pool")
class BoundaryPool(BoundarySpanRep):
    """Proposes one pool of spans for all labels of a window; spans and labels attend to each other.

    Use it for checkpoints trained with it. The scores of a label depend on the other labels, relations and records.

    Parameters
    ----------
    pool_boundary_top_k
        Number of starts and of ends, the best for any label, that are paired.
    pool_size
        Most spans in the pool.
    min_pool_per_query
        Number of spans that each label may put into the pool before the others.
    candidate_attention_layers, candidate_attention_heads
        Attention layers between the spans, and their heads.
    query_attention_layers
        Attention layers between the labels.
    **options
        Those of :class:`~gliner_pipe.modeling.span_reps.boundary.BoundarySpanRep`.

    Notes
    -----
    Source: the boundary architecture of GLiNER2.5 with the candidate pool ``shared``. There, the smooth maximum of
    `content_soft_max_pool` makes all scores NaN; here padding has none.
    """

    shares_spans = True

    def __init__(
        self,
        pool_boundary_top_k: Size = 64,
        pool_size: Size = 384,
        min_pool_per_query: Amount = 8,
        candidate_attention_layers: Layers = 2,
        candidate_attention_heads: Size = 4,
        query_attention_layers: Layers = 1,
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
        self.pool_boundary_top_k, self.pool_size = pool_boundary_top_k, pool_size
        self.min_pool_per_query = min_pool_per_query
        self.candidate_attention_layers = candidate_attention_layers
        self.candidate_attention_heads = candidate_attention_heads
        self.query_attention_layers = query_attention_layers
        check_divides("span_rep.candidate_attention_heads", candidate_attention_heads, pair_dim)

    def build(self, hidden_size: int) -> None:
        """Create the weights."""
        super().build(hidden_size)
        self.shared_pool_builder = PoolBuilder(
            self.boundary_dim, self.pool_boundary_top_k, self.pool_size, self.min_pool_per_query
        )
        content = None
        if self.enable_span_content:
            content = SpanContent(hidden_size, self.content_dim, self.content_soft_max_pool, self.dropout)
        self.shared_pool_scorer = PoolScorer(
            hidden_size,
            self.boundary_dim,
            self.pair_dim,
            content,
            self.candidate_attention_layers,
            self.candidate_attention_heads,
            self.query_attention_layers,
            self.dropout,
            self.use_inside_evidence,
        )

    def in_blocks(self, vectors: Representations, windows: WindowBatch) -> Iterator[tuple[int, Candidates]]:
        """Yield the candidates of all entity labels at once, since they depend on each other."""
        n_labels = vectors.labels.shape[1]
        if n_labels:
            yield 0, Candidates(*(part[:, :n_labels] for part in self._of_all(vectors, windows)))

    def of_fields(self, vectors: Representations, windows: WindowBatch) -> Candidates:
        """Return the candidates of the fields of all tasks, in the pool that they share with the entity labels."""
        n_labels = vectors.labels.shape[1]
        return Candidates(*(part[:, n_labels:] for part in self._of_all(vectors, windows)))

    def _of_all(self, vectors: Representations, windows: WindowBatch) -> Candidates:
        read = self.read(vectors, windows)
        return shared(vectors, "pool", lambda: self.candidates(read, *self.seen_with_labels(vectors)))

    def seen_with_labels(self, vectors: Representations) -> tuple[Tensor, Tensor]:
        """Return the labels and the fields of all tasks, and which are not padding."""
        labels, label_mask = super().seen_with_labels(vectors)
        if vectors.tasks is None:
            return labels, label_mask
        fields, field_mask = extractive(vectors.tasks)
        return torch.cat([labels, fields], 1), torch.cat([label_mask, field_mask], 1)

    def candidates(self, read: Boundaries, queries: Tensor, query_mask: Tensor) -> Candidates:
        """Propose one pool of spans and score them for all queries."""
        queries = queries.to(read.states.dtype)
        marginals = self.boundary_query_head(read, queries)
        spans, valid, fits = self.shared_pool_builder(read, marginals, query_mask)
        logits = self.shared_pool_scorer(read, queries, query_mask, marginals, spans, valid, fits)
        n_queries = queries.shape[1]
        valid = valid[:, None] & query_mask[..., None]
        return Candidates(spans[:, None].expand(-1, n_queries, -1, -1), logits, valid)

    def proposed(
        self, read: Boundaries, queries: Tensor, query_mask: Tensor, forced: Tensor, forced_mask: Tensor
    ) -> Proposed:
        """Propose a pool that holds given spans, and score it for all queries."""
        queries, n_queries = queries.to(read.states.dtype), queries.shape[1]
        marginals = self.boundary_query_head(read, queries)
        first = _first_ones(forced.flatten(1, 2), forced_mask.flatten(1))
        pool, inside, fits = self.shared_pool_builder(
            read, marginals, query_mask, forced.flatten(1, 2), first
        )
        logits = self.shared_pool_scorer(read, queries, query_mask, marginals, pool, inside, fits)
        for of_side, place in zip((marginals.starts, marginals.ends), pool.unbind(-1), strict=True):
            fits = fits + of_side.masked_fill(~query_mask[..., None], MASKED).amax(1).gather(1, place)
        return Proposed(
            marginals,
            pool[:, None].expand(-1, n_queries, -1, -1),
            inside[:, None] & query_mask[..., None],
            logits,
            fits[:, None].expand(-1, n_queries, -1),
        )

    def given(
        self, read: Boundaries, queries: Tensor, query_mask: Tensor, spans: Tensor, valid: Tensor
    ) -> Tensor:
        """Score given spans for all queries, in a pool that they are put into first."""
        queries = queries.to(read.states.dtype)
        marginals = self.boundary_query_head(read, queries)
        pool, inside, fits = self.shared_pool_builder(read, marginals, query_mask, spans, valid)
        logits = self.shared_pool_scorer(read, queries, query_mask, marginals, pool, inside, fits)
        n = spans.shape[1]
        found = logits[..., :n]
        return found.masked_fill(~valid[:, None], MASKED)

    def is_full(self, n_words: int, groups: FoundSpans) -> tuple[int, str]:
        """Return in how many windows as many spans were found as are proposed."""
        options = "pool_boundary_top_k and pool_size"
        if len(groups.rows) < min(self.pool_boundary_top_k, self.pool_size):
            return 0, options
        full = n_distinct(groups.rows, groups.starts, n_words) >= self.pool_boundary_top_k
        full |= n_distinct(groups.rows, groups.ends, n_words) >= self.pool_boundary_top_k
        spans = groups.starts * n_words + groups.ends
        full |= n_distinct(groups.rows, spans, n_words * n_words) >= self.pool_size
        return int(full.sum()), options

    def not_proposed(self, n_words: int, gold: FoundSpans) -> tuple[int, str]:
        """Return how many gold spans of a window are more than are proposed."""
        options = "pool_boundary_top_k and pool_size"
        if len(gold.rows) <= min(self.pool_boundary_top_k, self.pool_size):
            return 0, options
        lost = rank_in_group(gold.rows, gold.starts, n_words) >= self.pool_boundary_top_k
        lost |= rank_in_group(gold.rows, gold.ends, n_words) >= self.pool_boundary_top_k
        rows, spans = gold.rows[~lost], (gold.starts * n_words + gold.ends)[~lost]
        over = rank_in_group(rows, spans, n_words * n_words) >= self.pool_size
        return int(lost.sum() + over.sum()), options


class PoolBuilder(nn.Module):
    """Chooses the spans of the pool of each window.

    Parameters
    ----------
    size
        Width of the boundary vectors.
    top_k
        Number of starts and of ends that are paired.
    most
        Most spans in the pool.
    per_query
        Number of spans that each query may put into the pool first.
    """

    def __init__(self, size: int, top_k: int, most: int, per_query: int) -> None:
        super().__init__()
        self.top_k, self.most, self.per_query = top_k, most, per_query
        self.start_projection = Linear(size, size)
        self.end_projection = Linear(size, size)
        self.scale = size**-0.5

    def forward(
        self,
        read: Boundaries,
        marginals: Marginals,
        query_mask: Tensor,
        forced: Tensor | None = None,
        forced_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose spans.

        Parameters
        ----------
        read
            The boundaries.
        marginals
            Scores of the boundaries for all queries.
        query_mask
            False for padding, ``(rows, queries)``.
        forced, forced_mask
            Spans that must be in the pool, ``(rows, spans, 2)``, and which are not padding. They come first; what is
            left of the room goes to the best others.

        Returns
        -------
        (Tensor, Tensor, Tensor)
            First and last boundary, ``(rows, spans, 2)``, zeros for padding; which are not padding, and how well the
            two boundaries fit together, ``(rows, spans)``.
        """
        firsts, lasts = self.start_projection(read.states), self.end_projection(read.states)
        with torch.no_grad():
            spans, valid = self._chosen(read, marginals, query_mask, firsts, lasts)
            if forced is not None and forced_mask is not None:
                spans, valid = with_forced(spans, valid, forced, forced_mask, self.most)
        fits = (at_boundaries(firsts, spans[..., 0]) * at_boundaries(lasts, spans[..., 1])).sum(-1)
        return spans, valid, (fits * self.scale).masked_fill(~valid, 0.0)

    def _chosen(
        self, read: Boundaries, marginals: Marginals, query_mask: Tensor, firsts: Tensor, lasts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the best spans, best first, and which are not padding."""
        n = read.mask.shape[1]
        k = min(self.top_k, n)
        starts, start_logits = self._best(marginals.starts, query_mask, k)
        ends, end_logits = self._best(marginals.ends, query_mask, k)
        fits = at_boundaries(firsts, starts) @ at_boundaries(lasts, ends).transpose(1, 2) * self.scale
        fits = fits.float()  # ranks beside _GUARANTEED need its digits
        allowed = (ends[:, None, :] > starts[..., None]) & (ends <= read.lengths[:, None])[:, None, :]
        allowed = (allowed & query_mask.any(1)[:, None, None]).flatten(1)
        totals = (fits + start_logits[..., None] + end_logits[:, None, :]).flatten(1)
        totals = totals.masked_fill(~allowed, -torch.inf)
        quota = min(self.per_query, k * k)
        step = max(1, SCORES_AT_ONCE // max(1, totals.numel()))
        rank = _GUARANTEED + torch.arange(quota, 0, -1, device=totals.device, dtype=totals.dtype)
        for at in range(0, query_mask.shape[1] if quota else 0, step):
            of_queries = _at(marginals.starts[:, at : at + step], starts)[..., None] + fits[:, None]
            of_queries = of_queries + _at(marginals.ends[:, at : at + step], ends)[:, :, None]
            missing = ~(allowed[:, None] & query_mask[:, at : at + step, None])
            scores, places = of_queries.flatten(2).masked_fill(missing, -torch.inf).topk(quota, -1)
            priority = torch.where(scores.isinf(), -torch.inf, rank)
            totals = totals.scatter_reduce(1, places.flatten(1), priority.flatten(1), "amax")
        # the pairs are ordered by start and end, and so are equal ones
        most = min(self.most, n * (n - 1) // 2)
        totals, order = (part[:, :most] for part in totals.sort(dim=-1, descending=True, stable=True))
        valid = totals.isfinite()
        spans = torch.stack(
            [starts.gather(1, order.div(k, rounding_mode="floor")), ends.gather(1, order % k)], -1
        )
        return spans * valid[..., None], valid

    def _best(self, logits: Tensor, query_mask: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the places, in order, and the logits of the boundaries that are best for any query."""
        best = logits.masked_fill(~query_mask[..., None], MASKED).amax(1)
        places = best.sort(dim=-1, descending=True, stable=True).indices[:, :k].sort(-1).values
        return places, best.gather(1, places)


def _first_ones(spans: Tensor, mask: Tensor) -> Tensor:
    """Return which spans, ``(rows, spans, 2)``, are the first of equal ones, without padding."""
    same = (spans[:, :, None] == spans[:, None]).all(-1) & mask[:, None]
    return mask & ~same.tril(-1).any(-1)


def _at(logits: Tensor, places: Tensor) -> Tensor:
    """Select logits, ``(rows, queries, boundaries)``, at places, ``(rows, places)``."""
    return logits.gather(2, places[:, None].expand(-1, logits.shape[1], -1))


class PoolAttention(nn.Module):
    """Self-attention between the spans of a pool, biased by how two spans lie to each other.

    Parameters
    ----------
    size
        Width of the span vectors.
    heads
        Number of attention heads.
    dropout
        Dropout rate.
    """

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(size, 3 * size)
        self.output = Linear(size, size)
        self.relative_bias = nn.Parameter(torch.zeros(8, heads))
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.ffn = _feed_forward(size, 4 * size, size, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, relations: Tensor, mask: Tensor) -> Tensor:
        """Map span vectors, ``(rows, spans, size)``, to the same shape.

        Parameters
        ----------
        states
            The vectors.
        relations
            How two spans lie to each other, 0 to 7; 8 where the second is padding, ``(rows, spans, spans)``.
        mask
            False for padding, ``(rows, spans)``.
        """
        rows, n, size = states.shape
        qkv = self.qkv(self.norm1(states)).view(rows, n, 3, self.heads, size // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        bias = F.pad(self.relative_bias, (0, 0, 0, 1), value=MASKED).T.to(states.dtype)
        bias = bias.index_select(1, relations.flatten()).view(self.heads, rows, n, n).transpose(0, 1)
        mixed = F.scaled_dot_product_attention(query, key, value, bias)
        states = states + self.dropout(self.output(mixed.transpose(1, 2).reshape(rows, n, size)))
        states = states + self.dropout(self.ffn(self.norm2(states)))
        return states.masked_fill(~mask[..., None], 0.0)


class QueryAttention(nn.Module):
    """Self-attention between queries that have seen the spans of the pool.

    Parameters
    ----------
    size
        Width of query and span vectors.
    heads
        Number of attention heads.
    dropout
        Dropout rate.
    """

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.query_in, self.evidence_in = Linear(size, size), Linear(size, size)
        self.attention = nn.MultiheadAttention(size, heads, dropout=dropout, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.ffn = _feed_forward(size, 4 * size, size, dropout)

    def forward(self, queries: Tensor, spans: Tensor, query_mask: Tensor, mask: Tensor) -> Tensor:
        """Map queries, ``(rows, queries, size)``, to the same shape; padding of queries and spans is masked."""
        fit = (queries @ spans.transpose(1, 2)).masked_fill(~mask[:, None], MASKED)
        states = self.query_in(queries) + self.evidence_in(fit.softmax(-1) @ spans)
        normed = self.norm1(states)
        # a row without queries attends to its padding: its result is not used
        hidden = ~query_mask & query_mask.any(1, keepdim=True)
        mixed = self.attention(normed, normed, normed, key_padding_mask=hidden, need_weights=False)[0]
        states = states + mixed
        states = states + self.ffn(self.norm2(states))
        return states.masked_fill(~query_mask[..., None], 0.0)


class PoolScorer(nn.Module):
    """Scores the spans of a pool for all queries.

    Parameters
    ----------
    hidden_size
        Width of word and query vectors.
    size
        Width of the boundary vectors.
    pair_size
        Width of the span vectors.
    content
        Pools the words of a span; None for none.
    layers, heads
        Number of :class:`PoolAttention` layers, and heads of all attention.
    query_layers
        Number of :class:`QueryAttention` layers.
    dropout
        Dropout rate.
    inside
        Whether the words inside a span count.
    """

    def __init__(
        self,
        hidden_size: int,
        size: int,
        pair_size: int,
        content: SpanContent | None,
        layers: int,
        heads: int,
        query_layers: int,
        dropout: float,
        inside: bool,
    ) -> None:
        super().__init__()
        self.inside = inside
        self.start_projection = Linear(size, pair_size)
        self.end_projection = Linear(size, pair_size)
        self.length_projection = Linear(3, pair_size)
        self.prior_projection = Linear(1, pair_size)
        self.content_pooler = content
        self.content_projection = None if content is None else Linear(content.output_size, pair_size)
        self.candidate_norm = nn.LayerNorm(pair_size)
        self.candidate_layers = nn.ModuleList(PoolAttention(pair_size, heads, dropout) for _ in range(layers))
        self.query_projection = Linear(hidden_size, pair_size)
        self.query_layers = nn.ModuleList(
            QueryAttention(pair_size, heads, dropout) for _ in range(query_layers)
        )
        self.film = Linear(pair_size, 2 * pair_size)
        self.film_output = _feed_forward(pair_size, 64, 1, dropout)

    def forward(
        self,
        read: Boundaries,
        queries: Tensor,
        query_mask: Tensor,
        marginals: Marginals,
        spans: Tensor,
        valid: Tensor,
        fits: Tensor,
    ) -> Tensor:
        """Score all spans for all queries.

        Parameters
        ----------
        read
            The boundaries.
        queries, query_mask
            ``(rows, queries, hidden)``, and false for padding, ``(rows, queries)``.
        marginals
            Scores of boundaries and words for these queries.
        spans, valid, fits
            The pool; see :class:`PoolBuilder`.

        Returns
        -------
        Tensor
            Logits, ``(rows, queries, spans)``; ``MASKED`` for padding.
        """
        states = self._states(read, spans, valid, fits)
        relations = _relations(spans, valid) if len(self.candidate_layers) else spans
        for layer in self.candidate_layers:
            states = layer(states, relations, valid)
        projected = self.query_projection(queries)
        for layer in self.query_layers:
            projected = layer(projected, states, query_mask, valid)
        scores = (projected @ states.transpose(1, 2)) * states.shape[-1] ** -0.5
        scores = scores + self._modulated(states, projected)
        wide = spans[:, None].expand(-1, queries.shape[1], -1, -1)
        scores = scores + marginals.ends_of(wide)
        if self.inside:
            scores = scores + marginals.inside_of(wide).to(scores.dtype)
        return scores.masked_fill(~(valid[:, None] & query_mask[..., None]), MASKED)

    def _states(self, read: Boundaries, spans: Tensor, valid: Tensor, fits: Tensor) -> Tensor:
        """Return the vectors of the spans, before they see each other."""
        states = at_boundaries(self.start_projection(read.states), spans[..., 0])
        states = states + at_boundaries(self.end_projection(read.states), spans[..., 1])
        states = states + self.length_projection(width_features(spans, read.lengths).to(states.dtype))
        states = states + self.prior_projection(fits[..., None].to(states.dtype))
        if self.content_pooler is not None and self.content_projection is not None:
            states = states + self.content_projection(self.content_pooler(read, spans))
        normed: Tensor = self.candidate_norm(states)
        return normed.masked_fill(~valid[..., None], 0.0)

    def _modulated(self, states: Tensor, queries: Tensor) -> Tensor:
        """Score spans by a network whose input each query scales and shifts, ``(rows, queries, spans)``.

        Scale and shift are folded into the first layer, so that no vector is built for a span and a query.
        """
        first, last = self.film_output[0], self.film_output[3]
        assert isinstance(first, Linear) and isinstance(last, Linear)
        rows, n, size = states.shape
        step = max(1, SCORES_AT_ONCE // max(1, rows * first.out_features * max(n, size)))
        parts = []
        for at in range(0, queries.shape[1], step):
            scale, shift = self.film(queries[:, at : at + step]).chunk(2, -1)
            weights = (1 + scale)[:, :, None] * first.weight  # (rows, queries, 64, size)
            hidden = states @ weights.flatten(1, 2).transpose(1, 2) + first(shift).flatten(1)[:, None]
            hidden = self.film_output[2](F.gelu(hidden)).view(rows, n, -1, first.out_features)
            parts.append(last(hidden)[..., 0].transpose(1, 2))
        return torch.cat(parts, 1)


def _feed_forward(size: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(Linear(size, hidden), nn.GELU(), nn.Dropout(dropout), Linear(hidden, out))


def _relations(spans: Tensor, valid: Tensor) -> Tensor:
    """How each span lies to each other one, 0 to 7; 8 where the other is padding, ``(rows, spans, spans)``."""
    starts, ends = spans.to(torch.int32).unbind(-1)
    apart = (starts[..., None] - starts[:, None]).sign(), (ends[..., None] - ends[:, None]).sign()
    overlaps = torch.tensor(_OVERLAPS, device=spans.device)
    found = overlaps[(3 * apart[0] + apart[1] + 4).long()]
    found = found.masked_fill(ends[..., None] <= starts[:, None], LEFT)
    found = found.masked_fill(starts[..., None] >= ends[:, None], RIGHT)
    return found.masked_fill(~valid[:, None], 8)
