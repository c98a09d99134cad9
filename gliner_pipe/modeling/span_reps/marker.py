"""The marker family of span representations: first and last word of a span, computed in factored form."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from gliner_pipe.modeling.layers.dropout import draw_kept, drawn_rate
from gliner_pipe.modeling.layers.linear import Linear, projection
from gliner_pipe.modeling.precision import HeadCopy
from gliner_pipe.modeling.span_reps.base import SpanRep, all_alike
from gliner_pipe.registry import registry


def train_scores(
    first: Tensor, last: Tensor, weight: Tensor, bias: Tensor, max_width: int, dropout: float
) -> Tensor:
    """Score all spans, with gradients.

    The same as ``dropout(relu(first + last)) @ weight + bias`` width by width, by autograd; the hidden vectors, of
    which there are ``words x widths``, are made anew on the way back instead of being kept three times over, and those
    of spans that end beyond the row are never made.

    Parameters
    ----------
    first, last
        What the first and the last word of a span put into the hidden layer, ``(rows, words, inner)``.
    weight
        ``(rows, inner, labels)``.
    bias
        ``(rows, 1, labels)``.
    max_width
        Words in the widest span.
    dropout
        Share of the hidden layer that is dropped.

    Returns
    -------
    Tensor
        ``(rows, words, widths, labels)``; zero for spans that end beyond the row.
    """
    kind = first.dtype  # one for all, also where autocast chose others
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
        # spans beyond the row have no score, so that no bias was added to theirs
        sums = [grad[:, : n_words - k, k].sum(1, keepdim=True) for k in range(len(kept))]
        to_bias = torch.stack(sums).sum(0)
        return to_first, to_last, to_weight, to_bias, None, None


#: Numbers of hidden vectors that are held at once on a CPU: 1 MiB as fp32.
NUMBERS_AT_ONCE = 1 << 18


class FactoredMarker(SpanRep):
    """Base of the markers with a two-layer network on top.

    With ``s_i`` and ``e_j`` the projections of first and last word, and ``c`` what the row as a whole says (nothing
    in the plain form), a span's vector is ``W2 relu(W1 relu([s_i; e_j; c]) + b1) + b2``. The first layer splits into
    parts, each computed once a word or once a row; the second folds into the label vectors. What is left for each
    span is one addition and one product with the labels.

    Parameters
    ----------
    max_width
        Words in the widest span.
    dropout
        Dropout of all hidden layers.
    """

    #: Vectors that are laid side by side for a span.
    n_parts: ClassVar[int] = 2

    def __init__(self, max_width: int = 12, dropout: float = 0.4) -> None:
        super().__init__()
        self.max_width = max_width
        self.dropout = dropout
        self.reduced = HeadCopy()

    def build(self, hidden_size: int) -> None:
        """Make the projections."""
        self.project_start = projection(hidden_size, hidden_size, self.dropout)
        self.project_end = projection(hidden_size, hidden_size, self.dropout)
        self.out_project = projection(self.n_parts * hidden_size, hidden_size, self.dropout)

    def context(self, words: Tensor, word_mask: Tensor) -> Tensor | None:
        """What each row as a whole adds to all its spans, ``(rows, hidden)``; None for nothing."""
        return None

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Score all spans, one width at a time."""
        first, last = self.reduced.run(self, lambda head, words: head._halves(words, word_mask), words)
        out = self._layer(3)
        weight, bias = folded(labels, out)
        width = self.max_width or 1
        if torch.onnx.is_in_onnx_export():
            return _score_in_graph(first, last, weight, bias, width)
        if not torch.is_grad_enabled():
            return _score_in_place(first, last, weight, bias, width)
        return train_scores(first, last, weight, bias, width, self._dropped)

    @property
    def _dropped(self) -> float:
        drop = self.out_project[2]
        assert isinstance(drop, nn.Dropout)
        return drop.p if drop.training else 0.0

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Vectors of chosen spans."""
        hidden = self.reduced.run(self, lambda head, words: head._hidden(words, spans, word_mask), words)
        return self._layer(3)(self.out_project[2](hidden.relu()))

    def _hidden(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """The hidden layer of chosen spans, before its rectifier."""
        starts, ends = spans.unbind(-1)
        hidden = at_places(self._of_first, words, starts) + at_places(self._of_last, words, ends)
        context = self._of_context(words, word_mask)
        return hidden if context is None else hidden + context

    def _halves(self, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the first and the last word of a span put into the hidden layer, ``(rows, words, 4 hidden)``.

        What the row as a whole puts there is in the first.
        """
        first, last = self._of_first(words), self._of_last(words)
        context = self._of_context(words, word_mask)
        return first if context is None else first + context, last

    def _of_first(self, words: Tensor) -> Tensor:
        layer = self._layer(0)
        return layer.columns(self.project_start(words).relu(), 0, words.shape[-1], layer.bias)

    def _of_last(self, words: Tensor) -> Tensor:
        size = words.shape[-1]
        return self._layer(0).columns(self.project_end(words).relu(), size, 2 * size)

    def _of_context(self, words: Tensor, word_mask: Tensor) -> Tensor | None:
        context = self.context(words, word_mask)
        if context is None:
            return None
        layer = self._layer(0)
        return layer.columns(context.relu(), 2 * words.shape[-1], layer.in_features)[:, None]

    def _layer(self, index: int) -> Linear:
        layer = self.out_project[index]
        assert isinstance(layer, Linear)
        return layer


def folded(labels: Tensor, layer: nn.Linear) -> tuple[Tensor, Tensor]:
    """Fold a layer that stands before the product with the labels into them.

    Parameters
    ----------
    labels
        ``(rows, labels, hidden)``; where all rows see one tensor, the work is done once.
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


def _score_in_graph(first: Tensor, last: Tensor, weight: Tensor, bias: Tensor, n_widths: int) -> Tensor:
    """Score all spans by steps whose number does not depend on the batch."""
    n_words = first.shape[1]
    last = F.pad(last, (0, 0, 0, n_widths - 1))
    hidden = [(first + last[:, k : k + n_words]).relu() for k in range(n_widths)]
    return torch.stack([torch.baddbmm(bias, one, weight) for one in hidden], 2)


def _score_in_place(first: Tensor, last: Tensor, weight: Tensor, bias: Tensor, n_widths: int) -> Tensor:
    """Score all spans that end in the row, without gradients.

    On a CPU some words at a time, so that their hidden vectors never leave its cache.
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


def at_places(layer: Callable[[Tensor], Tensor], words: Tensor, places: Tensor) -> Tensor:
    """Apply `layer` to the words at some places, ``(rows, places)``: to all words where these are no more than that."""
    if places.shape[1] < words.shape[1] and not torch.onnx.is_in_onnx_export():
        return layer(pick(words, places))
    return pick(layer(words), places)


def pick(vectors: Tensor, positions: Tensor) -> Tensor:
    """Take the vectors at `positions`, ``(rows, spans)``, from ``(rows, words, hidden)``."""
    return vectors.gather(1, positions[..., None].expand(-1, -1, vectors.shape[-1]))


@registry.span_reps.register("marker")
class Marker(SpanRep):
    """A span is the sum of what its first and of what its last word say; the lightest of the markers.

    With ``s_i`` and ``e_j`` the projections of first and last word, a span's vector is ``W relu([s_i; e_j]) + b``.
    There is no nonlinearity behind the sum, so that a span's score is exactly the score of its first word as a start
    plus that of its last word as an end: words are scored, spans only added up. Much faster than ``markerV0``, which
    can tell pairs of words that belong together from pairs that do not.

    Parameters
    ----------
    max_width
        Words in the widest span.
    dropout
        Dropout of all hidden layers.

    Notes
    -----
    Source: GLiNER's ``SpanMarker``; the factored form is this project's.
    """

    def __init__(self, max_width: PositiveInt = 12, dropout: float = 0.4) -> None:
        super().__init__()
        self.max_width = max_width
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Make the three projections."""
        self.project_start = self._projection(hidden_size)
        self.project_end = self._projection(hidden_size)
        self.out_project = nn.Linear(2 * hidden_size, hidden_size)

    def _projection(self, size: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(size, 2 * size), nn.ReLU(), nn.Dropout(self.dropout), nn.Linear(2 * size, size)
        )

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Score all words as start and as end, and add."""
        size, n_words, width = words.shape[-1], words.shape[1], self.max_width or 1
        to_start, to_end = (labels @ self.out_project.weight).transpose(1, 2).split(size, 1)
        bias = (labels @ self.out_project.bias)[:, None, :]
        starts = torch.baddbmm(bias, self.project_start(words).relu(), to_start)
        ends = F.pad(self.project_end(words).relu() @ to_end, (0, 0, 0, width - 1))
        return torch.stack([starts + ends[:, k : k + n_words] for k in range(width)], 2)

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Vectors of chosen spans."""
        first = at_places(self.project_start, words, spans[..., 0])
        last = at_places(self.project_end, words, spans[..., 1])
        return self.out_project(torch.cat([first, last], -1).relu())


@registry.span_reps.register("markerV0")
class MarkerV0(FactoredMarker):
    """A span is what its first and its last word say; the default of GLiNER's span models.

    With ``s_i`` and ``e_j`` the projections of first and last word, a span's vector is
    ``W2 relu(W1 relu([s_i; e_j]) + b1) + b2``. The first layer splits into a part of the first word and a part of the
    last, each computed once a word; the second folds into the label vectors. What is left for each span is one
    addition and one product with the labels: the same numbers (1e-6) at about a sixth of the time.

    Parameters
    ----------
    max_width
        Words in the widest span.
    dropout
        Dropout of all hidden layers.

    Notes
    -----
    Source: GLiNER's ``SpanMarkerV0``; the factored form is this project's.
    """

    def __init__(self, max_width: PositiveInt = 12, dropout: float = 0.4) -> None:
        super().__init__(max_width, dropout)


@registry.span_reps.register("markerV1")
class MarkerV1(FactoredMarker):
    """A span is what its first and its last word say, and what the text says on average.

    Use it for checkpoints that were trained with it; ``markerV2`` is its successor. All spans of a row share the mean,
    so it is one vector a row here and not one a span.

    Parameters
    ----------
    max_width
        Words in the widest span.
    dropout
        Dropout of all hidden layers.

    Notes
    -----
    Source: GLiNER's ``SpanMarkerV1``; the factored form is this project's. The mean is over the words of the row
    itself. GLiNER's is over the padding too, so that there a text's scores depend on the longest text of its batch;
    without padding both give the same numbers.
    """

    n_parts: ClassVar[int] = 3

    def __init__(self, max_width: PositiveInt = 12, dropout: float = 0.4) -> None:
        super().__init__(max_width, dropout)

    def build(self, hidden_size: int) -> None:
        """Make the projections."""
        super().build(hidden_size)
        # GLiNER's checkpoints hold this projection, though no span is made with it: kept so that they load and save
        # whole, frozen since it can never have a gradient.
        self.project_first = projection(hidden_size, hidden_size, self.dropout).requires_grad_(False)

    def context(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Mean of the words of each row, ``(rows, hidden)``; zeros where there are none."""
        mask = word_mask[..., None]
        return words.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp_min(1)


@registry.span_reps.register("markerV2")
class MarkerV2(FactoredMarker):
    """A span is what its first and its last word say, and what the last word of the text says.

    Use it where words see the words before them only (causal backbones): the last word has read all of the text. With
    backbones that read both ways ``markerV0`` does as well for less.

    Parameters
    ----------
    max_width
        Words in the widest span.
    dropout
        Dropout of all hidden layers.

    Notes
    -----
    Source: GLiNER's ``SpanMarkerV2``; the factored form is this project's.
    """

    n_parts: ClassVar[int] = 3

    def __init__(self, max_width: PositiveInt = 12, dropout: float = 0.4) -> None:
        super().__init__(max_width, dropout)

    def build(self, hidden_size: int) -> None:
        """Make the projections."""
        super().build(hidden_size)
        self.project_context = projection(hidden_size, hidden_size, self.dropout)

    def context(self, words: Tensor, word_mask: Tensor) -> Tensor:
        """Projection of the last word of each row, ``(rows, hidden)``; zeros where there is none."""
        positions = torch.arange(words.shape[1], device=words.device)
        last = (positions * word_mask).amax(1, keepdim=True)
        return self.project_context(pick(words, last))[:, 0] * word_mask.any(1, keepdim=True)
