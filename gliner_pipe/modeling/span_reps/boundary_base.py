"""Base class of the boundary family of span representations: a span is a start boundary and an end boundary."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.block import check_divides, described
from gliner_pipe.modeling.encoders.base import EncoderBatch, TaskVectors
from gliner_pipe.modeling.layers.linear import Linear
from gliner_pipe.modeling.losses.base import Loss
from gliner_pipe.modeling.precision import HeadCopy
from gliner_pipe.modeling.span_reps.base import (
    FieldSpans,
    FoundSpans,
    Representations,
    SpanRep,
    by_row,
    own_starts,
)
from gliner_pipe.modeling.span_reps.boundary_states import (
    Boundaries,
    BoundaryEncoder,
    BoundaryScorer,
    at_boundaries,
)
from gliner_pipe.modeling.span_reps.boundary_training import (
    LOSS_OPTIONS,
    Known,
    Proposed,
    absence_loss,
    count_loss,
    losses,
    padded,
)
from gliner_pipe.modeling.tasks import KINDS
from gliner_pipe.util.ranges import Amount, Layers, Multiple, Positive, Share, Size

logger = logging.getLogger(__name__)

_Self = TypeVar("_Self", bound="BoundarySpanRep")


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
    loss_options
        Options of the training in place of the defaults. ``hard_negatives_per_positive`` (5) and
        ``minimum_hard_negatives`` (8): how many wrong spans of a label in a window count, those with the best scores.
        ``proposal_loss_weight`` (0.3) and ``rerank_listwise_weight`` (0.3): weights of the choice of the right spans
        among all, by the scores by which spans are proposed and by the final ones. ``consistency_loss_weight`` (0.1):
        of the agreement of spans and boundaries. ``abstention_loss_weight`` (0.2) and ``count_loss_weight`` (0.2): of
        the absence and of the number of spans.

    Notes
    -----
    Source: the boundary architecture of GLiNER2.5.
    """

    max_width = None
    projects_labels = False
    teaches_fields = True
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
        loss_options: dict[str, float] | None = None,
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
        self.loss_options = loss_options
        self.of_loss = _with_defaults(loss_options or {})
        self.reduced = HeadCopy()
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
    def proposed(
        self, read: Boundaries, queries: Tensor, query_mask: Tensor, forced: Tensor, forced_mask: Tensor
    ) -> Proposed:
        """Propose spans in addition to given ones, and score all of them, for training.

        Parameters
        ----------
        read, queries, query_mask
            As in ``candidates``.
        forced, forced_mask
            First and last boundary of spans of each query, ``(rows, queries, spans, 2)``, and which are not padding.
            They are never left out, whatever the budgets.
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

    @staticmethod
    def trained_fields(vectors: Representations) -> Candidates:
        """Return the candidates of the fields of all tasks that the loss was computed of."""
        assert vectors.shared is not None
        found: Candidates = vectors.shared["trained"]
        return found

    def current(self: _Self) -> _Self:
        """Return the block to use: itself, or without gradients its copy in the precision of the component."""
        found: _Self = self.reduced.of(self)
        return found

    # -- the contract ------------------------------------------------------------------------------------------------

    def find(self, vectors: Representations, windows: WindowBatch, limits: Tensor) -> FoundSpans:
        """Find the spans above their thresholds among those proposed."""
        parts, head = [], self.current()
        for at, some in head.in_blocks(vectors, windows):
            stop = at + some.logits.shape[1]
            found = head._above(some, vectors.labels[:, at:stop], limits[:, at:stop])
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
            layer = self.null_projection
            nothing = layer(labels.to(layer.weight.dtype)).float().sigmoid()
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
            layer = self.count_head
            counts = layer(queries.to(layer.weight.dtype)).float().exp().round()
            ranked = probs.masked_fill(~valid, -1).argsort(dim=-1, descending=True, stable=True)
            keep |= ranked.argsort(-1) < counts
        return probs, keep & valid & limits.isfinite()[..., None]

    def loss(
        self,
        vectors: Representations,
        inputs: EncoderBatch,
        gold: Tensor,
        loss: Loss,
        fields: FieldSpans | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch, as named sums: of boundaries, of spans, and of the absence and number of spans.

        It covers the labels and, in the same pool, the fields of tasks. All gold spans are scored, also those that are
        not proposed. The candidates of the fields are shared with the finders.
        """
        windows, n_labels = inputs.windows, vectors.labels.shape[1]
        read = self.read(vectors, windows)
        queries, outside = vectors.labels, None if fields is None else fields.outside
        known = Known.of_labels(read, windows, inputs.label_mask, outside)
        forced = gold
        if fields is not None and vectors.tasks is not None:
            of_fields, field_mask = extractive(vectors.tasks)
            queries = torch.cat([queries, of_fields], 1)
            known = known.joined(Known.of_fields(read, field_mask, fields.unnamed))
            shift = torch.tensor([0, 0, 0, n_labels], device=gold.device)
            gold = torch.cat([gold, fields.gold + shift])
            forced = torch.cat([gold, fields.choices + shift])
        if not queries.shape[1]:
            return {"span": read.states.sum() * 0.0}
        shape = queries.shape[:2]
        places, mask = padded(gold, *shape)
        some = self.proposed(read, queries, known.queries, *padded(forced, *shape))
        if vectors.shared is not None and vectors.tasks is not None:
            vectors.shared["trained"] = Candidates(
                *(part[:, n_labels:] for part in (some.spans, some.logits, some.valid))
            )
        parts = losses(some, places, mask, known, loss, self.shares_spans, self.of_loss)
        if self.null_projection is not None:
            absence = absence_loss(self.null_projection(queries)[..., 0], mask, known)
            parts["abstention"] = self.of_loss["abstention_loss_weight"] * absence
        if self.count_head is not None:
            number = count_loss(self.count_head(queries)[..., 0], mask, known)
            parts["span_count"] = self.of_loss["count_loss_weight"] * number
        return parts

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
        head = self.current()
        read = head.read(vectors, windows)
        places, (rows, order) = by_row(spans, len(windows.word_mask))
        valid = torch.zeros(places.shape[:2], dtype=torch.bool, device=places.device)
        valid[rows, order] = True
        places = places + torch.tensor([0, 1], device=places.device) * valid[..., None]
        queries, query_mask = head.seen_with_labels(vectors)
        logits = head.given(read, queries, query_mask, places, valid)[:, : vectors.labels.shape[1]]
        return (logits.transpose(1, 2)[rows, order].float() / self.pair_temperature).sigmoid()

    def seen_with_labels(self, vectors: Representations) -> tuple[Tensor, Tensor]:
        """Return the queries that scores of labels depend on, labels first, and which are not padding."""
        return vectors.labels, query_mask_of(vectors.labels)

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Compute the vectors of selected spans, from the vectors of their two boundaries."""
        head = self.current()
        starts, ends = head.halves(head.boundary_encoder(words, word_mask))
        found = at_boundaries(starts, spans[..., 0]) + at_boundaries(ends, spans[..., 1] + 1)
        return found.to(words.dtype)

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
            "another span representation, such as markerV0, for ONNX export",
        )


def _with_defaults(options: Mapping[str, float]) -> dict[str, float]:
    """Return all options of the training.

    Raises
    ------
    ConfigError
        If one is unknown or negative.
    """
    for name, value in options.items():
        where = f"components.*.model.span_rep.loss_options.{name}"
        if name not in LOSS_OPTIONS:
            raise ConfigError(where, "is no option of the training", ", ".join(LOSS_OPTIONS))
        if value < 0:
            raise ConfigError(where, f"found {value:g}", "a number from 0 on")
    return {**LOSS_OPTIONS, **options}


def with_forced(
    spans: Tensor, valid: Tensor, forced: Tensor, forced_mask: Tensor, most: int
) -> tuple[Tensor, Tensor]:
    """Put spans first, and drop them from the others, and the last ones if there are too many.

    Parameters
    ----------
    spans, valid
        First and last boundary of the spans, the best first, ``(..., spans, 2)``, and which are not padding.
    forced, forced_mask
        The same of those to put first.
    most
        Most spans; those put first are never dropped.
    """
    twice = (spans[..., :, None, :] == forced[..., None, :, :]).all(-1) & forced_mask[..., None, :]
    rest = valid & ~twice.any(-1)
    rest = rest & (rest.cumsum(-1) <= most - forced_mask.sum(-1, keepdim=True))
    forced = forced * forced_mask[..., None]
    return torch.cat([forced, spans * rest[..., None]], -2), torch.cat([forced_mask, rest], -1)


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


def n_distinct(groups: Tensor, places: Tensor, n_places: int) -> Tensor:
    """Return the number of distinct places of each group, by its number."""
    return (groups * n_places + places).unique().div(n_places, rounding_mode="floor").bincount()


def rank_in_group(groups: Tensor, places: Tensor, n_places: int) -> Tensor:
    """Return the rank of each place among the distinct places of its group, by their numbers."""
    codes, which = (groups * n_places + places).unique(return_inverse=True)
    group = codes.div(n_places, rounding_mode="floor")
    rank = torch.arange(len(codes), device=codes.device) - torch.searchsorted(group, group)
    return rank[which]
