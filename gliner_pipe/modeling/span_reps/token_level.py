"""The span representation ``token_level``: scores each word as start, end and inside of an entity."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.encoders.base import EncoderBatch
from gliner_pipe.modeling.layers.linear import Linear
from gliner_pipe.modeling.losses.base import Loss
from gliner_pipe.modeling.precision import HeadCopy
from gliner_pipe.modeling.span_reps.base import (
    SCORES_AT_ONCE,
    FieldSpans,
    FoundSpans,
    Representations,
    SpanRep,
    all_alike,
    by_row,
    leave_scores,
    left_scores,
    own_starts,
)
from gliner_pipe.modeling.span_reps.marker import NUMBERS_AT_ONCE, MarkerV0
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import NonNegative, Share

START, END, INSIDE = range(3)


@registry.span_reps.register("token_level")
class TokenLevel(SpanRep):
    """Scores each word as start, end and inside; an entity is a start and an end of one label, with all words inside.

    Use it for entities of any length, such as clauses and quotations: there is no maximum width.

    Parameters
    ----------
    represent_spans
        Rescore the spans found, by a vector computed from their first and last word.
    dropout
        Dropout rate of all hidden layers.
    token_loss_coef, span_loss_coef
        Weights of the word loss and, with `represent_spans`, of the span loss.
    neg_spans_ratio
        Number of random negative spans per gold span, in training with `represent_spans`.
    project_labels
        Whether label vectors pass through the model's label projection first.

    Notes
    -----
    Source: GLiNER's token models; the factored scorer is this project's.
    """

    max_width = None

    def __init__(
        self,
        represent_spans: bool = False,
        dropout: Share = 0.4,
        token_loss_coef: NonNegative = 1.0,
        span_loss_coef: NonNegative = 1.0,
        neg_spans_ratio: NonNegative = 1.0,
        project_labels: bool = False,
    ) -> None:
        super().__init__()
        self.represent_spans = represent_spans
        self.dropout = dropout
        self.token_loss_coef, self.span_loss_coef = token_loss_coef, span_loss_coef
        self.neg_spans_ratio = neg_spans_ratio
        self.project_labels = self.projects_labels = project_labels

    def build(self, hidden_size: int) -> None:
        """Create the word scorer and, if span vectors are needed, the marker that computes them."""
        self.scorer = TokenScorer(hidden_size, self.dropout)
        self.marker: MarkerV0 | None = None
        if self.represent_spans or self.needs_vectors:
            self.marker = MarkerV0(dropout=self.dropout)
            self.marker.build(hidden_size)

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Return the logits of start, end and inside of all words, ``(rows, words, labels, 3)``."""
        return self.scorer(words, labels, word_mask)

    def logits(self, vectors: Representations, word_mask: Tensor) -> Tensor:
        """Return the logits of all words; the context encoder only applies to span vectors."""
        return self.score(vectors.words, vectors.labels, word_mask)

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Compute the vectors of selected spans."""
        assert self.marker is not None
        return self.marker.represent(words, spans, word_mask)

    def find(self, vectors: Representations, windows: WindowBatch, limits: Tensor) -> FoundSpans:
        """Find the spans above their thresholds."""
        starts, ends = own_starts(windows), windows.annotated
        step = max(1, SCORES_AT_ONCE // max(3 * starts.numel(), 1))
        parts = []
        for at in range(0, vectors.labels.shape[1], step):
            labels = vectors.labels[:, at : at + step]
            probs = self.score(vectors.words, labels, windows.word_mask).sigmoid_()
            found = pair_boundaries(probs, starts, ends, windows.word_mask, limits[:, at : at + step])
            parts.append(found._replace(labels=found.labels + at))
            if step >= vectors.labels.shape[1]:
                leave_scores(vectors, probs.transpose(2, 3))
        found = FoundSpans.join(parts, limits.device)
        return self._rescored(found, vectors, windows, limits) if self.represent_spans else found

    def class_scores(self, vectors: Representations, windows: WindowBatch, spans: Tensor) -> Tensor:
        """Score chosen spans for all labels, ``(spans, labels)``: the minimum over start, end and all words inside."""
        if self.represent_spans:
            return self._span_logits(vectors, spans, windows.word_mask).sigmoid()
        rows, first, last = spans.unbind(1)
        step = max(1, SCORES_AT_ONCE // max(3 * windows.word_mask.numel(), 1))
        parts = [vectors.words.new_zeros(len(spans), 0)]
        left = left_scores(vectors)
        for at in range(0, vectors.labels.shape[1], step):
            if left is not None:
                probs = left.transpose(2, 3)
            else:
                labels = vectors.labels[:, at : at + step]
                probs = self.score(vectors.words, labels, windows.word_mask).sigmoid_()
            n_words, n_labels = probs.shape[1:3]
            inside = probs[..., INSIDE].transpose(1, 2).reshape(-1)
            block = (rows[:, None] * n_labels + torch.arange(n_labels, device=rows.device)) * n_words
            low = _range_minimum(
                inside, (block + first[:, None]).flatten(), (block + last[:, None]).flatten()
            )
            ends = torch.minimum(probs[rows, first, :, START], probs[rows, last, :, END])
            parts.append(torch.minimum(ends, low.view_as(ends)))
        return torch.cat(parts, 1)

    def _rescored(
        self, found: FoundSpans, vectors: Representations, windows: WindowBatch, limits: Tensor
    ) -> FoundSpans:
        """Rescore the distinct spans found, by their vectors."""
        spans = torch.stack([found.rows, found.starts, found.ends], 1).unique(dim=0)
        probs = self._span_logits(vectors, spans, windows.word_mask).sigmoid()
        which, names = (probs > limits[spans[:, 0]]).nonzero().unbind(1)
        rows, starts, ends = spans[which].unbind(1)
        return FoundSpans(rows, starts, ends, names, probs[which, names])

    def _span_logits(self, vectors: Representations, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Return the logits of selected spans, given as row, first and last word: ``(spans, labels)``."""
        places, listed = by_row(spans, len(word_mask))
        span_vectors = self.represent(vectors.span_words, places, word_mask)
        return torch.einsum("rsd,rcd->rsc", span_vectors, vectors.labels)[listed]

    def loss(
        self,
        vectors: Representations,
        inputs: EncoderBatch,
        gold: Tensor,
        loss: Loss,
        fields: FieldSpans | None = None,
    ) -> dict[str, Tensor]:
        """Return the word loss and, with ``represent_spans``, the span loss over gold and random spans."""
        windows = inputs.windows
        logits = self.logits(vectors, windows.word_mask).transpose(2, 3)
        targets = torch.zeros_like(logits, dtype=torch.bool)
        rows, first, width, name = gold.unbind(1)
        targets[rows, first, START, name] = True
        targets[rows, first + width, END, name] = True
        position = torch.arange(logits.shape[1], device=logits.device)
        inside = (position >= first[:, None]) & (position <= (first + width)[:, None])
        which, word = inside.nonzero().unbind(1)
        targets[rows[which], word, INSIDE, name[which]] = True
        words = windows.word_mask if windows.unknown is None else windows.word_mask & ~windows.unknown
        mask = words[:, :, None, None] & inputs.label_mask[:, None, None, :]
        parts = {"token": self.token_loss_coef * loss(logits, targets, mask)}
        if self.represent_spans:
            parts["span"] = self.span_loss_coef * self._span_loss(vectors, inputs, gold, loss)
        return parts

    def _span_loss(self, vectors: Representations, inputs: EncoderBatch, gold: Tensor, loss: Loss) -> Tensor:
        if not len(gold):
            return vectors.span_words.sum() * 0.0
        row, first, width, name = gold.unbind(1)
        positive = torch.stack([row, first, first + width], 1)
        spans = torch.cat([positive, self._random_spans(positive, inputs.windows.word_mask)]).unique(dim=0)
        logits = self._span_logits(vectors, spans, inputs.windows.word_mask)
        at, which = (spans[:, None] == positive).all(2).nonzero().unbind(1)
        targets = torch.zeros_like(logits, dtype=torch.bool)
        targets[at, name[which]] = True
        mask = inputs.label_mask[spans[:, 0]]
        if inputs.windows.unknown is not None:
            row, ends = spans[:, :1], spans[:, 1:]
            mask = mask & ~inputs.windows.unknown[row, ends].any(1)[:, None]
        return loss(logits[:, None, None], targets[:, None, None], mask[:, None, None])

    def _random_spans(self, positive: Tensor, word_mask: Tensor) -> Tensor:
        """Draw spans as wide as gold ones, at random positions of the same rows: row, first and last word."""
        n_spans = int(len(positive) * self.neg_spans_ratio)
        drawn = torch.randint(len(positive), (n_spans,), device=positive.device)
        rows, first, last = positive[drawn].unbind(1)
        lengths = word_mask.sum(1)[rows]
        start = (torch.rand(n_spans, device=rows.device) * (lengths - (last - first))).long()
        return torch.stack([rows, start, start + last - first], 1)

    def count(self, inputs: EncoderBatch) -> float:
        """Return words times labels, the number of elements in the word loss."""
        return float((inputs.windows.word_mask.sum(1) * inputs.label_mask.sum(1)).sum())


class TokenScorer(nn.Module):
    """Scores each word as start, end and inside of an entity of each label.

    With the halves ``t0, t1`` of a projected word and ``l0, l1`` of a projected label, the scores are a two-layer
    network over ``[t0; l0; t1 * l1]``. The first layer is applied to the three parts separately, the first two once per
    word and once per label, so the concatenated vector is never built.

    Parameters
    ----------
    hidden_size
        Width of word and label vectors.
    dropout
        Dropout rate of the hidden layer.
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.proj_token = Linear(hidden_size, 2 * hidden_size)
        self.proj_label = Linear(hidden_size, 2 * hidden_size)
        self.out_mlp = nn.Sequential(
            Linear(3 * hidden_size, 4 * hidden_size),
            nn.Dropout(dropout),
            nn.ReLU(),
            Linear(4 * hidden_size, 3),
        )
        self.reduced = HeadCopy()

    def forward(self, words: Tensor, labels: Tensor, word_mask: Tensor | None = None) -> Tensor:
        """Return logits of start, end and inside, ``(rows, words, labels, 3)``.

        Parameters
        ----------
        words, labels
            ``(rows, words, hidden)`` and ``(rows, labels, hidden)``.
        word_mask
            True for words, ``(rows, words)``. Without gradients, padding is skipped and gets zeros.
        """
        if not torch.is_grad_enabled():
            logits: Tensor = self.reduced.run(
                self, lambda head, *vectors: head._score_words(*vectors, word_mask), words, labels
            )
            return logits
        (by_word, word_mix), (by_label, label_mix) = self._of_words(words), self._of_labels(labels)
        mix, last = self._mix(), self._layers()[1]
        scores = []
        for index in range(labels.shape[1]):
            hidden = F.linear(word_mix * label_mix[:, index, None], mix) + by_word + by_label[:, index, None]
            scores.append(last(self.out_mlp[1](hidden).relu()))
        return torch.stack(scores, 2) if scores else words.new_zeros(*words.shape[:2], 0, 3)

    def _score_words(self, words: Tensor, labels: Tensor, word_mask: Tensor | None) -> Tensor:
        """Score the words that are not padding; on a CPU in blocks, so that hidden vectors stay in the cache."""
        size, n_labels = words.shape[-1], labels.shape[1]
        mask = words.new_ones(words.shape[:2], dtype=torch.bool) if word_mask is None else word_mask
        shared = len(labels) > 0 and all_alike(labels)
        by_label, label_mix = self._of_labels(labels[:1] if shared else labels)
        mix, last = self._mix().T, self._layers()[1]
        rows, unpadded = mask.nonzero()[:, 0], words[mask]
        step = max(1, NUMBERS_AT_ONCE // (4 * size)) if words.device.type == "cpu" else max(1, len(unpadded))
        # filled in place: small tensors allocated between large ones fragment the memory
        scores = words.new_zeros(*mask.shape, n_labels, 3)
        found = words.new_empty(len(unpadded), n_labels, 3)
        for at in range(0, len(unpadded), step):
            some = slice(at, at + step)
            row = 0 if shared else rows[some]
            by_word, word_mix = self._of_words(unpadded[some])
            for index in range(n_labels):
                hidden = torch.addmm(by_word, word_mix * label_mix[row, index], mix)
                found[some, index] = last(hidden.add_(by_label[row, index]).relu_())
        scores[mask] = found
        return scores

    def _of_words(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden-layer part of words alone, and the half that is multiplied with labels."""
        part, mix = self.proj_token(words).split(words.shape[-1], -1)
        first = self._layers()[0]
        return F.linear(part, first.weight[:, : part.shape[-1]], first.bias), mix

    def _of_labels(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden-layer part of labels alone, and the half that is multiplied with words."""
        size = labels.shape[-1]
        part, mix = self.proj_label(labels).split(size, -1)
        return F.linear(part, self._layers()[0].weight[:, size : 2 * size]), mix

    def _mix(self) -> Tensor:
        """Return the hidden-layer weights of the word-label products, ``(4 hidden, hidden)``."""
        weight = self._layers()[0].weight
        return weight[:, 2 * weight.shape[1] // 3 :]

    def _layers(self) -> tuple[Linear, Linear]:
        first, last = self.out_mlp[0], self.out_mlp[3]
        assert isinstance(first, Linear) and isinstance(last, Linear)
        return first, last


def pair_boundaries(
    probs: Tensor, may_start: Tensor, may_end: Tensor, word_mask: Tensor, limits: Tensor
) -> FoundSpans:
    """Pair each start with each end of the same label for which all words between are inside.

    Parameters
    ----------
    probs
        Probabilities of start, end and inside, ``(rows, words, labels, 3)``.
    may_start, may_end, word_mask
        Words at which a span may start and end, and all words, ``(rows, words)``.
    limits
        Thresholds, ``(rows, labels)``: start and end must be above, all words from start to end not below.

    Returns
    -------
    FoundSpans
        Ordered by row, label, start and end. A span's score is the minimum of its start, end and inside scores.

    Notes
    -----
    Time grows with the number of spans found: words are laid out label by label, the ends that a start can reach are a
    slice of the sorted ends, and the minimum inside score of a span is read from tables over runs of 1, 2, 4 ... words.
    """
    n_rows, n_words, n_labels, _ = probs.shape
    by_label = probs.permute(3, 0, 2, 1)  # (3, rows, labels, words)
    start, end, inside = (by_label[kind].reshape(-1) for kind in range(3))
    limit = limits[:, :, None].expand(n_rows, n_labels, n_words).reshape(-1)

    def by_label_mask(mask: Tensor) -> Tensor:
        return mask[:, None].expand(n_rows, n_labels, n_words).reshape(-1)

    starts = ((start > limit) & by_label_mask(may_start)).nonzero()[:, 0]
    ends = ((end > limit) & by_label_mask(may_end)).nonzero()[:, 0]
    reach = _reach((inside >= limit) & by_label_mask(word_mask), n_words)[starts]
    low = torch.searchsorted(ends, starts)
    n_ends = (torch.searchsorted(ends, reach) - low).clamp(min=0)
    first = starts.repeat_interleave(n_ends)
    offset = torch.arange(len(first), device=probs.device)
    offset = offset - (n_ends.cumsum(0) - n_ends).repeat_interleave(n_ends)
    last = ends[low.repeat_interleave(n_ends) + offset]
    scores = torch.minimum(torch.minimum(start[first], end[last]), _range_minimum(inside, first, last))
    block = first // n_words
    return FoundSpans(block // n_labels, first % n_words, last % n_words, block % n_labels, scores)


def _reach(inside: Tensor, n_words: int) -> Tensor:
    """For each position, the first at or after it that is not inside or lies in the next block of words."""
    places = torch.arange(len(inside), device=inside.device)
    block_end = (places // max(n_words, 1) + 1) * n_words
    outside = torch.where(inside, len(inside), places)
    following = outside.flip(0).cummin(0).values.flip(0) if len(inside) else outside
    return torch.minimum(following, block_end)


def _range_minimum(values: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Return the minimum of ``values[first..last]`` for each pair."""
    result = values.new_full((len(first),), torch.inf)
    if not len(first):
        return result
    level = (last - first + 1).float().log2().floor().long()
    table = values
    for power in range(int(level.max()) + 1):
        if power:
            half = 1 << (power - 1)
            table = torch.minimum(table[:-half], table[half:])
        here = level == power
        result[here] = torch.minimum(table[first[here]], table[last[here] - (1 << power) + 1])
    return result
