"""Scores of pairs of boundaries: the first, by which spans are proposed, and the one of the spans proposed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gliner_pipe.modeling.layers.linear import Linear
from gliner_pipe.modeling.span_reps.boundary_states import (
    Boundaries,
    Marginals,
    SpanContent,
    at_boundaries,
    rotated,
    width_features,
)


class Gated(NamedTuple):
    """Vectors whose product ``sum start * gate * end`` tells how well two boundaries fit together for a query.

    Attributes
    ----------
    starts, ends
        ``(rows, boundaries, size)``.
    gates
        ``(rows, queries, size)``.
    """

    starts: Tensor
    ends: Tensor
    gates: Tensor


class Proposer(nn.Module):
    """Projects boundaries and queries for the first score of a span.

    Parameters
    ----------
    hidden_size
        Width of the query vectors.
    size
        Width of the boundary vectors.
    rotary_base
        Base of the angles by which boundaries are rotated; None for no rotation.
    """

    def __init__(self, hidden_size: int, size: int, rotary_base: float | None) -> None:
        super().__init__()
        self.start_pair_projection = Linear(size, size)
        self.end_key_projection = Linear(size, size)
        self.start_query_projection = Linear(hidden_size, size if rotary_base is None else size // 2)
        self.rotary_base = rotary_base
        self.scale = size**-0.5

    def forward(self, read: Boundaries, queries: Tensor) -> Gated:
        """Return the vectors; the gates hold the scale of the product."""
        starts, ends = self.start_pair_projection(read.states), self.end_key_projection(read.states)
        gates = self.start_query_projection(queries).sigmoid() * self.scale
        return _rotated(Gated(starts, ends, gates), self.rotary_base)


class PairScorer(nn.Module):
    """Scores the spans proposed: by their ends, their words, and their width.

    Parameters
    ----------
    hidden_size
        Width of word and query vectors.
    size
        Width of the boundary vectors.
    pair_size
        Width in which the two ends are multiplied.
    content
        Pools the words of a span; None for no such score.
    rotary_base
        Base of the angles by which boundaries are rotated; None for no rotation.
    dropout
        Dropout rate.
    heads
        Number of parts in which the product of the ends is weighted.
    product, difference, inside
        Whether the product of the ends, their difference, and the words inside count.
    inside_by_query
        Whether the weight of the words inside depends on the query.
    """

    def __init__(
        self,
        hidden_size: int,
        size: int,
        pair_size: int,
        content: SpanContent | None,
        rotary_base: float | None,
        dropout: float,
        *,
        heads: int,
        product: bool,
        difference: bool,
        inside: bool,
        inside_by_query: bool,
    ) -> None:
        super().__init__()
        self.product, self.inside, self.rotary_base = product, inside, rotary_base
        self.start_endpoint_projection = Linear(size, pair_size)
        self.end_endpoint_projection = Linear(size, pair_size)
        self.query_gate = Linear(hidden_size, pair_size if rotary_base is None else pair_size // 2)
        self.length_query_projection = Linear(hidden_size, 3)
        self.inside_weight: Linear | nn.Parameter = (
            Linear(hidden_size, 1) if inside_by_query else nn.Parameter(torch.tensor(1.0))
        )
        self.endpoint_difference_projection = Linear(2 * pair_size, 1) if difference else None
        self.content_pooler = content
        if content is not None:
            self.content_query_projection = Linear(hidden_size, content.output_size)
            self.content_bias = Linear(content.output_size, 1)
        self.compat_mix = Linear(heads, 1)
        nn.init.constant_(self.compat_mix.weight, 1 / heads)
        nn.init.zeros_(self.compat_mix.bias)
        self.dropout = nn.Dropout(dropout)
        self.scale = pair_size**-0.5

    def forward(
        self, read: Boundaries, queries: Tensor, marginals: Marginals, spans: Tensor, totals: Tensor
    ) -> Tensor:
        """Score spans.

        Parameters
        ----------
        read
            The boundaries.
        queries
            ``(rows, queries, hidden)``.
        marginals
            Scores of boundaries and words for these queries.
        spans
            First and last boundary, ``(rows, queries, spans, 2)``.
        totals
            First score of each span with the logits of its ends, ``(rows, queries, spans)``.

        Returns
        -------
        Tensor
            Logits, ``(rows, queries, spans)``.
        """
        scores = totals
        starts, ends = self.start_endpoint_projection(read.states), self.end_endpoint_projection(read.states)
        starts, ends, gates = _rotated(
            Gated(starts, ends, self.query_gate(queries).sigmoid()), self.rotary_base
        )
        starts = self.dropout(at_boundaries(starts, spans[..., 0]))
        ends = self.dropout(at_boundaries(ends, spans[..., 1]))
        if self.product:
            mix = self.compat_mix.weight[0].repeat_interleave(gates.shape[-1] // self.compat_mix.in_features)
            weighted = gates * (mix * self.scale)
            scores = scores + ((starts * ends) @ weighted[..., None])[..., 0]
            scores = scores + self.compat_mix.bias * self.scale
        if self.endpoint_difference_projection is not None:
            apart = starts - ends
            scores = scores + self.endpoint_difference_projection(torch.cat([apart, apart.abs()], -1))[..., 0]
        if self.content_pooler is not None:
            content = self.content_pooler(read, spans)
            of_query = self.content_query_projection(queries) * content.shape[-1] ** -0.5
            scores = scores + (content @ of_query[..., None])[..., 0] + self.content_bias(content)[..., 0]
        if self.inside:
            weight = self.inside_weight
            weight = weight(queries) if isinstance(weight, Linear) else weight
            scores = scores + weight * marginals.inside_of(spans).to(scores.dtype)
        of_width = width_features(spans, read.lengths).to(scores.dtype)
        return scores + (of_width @ self.length_query_projection(queries)[..., None])[..., 0]


def _rotated(vectors: Gated, base: float | None) -> Gated:
    """Rotate starts and ends by their place, unless `base` is None; gates then have half their width."""
    if base is None:
        return vectors
    starts, ends, gates = vectors
    return Gated(rotated(starts, base), rotated(ends, base), gates.repeat_interleave(2, -1))
