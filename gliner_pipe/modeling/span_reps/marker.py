"""The marker family of span representations: first and last word of a span, computed in factored form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.layers.dropout import draw_kept, drawn_rate
from gliner_pipe.modeling.layers.linear import Linear, projection, without_padding
from gliner_pipe.modeling.precision import HeadCopy
from gliner_pipe.modeling.span_reps.base import SpanRep, all_alike
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Share, Size

#: Maximum number of hidden activations held at once on a CPU, so that they stay in its cache: 1 MiB in fp32.
NUMBERS_AT_ONCE = 1 << 18


class MarkerSpanRep(SpanRep):
    """Scores a span by its first and last word: the parameters that all markers share.

    Parameters
    ----------
    max_width
        Maximum span width in words.
    dropout
        Dropout rate of all hidden layers.
    """

    def __init__(self, max_width: Size = 12, dropout: Share = 0.4) -> None:
        super().__init__()
        self.max_width: int = max_width
        self.dropout = dropout


class FactoredMarker(MarkerSpanRep):
    """Base class of the markers with a two-layer network on top.

    With ``s_i`` and ``e_j`` the projections of first and last word and ``c`` an optional context vector of the row, a
    span vector is ``W2 relu(W1 relu([s_i; e_j; c]) + b1) + b2``. The first layer splits into parts, each computed once
    per word or once per row; the second is folded into the label vectors. One addition and one product with the labels
    remain for each span.
    """

    #: Number of vectors that are concatenated for a span.
    n_parts: ClassVar[int] = 2

    def __init__(self, max_width: Size = 12, dropout: Share = 0.4) -> None:
        super().__init__(max_width, dropout)
        self.reduced = HeadCopy()

    def build(self, hidden_size: int) -> None:
        """Create the projections."""
        self.project_start = projection(hidden_size, hidden_size, self.dropout)
        self.project_end = projection(hidden_size, hidden_size, self.dropout)
        self.out_project = projection(self.n_parts * hidden_size, hidden_size, self.dropout)

    def context(self, words: Tensor, word_mask: Tensor) -> Tensor | None:
        """Return the context vector of each row, ``(rows, hidden)``; None if there is none."""
        return None

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Score all spans, one width at a time."""
        first, last = self.reduced.run(self, lambda head, words: head._halves(words, word_mask), words)
        weight, bias = folded(labels, self._layer(3))
        width = self.max_width
        if torch.onnx.is_in_onnx_export():
            return _scores_in_graph(first, last, weight, bias, width)
        if not torch.is_grad_enabled():
            return _scores_in_place(first, last, weight, bias, width)
        drop = self.out_project[2]
        assert isinstance(drop, nn.Dropout)
        return train_scores(first, last, weight, bias, width, drop.p if drop.training else 0.0)

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Compute the vectors of selected spans."""
        hidden = self.reduced.run(self, lambda head, words: head._hidden(words, spans, word_mask), words)
        return self._layer(3)(self.out_project[2](hidden.relu()))

    def _hidden(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Return the hidden layer of selected spans, before its activation."""
        starts, ends = spans.unbind(-1)
        hidden = at_places(self._first_part, words, starts) + at_places(self._last_part, words, ends)
        context = self._context_part(words, word_mask)
        return hidden if context is None else hidden + context

    def _halves(self, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the hidden-layer parts of first and last word, ``(rows, words, 4 hidden)``.

        The part of the row's context is added to that of the first word.
        """
        first, last = without_padding([self._first_part, self._last_part], words, word_mask)
        context = self._context_part(words, word_mask)
        return first if context is None else first + context, last

    def _first_part(self, words: Tensor) -> Tensor:
        layer = self._layer(0)
        return layer.columns(self.project_start(words).relu(), 0, words.shape[-1], layer.bias)

    def _last_part(self, words: Tensor) -> Tensor:
        size = words.shape[-1]
        return self._layer(0).columns(self.project_end(words).relu(), size, 2 * size)

    def _context_part(self, words: Tensor, word_mask: Tensor) -> Tensor | None:
        context = self.context(words, word_mask)
        if context is None:
            return None
        layer = self._layer(0)
        return layer.columns(context.relu(), 2 * words.shape[-1], layer.in_features)[:, None]

    def _layer(self, index: int) -> Linear:
        layer = self.out_project[index]
        assert isinstance(layer, Linear)
        return layer


@registry.span_reps.register("markerV0")
class MarkerV0(FactoredMarker):
    """First and last word of the span through a two-layer network; the default of GLiNER's span models.

    With ``s_i`` and ``e_j`` the projections of first and last word, a span vector is
    ``W2 relu(W1 relu([s_i; e_j]) + b1) + b2``. Computed in factored form, the results are the same (within 1e-6) in
    about a sixth of the time.

    Notes
    -----
    Source: GLiNER's ``SpanMarkerV0``; the factored form is this project's.
    """


@registry.span_reps.register("markerV1")
class MarkerV1(FactoredMarker):
    """First word, last word, and the mean of all words of the text.

    Use it for checkpoints trained with it; ``markerV2`` is its successor. The mean is computed once per row, since all
    spans of a row share it.

    Notes
    -----
    Source: GLiNER's ``SpanMarkerV1``; the factored form is this project's. The mean excludes padding. GLiNER's includes
    it, so that there a text's scores depend on the longest text of its batch; without padding the results are equal.
    """

    n_parts: ClassVar[int] = 3
    reads_row = looks_ahead = True

    def build(self, hidden_size: int) -> None:
        """Create the projections."""
        super().build(hidden_size)
        # unused, but part of GLiNER's checkpoints: kept so that they load and save completely, frozen since it never
        # has a gradient
        self.project_first = projection(hidden_size, hidden_size, self.dropout).requires_grad_(False)

    def context(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Return the mean of the words of each row, ``(rows, hidden)``; zeros for a row without words."""
        mask = word_mask[..., None]
        return words.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp_min(1)


@registry.span_reps.register("markerV2")
class MarkerV2(FactoredMarker):
    """First word and last word of the span, and the last word of the text.

    Use it with causal backbones, where a word only sees the words before it: the last word has seen the whole text.
    With bidirectional backbones ``markerV0`` is as accurate and cheaper.

    Notes
    -----
    Source: GLiNER's ``SpanMarkerV2``; the factored form is this project's.
    """

    n_parts: ClassVar[int] = 3
    looks_ahead = True

    def build(self, hidden_size: int) -> None:
        """Create the projections."""
        super().build(hidden_size)
        self.project_context = projection(hidden_size, hidden_size, self.dropout)

    def context(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Return the projected last word of each row, ``(rows, hidden)``; zeros for a row without words."""
        positions = torch.arange(words.shape[1], device=words.device)
        last = (positions * word_mask).amax(1, keepdim=True)
        return self.project_context(pick(words, last))[:, 0] * word_mask.any(1, keepdim=True)


@registry.span_reps.register("marker")
class Marker(MarkerSpanRep):
    """The sum of a start score of the first word and an end score of the last word; the fastest marker.

    With ``s_i`` and ``e_j`` the projections of first and last word, a span vector is ``W relu([s_i; e_j]) + b``. No
    nonlinearity follows the sum, so a span's score is exactly the start score of its first word plus the end score of
    its last word. Much faster than ``markerV0``, which also models how first and last word fit together.

    Notes
    -----
    Source: GLiNER's ``SpanMarker``; the factored form is this project's.
    """

    def build(self, hidden_size: int) -> None:
        """Create the three projections."""
        self.project_start = self._projection(hidden_size)
        self.project_end = self._projection(hidden_size)
        self.out_project = nn.Linear(2 * hidden_size, hidden_size)

    def _projection(self, size: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(size, 2 * size), nn.ReLU(), nn.Dropout(self.dropout), nn.Linear(2 * size, size)
        )

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Score all words as start and as end, and add the two scores of each span."""
        size, n_words, width = words.shape[-1], words.shape[1], self.max_width
        to_start, to_end = (labels @ self.out_project.weight).transpose(1, 2).split(size, 1)
        bias = (labels @ self.out_project.bias)[:, None, :]
        starts = torch.baddbmm(bias, self.project_start(words).relu(), to_start)
        ends = F.pad(self.project_end(words).relu() @ to_end, (0, 0, 0, width - 1))
        return torch.stack([starts + ends[:, k : k + n_words] for k in range(width)], 2)

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Compute the vectors of selected spans."""
        first = at_places(self.project_start, words, spans[..., 0])
        last = at_places(self.project_end, words, spans[..., 1])
        return self.out_project(torch.cat([first, last], -1).relu())


def folded(labels: Tensor, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Fold the last linear layer of the span vectors into the label vectors.

    Parameters
    ----------
    labels
        ``(rows, labels, hidden)``; computed once if all rows share one tensor.
    layer
        From ``inner`` to ``hidden``.

    Returns
    -------
    (Tensor, Tensor)
        Weight ``(rows, inner, labels)`` and bias ``(rows, 1, labels)``.
    """
    rows = labels.shape[0]
    if all_alike(labels):
        labels = labels[:1]
    weight = (labels @ layer.weight).transpose(1, 2)
    bias = (labels @ layer.bias)[:, None, :]
    return weight.expand(rows, -1, -1), bias.expand(rows, -1, -1)


def _scores_in_graph(first: Tensor, last: Tensor, weight: Tensor, bias: Tensor, n_widths: int) -> Tensor:
    """Score all spans by a number of steps that does not depend on the batch, for ONNX export."""
    n_words = first.shape[1]
    last = F.pad(last, (0, 0, 0, n_widths - 1))
    hidden = [(first + last[:, k : k + n_words]).relu() for k in range(n_widths)]
    return torch.stack([torch.baddbmm(bias, one, weight) for one in hidden], 2)


def _scores_in_place(first: Tensor, last: Tensor, weight: Tensor, bias: Tensor, n_widths: int) -> Tensor:
    """Score all spans that end inside the row, without gradients.

    On a CPU, blocks of words are processed one at a time, so that their hidden vectors stay in the cache.
    """
    rows, n_words, size = first.shape
    scores = first.new_zeros(rows, n_words, n_widths, weight.shape[2])
    on_cpu = first.device.type == "cpu"
    n_rows = max(1, NUMBERS_AT_ONCE // (size * n_words)) if on_cpu else rows
    step = min(n_words, max(1, NUMBERS_AT_ONCE // size)) if on_cpu else n_words
    buffer = first.new_empty(min(rows, n_rows) * step * size)
    for top in range(0, rows, n_rows):
        some = slice(top, min(rows, top + n_rows))
        for at in range(0, n_words, step):
            for k in range(min(n_widths, n_words - at)):
                stop = min(at + step, n_words - k)
                shape = (some.stop - some.start, stop - at, size)
                hidden = buffer[: math.prod(shape)].view(shape)
                torch.add(first[some, at:stop], last[some, at + k : stop + k], out=hidden).relu_()
                scores[some, at:stop, k] = torch.baddbmm(bias[some], hidden, weight[some])
    return scores


def train_scores(
    first: Tensor, last: Tensor, weight: Tensor, bias: Tensor, max_width: int, dropout: float
) -> Tensor:
    """Score all spans, with gradients.

    Equals ``dropout(relu(first + last)) @ weight + bias`` width by width. The ``words x widths`` hidden vectors are
    recomputed in the backward pass, where autograd would keep three copies; those of spans that end beyond the row are
    never computed.

    Parameters
    ----------
    first, last
        Hidden-layer parts of first and last word, ``(rows, words, inner)``.
    weight
        ``(rows, inner, labels)``.
    bias
        ``(rows, 1, labels)``.
    max_width
        Maximum span width in words.
    dropout
        Dropout rate of the hidden layer.

    Returns
    -------
    Tensor
        ``(rows, words, widths, labels)``; zero for spans that end beyond the row.
    """
    kind = first.dtype  # autocast may have chosen different dtypes
    scores: Tensor = _Scores.apply(first, last.to(kind), weight.to(kind), bias.to(kind), max_width, dropout)
    return scores


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, first: Tensor, last: Tensor, weight: Tensor, bias: Tensor, max_width: int, dropout: float
    ) -> Tensor:
        rows, n_words, _ = first.shape
        scores = first.new_zeros(rows, n_words, max_width, weight.shape[2])
        kept, rate = [], drawn_rate(dropout)
        scaled = weight / (1 - rate) if rate < 1 else weight * 0.0
        for k in range(min(max_width, n_words)):
            hidden = first[:, : n_words - k] + last[:, k:]
            alive = hidden > 0
            if rate > 0:
                alive &= draw_kept(hidden, rate)
            hidden *= alive
            torch.baddbmm(bias, hidden, scaled, out=scores[:, : n_words - k, k])
            kept.append(alive)
        ctx.save_for_backward(first, last, scaled, *kept)
        ctx.rate = rate
        return scores

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        first, last, scaled, *kept = ctx.saved_tensors
        n_words = first.shape[1]
        to_first, to_last = torch.zeros_like(first), torch.zeros_like(last)
        to_weight = torch.zeros_like(scaled)
        back = scaled.transpose(1, 2)
        for k, alive in enumerate(kept):
            outer = grad[:, : n_words - k, k]
            hidden = (first[:, : n_words - k] + last[:, k:]).mul_(alive)
            to_weight.baddbmm_(hidden.transpose(1, 2), outer)
            inner = torch.bmm(outer, back).mul_(alive)
            to_first[:, : n_words - k] += inner
            to_last[:, k:] += inner
        to_weight *= 1 / (1 - ctx.rate) if ctx.rate < 1 else 0.0
        # spans that end beyond the row have no score, hence no bias
        sums = [grad[:, : n_words - k, k].sum(1, keepdim=True) for k in range(len(kept))]
        to_bias = torch.stack(sums).sum(0)
        return to_first, to_last, to_weight, to_bias, None, None


def at_places(layer: Callable[[Tensor], Tensor], words: Tensor, places: Tensor) -> Tensor:
    """Apply `layer` to the words at `places`, ``(rows, places)``, or to all words first where that is cheaper."""
    if places.shape[1] < words.shape[1] and not torch.onnx.is_in_onnx_export():
        return layer(pick(words, places))
    return pick(layer(words), places)


def pick(vectors: Tensor, positions: Tensor) -> Tensor:
    """Select the vectors at `positions`, ``(rows, spans)``, from ``(rows, words, hidden)``."""
    return vectors.gather(1, positions[..., None].expand(-1, -1, vectors.shape[-1]))
