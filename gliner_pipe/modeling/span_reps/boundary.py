"""The boundary family of span representations: a span is a start boundary and an end boundary, of any width."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.block import check_divides, described
from gliner_pipe.modeling.encoders.base import TaskVectors
from gliner_pipe.modeling.layers.linear import Linear
from gliner_pipe.modeling.span_reps.base import (
    SCORES_AT_ONCE,
    FoundSpans,
    Representations,
    SpanRep,
    by_row,
    own_starts,
)
from gliner_pipe.modeling.span_reps.boundary_scorers import Gated, PairScorer, Proposer
from gliner_pipe.modeling.span_reps.boundary_states import (
    MASKED,
    Boundaries,
    BoundaryEncoder,
    BoundaryScorer,
    SpanContent,
    at_boundaries,
)
from gliner_pipe.modeling.tasks import KINDS
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Amount, AngleBase, Layers, Multiple, NonNegative, Positive, Share, Size

logger = logging.getLogger(__name__)


class Candidates(NamedTuple):
    """The spans that were proposed and scored.

    Attributes
    ----------
    spans
        First and last boundary, ``(rows, queries, spans, 2)``; zeros for padding.
    logits
        Score of each span for its query, ``(rows, queries, spans)``.
    valid
        False for padding, ``(rows, queries, spans)``.
    """

    spans: Tensor
    logits: Tensor
    valid: Tensor


class BoundarySpanRep(SpanRep):
    """Base class: proposes a bounded number of spans by the scores of their ends, and scores these as wholes.

    Spans of any width are found: no table over widths is built. A window may hold more entities than are proposed. This
    is reported once, with the options to raise.

    Parameters
    ----------
    boundary_dim, pair_dim
        Widths of the vectors of boundaries, and of the vectors from which pairs of them are scored.
    boundary_refinement_layers, boundary_ffn_multiplier
        Feed-forward layers over the boundaries, and their hidden width as a multiple of `boundary_dim`.
    boundary_attention_layers, boundary_attention_heads, boundary_attention_window
        Attention layers over the boundaries, their heads, and the largest distance that they see; 0 for no limit.
    dropout
        Dropout rate of all hidden layers.
    use_inside_evidence
        Whether the words inside a span count.
    enable_span_content, content_dim, content_soft_max_pool
        Whether the mean of the words of a span is used, in which width, and whether their smooth maximum is, too.
    enable_abstention, abstention_threshold
        Whether a label has a score for "no entity of this label in this window", and above which score this holds.
    enable_count_head, adaptive_threshold
        Whether the number of entities of a label is predicted, and whether so many spans are kept even if they are
        below the threshold.
    pair_temperature
        Divides the scores before the sigmoid.
    candidate_states
        Whether there are vectors of spans, for records.

    Notes
    -----
    Source: the boundary architecture of GLiNER2.5.
    """

    max_width = None
    projects_labels = False
    #: Whether the spans are the same for all queries.
    shares_spans: ClassVar[bool] = False

    def __init__(
        self,
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
    ) -> None:
        super().__init__()
        self.boundary_dim, self.pair_dim = boundary_dim, pair_dim
        self.encoder_options = (
            *(boundary_refinement_layers, boundary_ffn_multiplier),
            *(boundary_attention_layers, boundary_attention_heads, boundary_attention_window, dropout),
        )
        self.dropout = dropout
        self.use_inside_evidence = use_inside_evidence
        self.enable_span_content = enable_span_content
        self.content_dim, self.content_soft_max_pool = content_dim, content_soft_max_pool
        self.enable_abstention, self.abstention_threshold = enable_abstention, abstention_threshold
        self.enable_count_head, self.adaptive_threshold = enable_count_head, adaptive_threshold
        self.pair_temperature = pair_temperature
        self.candidate_states = candidate_states
        #: How often a window had as many spans above their thresholds as are proposed.
        self.full_budgets = 0
        if adaptive_threshold and not enable_count_head:
            found = "is true without enable_count_head"
            raise ConfigError(
                "components.*.model.span_rep.adaptive_threshold", found, "enable_count_head = true"
            )
        if boundary_attention_layers:
            check_divides("span_rep.boundary_attention_heads", boundary_attention_heads, boundary_dim)

    def build(self, hidden_size: int) -> None:
        """Create the weights."""
        self.boundary_encoder = BoundaryEncoder(hidden_size, self.boundary_dim, *self.encoder_options)
        self.boundary_query_head = BoundaryScorer(hidden_size, self.boundary_dim, self.dropout)
        self.null_projection = _zeros(hidden_size) if self.enable_abstention else None
        self.count_head = _zeros(hidden_size) if self.enable_count_head else None
        self.candidate_encoder: Linear | None = None
        if self.candidate_states or self.needs_vectors:
            self.candidate_encoder = Linear(2 * self.boundary_dim, hidden_size)

    # -- what the two kinds of candidates differ in ------------------------------------------------------------------

    @abstractmethod
    def candidates(self, read: Boundaries, queries: Tensor, query_mask: Tensor) -> Candidates:
        """Propose and score spans.

        Parameters
        ----------
        read
            The boundaries, from ``boundary_encoder``.
        queries
            Vectors of labels or fields, ``(rows, queries, hidden)``.
        query_mask
            False for padding, ``(rows, queries)``.
        """

    @abstractmethod
    def given(
        self, read: Boundaries, queries: Tensor, query_mask: Tensor, spans: Tensor, valid: Tensor
    ) -> Tensor:
        """Score given spans for all queries.

        Parameters
        ----------
        read, queries, query_mask
            As in ``candidates``.
        spans
            First and last boundary, ``(rows, spans, 2)``, no span twice in a row.
        valid
            False for padding, ``(rows, spans)``.

        Returns
        -------
        Tensor
            Logits, ``(rows, queries, spans)``; undefined for padding.
        """

    @abstractmethod
    def in_blocks(self, vectors: Representations, windows: WindowBatch) -> Iterator[tuple[int, Candidates]]:
        """Yield the candidates of the entity labels, with the number of their first label."""

    @abstractmethod
    def of_fields(self, vectors: Representations, windows: WindowBatch) -> Candidates:
        """Return the candidates of the fields of all tasks, for ``rows x (tasks * fields)`` queries.

        Those of classifications are padding.
        """

    @abstractmethod
    def is_full(self, n_words: int, groups: FoundSpans) -> tuple[int, str]:
        """Return how often the spans found are as many as were proposed, and the options that bound them."""

    # -- the contract ------------------------------------------------------------------------------------------------

    def find(self, vectors: Representations, windows: WindowBatch, limits: Tensor) -> FoundSpans:
        """Find the spans above their thresholds among those proposed."""
        parts = []
        for at, some in self.in_blocks(vectors, windows):
            stop = at + some.logits.shape[1]
            found = self._above(some, vectors.labels[:, at:stop], limits[:, at:stop])
            parts.append(found._replace(labels=found.labels + at))
        found = FoundSpans.join(parts, limits.device)
        self._report(windows.word_mask.shape[1], found)
        return found.where(
            own_starts(windows)[found.rows, found.starts] & windows.annotated[found.rows, found.ends]
        )

    def _above(self, some: Candidates, labels: Tensor, limits: Tensor) -> FoundSpans:
        """Return the candidates above their thresholds; those of labels that abstain are left out."""
        probs, keep = self.kept(some.logits, some.valid, labels, limits)
        if self.null_projection is not None:
            nothing = self.null_projection(labels.to(some.logits.dtype)).float().sigmoid()
            keep &= nothing <= self.abstention_threshold
        rows, names, _ = keep.nonzero().unbind(1)
        starts, ends = some.spans[keep].unbind(1)
        return FoundSpans(rows, starts, ends - 1, names, probs[keep])

    def kept(self, logits: Tensor, valid: Tensor, queries: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of candidates, and which are above their thresholds.

        Parameters
        ----------
        logits, valid
            Of the candidates of each query, ``(rows, queries, spans)``.
        queries
            Vectors of labels or fields, ``(rows, queries, hidden)``.
        limits
            Threshold of each query, ``(rows, queries)``; infinite for padding.
        """
        probs = (logits.float() / self.pair_temperature).sigmoid()
        keep = probs > limits[..., None]
        if self.adaptive_threshold and self.count_head is not None:
            counts = self.count_head(queries.to(logits.dtype)).float().exp().round()
            ranked = probs.masked_fill(~valid, -1).argsort(dim=-1, descending=True, stable=True)
            keep |= ranked.argsort(-1) < counts
        return probs, keep & valid & limits.isfinite()[..., None]

    def _report(self, n_words: int, found: FoundSpans) -> None:
        """Count windows with as many spans as are proposed, and report the first."""
        n_full, options = self.is_full(n_words, found)
        if n_full and not self.full_budgets:
            logger.warning(
                "A window holds as many entities as span_rep proposes, so others may be missing: raise %s (the option "
                "budgets of a checkpoint), or use shorter windows (encoder.backbone.window). Reported once.",
                options,
            )
        self.full_budgets += n_full

    def read(self, vectors: Representations, windows: WindowBatch) -> Boundaries:
        """Return the boundaries of windows, computed once for all blocks."""
        return shared(
            vectors, "boundaries", lambda: self.boundary_encoder(vectors.span_words, windows.word_mask)
        )

    def class_scores(self, vectors: Representations, windows: WindowBatch, spans: Tensor) -> Tensor:
        """Score chosen spans for all labels, ``(spans, labels)``."""
        read = self.read(vectors, windows)
        places, (rows, order) = by_row(spans, len(windows.word_mask))
        valid = torch.zeros(places.shape[:2], dtype=torch.bool, device=places.device)
        valid[rows, order] = True
        places = places + torch.tensor([0, 1], device=places.device) * valid[..., None]
        queries, query_mask = self.seen_with_labels(vectors)
        logits = self.given(read, queries, query_mask, places, valid)[:, : vectors.labels.shape[1]]
        return (logits.transpose(1, 2)[rows, order].float() / self.pair_temperature).sigmoid()

    def seen_with_labels(self, vectors: Representations) -> tuple[Tensor, Tensor]:
        """Return the queries that scores of labels depend on, labels first, and which are not padding."""
        return vectors.labels, query_mask_of(vectors.labels)

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Compute the vectors of selected spans, from the vectors of their two boundaries."""
        starts, ends = self.halves(self.boundary_encoder(words, word_mask))
        return at_boundaries(starts, spans[..., 0]) + at_boundaries(ends, spans[..., 1] + 1)

    def halves(self, read: Boundaries) -> tuple[Tensor, Tensor]:
        """Return two vectors of each boundary, ``(rows, boundaries, hidden)``: as a start and as an end of a span.

        Their sum is the vector of a span.
        """
        layer = self.candidate_encoder
        assert layer is not None
        starts = layer.columns(read.states, 0, self.boundary_dim, layer.bias)
        return starts, layer.columns(read.states, self.boundary_dim, 2 * self.boundary_dim)

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Refuse: there are no scores of all spans.

        Raises
        ------
        ConfigError
            Always. ``find`` and ``class_scores`` score the spans that matter.
        """
        raise ConfigError(
            "components.*.model.span_rep",
            f"found {described(self)}, which scores the spans that it proposes and not all spans",
            "another span representation, such as markerV0, for ONNX export and for training",
        )


def _zeros(hidden_size: int) -> Linear:
    """Return a layer with one output that is zero before training."""
    layer = Linear(hidden_size, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


_Made = TypeVar("_Made")


def shared(vectors: Representations, name: str, make: Callable[[], _Made]) -> _Made:
    """Return what `make` makes from these vectors, made once if they hold such results."""
    if vectors.shared is None:
        return make()
    if name not in vectors.shared:
        vectors.shared[name] = make()
    made: _Made = vectors.shared[name]
    return made


def extractive(tasks: TaskVectors) -> tuple[Tensor, Tensor]:
    """Return the vectors of all fields, ``(rows, tasks * fields, hidden)``, and which are those of spans.

    The labels of classifications are not, and padding is not.
    """
    of_spans = (tasks.kinds >= 0) & (tasks.kinds != KINDS.index("classes"))
    return tasks.fields.flatten(1, 2), (tasks.mask & of_spans[..., None]).flatten(1)


def check_boundaries(span_rep: SpanRep, option: str, states: bool = False) -> None:
    """Raise a ConfigError unless a span representation proposes spans, and has vectors of them if `states` is true."""
    where, allowed = "components.*.model.span_rep", "@span_reps = boundary or boundary_pool"
    if not isinstance(span_rep, BoundarySpanRep):
        raise ConfigError(where, f"found {described(span_rep)}, of which {option} cannot read spans", allowed)
    if states and not span_rep.candidate_states:
        found = f"is false, though {option} needs vectors of spans"
        raise ConfigError(f"{where}.candidate_states", found, "candidate_states = true")


def query_mask_of(queries: Tensor) -> Tensor:
    """True for queries, false for padding, whose vectors are zero: ``(rows, queries)``."""
    return queries.ne(0).any(-1)


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
        ways = [self._best(both, marginals.starts, marginals.ends, read, forward=True)]
        if self.bidirectional_proposals:
            ways.append(self._best(both, marginals.ends, marginals.starts, read, forward=False))
        codes, totals = (torch.cat(parts, -1) for parts in zip(*ways, strict=True))
        n = read.mask.shape[1]
        codes, totals = _distinct(codes, totals, min(self.candidate_budget, n * (n - 1) // 2))
        valid = totals.isfinite() & query_mask[..., None]
        codes = codes * valid
        spans = torch.stack([codes.div(n, rounding_mode="floor"), codes % n], -1)
        totals = totals.masked_fill(~valid, 0.0)
        logits = self.pair_scorer(read, queries, marginals, spans, totals)
        return Candidates(spans, logits.masked_fill(~valid, MASKED), valid)

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
            ends = at_boundaries(both.starts, wide[..., 0]) * at_boundaries(both.ends, wide[..., 1])
            totals = (ends @ both.gates[..., None])[..., 0] + marginals.ends_of(wide)
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


def n_distinct(groups: Tensor, places: Tensor, n_places: int) -> Tensor:
    """Return the number of distinct places of each group, by its number."""
    return (groups * n_places + places).unique().div(n_places, rounding_mode="floor").bincount()


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
