"""Vectors and scores of the boundaries between words, which the boundary family of span representations starts from."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.layers.linear import Linear

#: Logit of what may not be chosen: finite, also in fp16, and smaller than any score.
MASKED = -1e4


class Boundaries(NamedTuple):
    """The boundaries of a batch of windows: boundary ``i`` lies before word ``i``, the last one behind the last word.

    Attributes
    ----------
    states
        Vectors, ``(rows, words + 1, size)``; zero beyond the window.
    mask
        True for the boundaries of the window, ``(rows, words + 1)``.
    words
        Vectors of the words, ``(rows, words, hidden)``; zero for padding.
    word_mask
        False for padding, ``(rows, words)``.
    lengths
        Number of words of each window, ``(rows,)``.
    """

    states: Tensor
    mask: Tensor
    words: Tensor
    word_mask: Tensor
    lengths: Tensor


class Marginals(NamedTuple):
    """How well each boundary starts or ends a span of each query, and each word lies inside one.

    Attributes
    ----------
    starts, ends
        Logits of boundaries, ``(rows, queries, words + 1)``; ``MASKED`` beyond the window.
    inside
        Running sum of the logits of the words less their mean, ``(rows, queries, words + 1)``, in fp32.
    inside_mean
        The mean, ``(rows, queries, 1)``: without it, the running sum of a long text would lose digits.
    """

    starts: Tensor
    ends: Tensor
    inside: Tensor
    inside_mean: Tensor

    def ends_of(self, spans: Tensor) -> Tensor:
        """Sum of the start logit and the end logit of spans, ``(rows, queries, spans)``; see ``inside_of``."""
        return self.starts.gather(2, spans[..., 0]) + self.ends.gather(2, spans[..., 1])

    def inside_of(self, spans: Tensor) -> Tensor:
        """Sum of the word logits of spans over the root of their width.

        Parameters
        ----------
        spans
            First and last boundary, ``(rows, queries, spans, 2)``.

        Returns
        -------
        Tensor
            ``(rows, queries, spans)``, in fp32.
        """
        starts, ends = spans.unbind(-1)
        width = (ends - starts).clamp(min=1)
        total = self.inside.gather(2, ends) - self.inside.gather(2, starts) + self.inside_mean * width
        return total * width.rsqrt()


class SwiGLU(nn.Module):
    """A gated feed-forward layer with a residual connection: ``x + W(v * silu(g))`` with ``v, g`` of the normed input.

    Parameters
    ----------
    size
        Width of the vectors.
    multiplier
        Hidden width, as a multiple of `size`.
    dropout
        Dropout rate.

    Notes
    -----
    Source: Shazeer (2020), arXiv:2002.05202.
    """

    def __init__(self, size: int, multiplier: float, dropout: float) -> None:
        super().__init__()
        hidden = max(1, int(size * multiplier))
        self.norm = nn.LayerNorm(size)
        self.input_projection = Linear(size, 2 * hidden)
        self.output_projection = Linear(hidden, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """Map ``(..., size)`` to the same shape."""
        value, gate = self.input_projection(self.norm(states)).chunk(2, -1)
        update: Tensor = self.output_projection(self.dropout(value * F.silu(gate)))
        return states + self.dropout(update)


class BoundaryAttention(nn.Module):
    """Self-attention between the boundaries of a window, with a residual connection.

    Parameters
    ----------
    size
        Width of the vectors.
    heads
        Number of attention heads.
    window
        Largest distance of two boundaries that see each other; 0 for no limit.
    dropout
        Dropout rate.
    """

    def __init__(self, size: int, heads: int, window: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(size)
        self.qkv_projection = Linear(size, 3 * size)
        self.output_projection = Linear(size, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Map ``(rows, boundaries, size)`` to the same shape; `mask` is false for padding."""
        rows, n, size = states.shape
        qkv = self.qkv_projection(self.norm(states)).view(rows, n, 3, self.heads, size // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        place = torch.arange(n, device=states.device)
        distance = (place[:, None] - place).abs()
        seen = mask[:, None, None, :]
        if self.window:
            seen = seen & (distance <= self.window)
        seen = seen | (distance == 0)  # padding sees itself: a row of nothing would be NaN
        dropout = self.dropout.p if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, seen, dropout)
        update = self.output_projection(mixed.transpose(1, 2).reshape(rows, n, size))
        return states + self.dropout(update)


class BoundaryEncoder(nn.Module):
    """Computes the vector of each boundary from the words on its two sides.

    Parameters
    ----------
    hidden_size
        Width of the word vectors.
    size
        Width of the boundary vectors.
    refinement_layers, multiplier
        Number of :class:`SwiGLU` layers, and their hidden width.
    attention_layers, heads, window
        Number of :class:`BoundaryAttention` layers, run before these, and their options.
    dropout
        Dropout rate.
    """

    def __init__(
        self,
        hidden_size: int,
        size: int,
        refinement_layers: int,
        multiplier: float,
        attention_layers: int,
        heads: int,
        window: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.left_projection = Linear(hidden_size, size)
        self.right_projection = Linear(hidden_size, size)
        self.output_projection = Linear(2 * size, size)
        self.layer_norm = nn.LayerNorm(size)
        self.dropout = nn.Dropout(dropout)
        attention = (BoundaryAttention(size, heads, window, dropout) for _ in range(attention_layers))
        self.attention_blocks = nn.ModuleList(attention)
        self.refinement_blocks = nn.ModuleList(
            SwiGLU(size, multiplier, dropout) for _ in range(refinement_layers)
        )
        self.bos_state = nn.Parameter(torch.randn(hidden_size) * 0.02)
        self.eos_state = nn.Parameter(torch.randn(hidden_size) * 0.02)

    def forward(self, words: Tensor, word_mask: Tensor) -> Boundaries:
        """Return the boundaries of windows with these words, ``(rows, words, hidden)``."""
        words = words.to(self.bos_state.dtype).masked_fill(~word_mask[..., None], 0.0)
        lengths = word_mask.sum(1)
        place = torch.arange(words.shape[1] + 1, device=words.device)
        mask = place <= lengths[:, None]
        start = self.left_projection(self.bos_state).expand(len(words), 1, -1)
        left = torch.cat([start, self.left_projection(words)], 1)
        right = F.pad(self.right_projection(words), (0, 0, 0, 1))
        is_last = (place == lengths[:, None])[..., None]
        right = torch.where(is_last, self.right_projection(self.eos_state), right)
        states = self.dropout(self.layer_norm(self.output_projection(torch.cat([left, right], -1))))
        for block in self.attention_blocks:
            states = block(states, mask)
        for block in self.refinement_blocks:
            states = block(states)
        return Boundaries(states.masked_fill(~mask[..., None], 0.0), mask, words, word_mask, lengths)


class BoundaryScorer(nn.Module):
    """Scores boundaries as start and end, and words as inside, of the spans of each query.

    Parameters
    ----------
    hidden_size
        Width of word and query vectors.
    size
        Width of the boundary vectors.
    dropout
        Dropout rate.
    """

    def __init__(self, hidden_size: int, size: int, dropout: float) -> None:
        super().__init__()
        self.start_boundary_projection = Linear(size, size)
        self.start_query_projection = Linear(hidden_size, size)
        self.end_boundary_projection = Linear(size, size)
        self.end_query_projection = Linear(hidden_size, size)
        self.inside_text_projection = Linear(hidden_size, size)
        self.inside_query_projection = Linear(hidden_size, size)
        self.dropout = nn.Dropout(dropout)
        self.scale = size**-0.5

    def forward(self, read: Boundaries, queries: Tensor) -> Marginals:
        """Return the marginals for queries, ``(rows, queries, hidden)``."""

        def scored(projected: Tensor, query: Tensor) -> Tensor:
            return (query * self.scale) @ self.dropout(projected).transpose(1, 2)

        outside = ~read.mask[:, None]
        start_query, end_query = self.start_query_projection(queries), self.end_query_projection(queries)
        starts = scored(self.start_boundary_projection(read.states), start_query)
        ends = scored(self.end_boundary_projection(read.states), end_query)
        inside = scored(self.inside_text_projection(read.words), self.inside_query_projection(queries))
        word_mask = read.word_mask[:, None]
        inside = inside.float() * word_mask
        mean = (inside.sum(-1, keepdim=True) / read.lengths.clamp(min=1)[:, None, None]).detach()
        running = F.pad(((inside - mean) * word_mask).cumsum(-1), (1, 0))
        return Marginals(
            starts.masked_fill(outside, MASKED), ends.masked_fill(outside, MASKED), running, mean
        )


class SpanContent(nn.Module):
    """Pools the words of a span: their mean, and optionally a smooth maximum, in a smaller width.

    Parameters
    ----------
    hidden_size
        Width of the word vectors.
    size
        Width of the pooled vectors.
    smooth_maximum
        Whether the smooth maximum, ``log sum exp``, is appended to the mean.
    dropout
        Dropout rate.
    """

    def __init__(self, hidden_size: int, size: int, smooth_maximum: bool, dropout: float) -> None:
        super().__init__()
        self.smooth_maximum = smooth_maximum
        self.output_size = 2 * size if smooth_maximum else size
        self.value_projection = Linear(hidden_size, size)
        self.layer_norm = nn.LayerNorm(self.output_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, read: Boundaries, spans: Tensor) -> Tensor:
        """Pool spans.

        Parameters
        ----------
        read
            The words.
        spans
            First and last boundary, ``(rows, ..., 2)``. An empty span, as in padding, gives finite numbers.

        Returns
        -------
        Tensor
            ``(rows, ..., output_size)``.
        """
        values, word_mask = self.value_projection(read.words).float(), read.word_mask[..., None]
        starts, ends = spans.unbind(-1)
        running = F.pad((values * word_mask).cumsum(1), (0, 0, 1, 0))
        width = (ends - starts).clamp(min=1)[..., None]
        pooled = (at_boundaries(running, ends) - at_boundaries(running, starts)) / width
        if self.smooth_maximum:
            floor = torch.finfo(torch.float32).min / 4
            running = values.masked_fill(~word_mask, floor).logcumsumexp(1)
            running = F.pad(running, (0, 0, 1, 0), value=floor)
            to_end = at_boundaries(running, ends)
            before = (at_boundaries(running, starts) - to_end).clamp(max=-1e-6)
            smooth = to_end + torch.log1p(-before.exp())
            # the sum over no words is minus infinity, which must not reach the normalisation
            pooled = torch.cat([pooled, smooth.masked_fill((starts >= ends)[..., None], 0.0)], -1)
        normed: Tensor = self.dropout(self.layer_norm(pooled.to(self.layer_norm.weight.dtype)))
        return normed


def rotated(states: Tensor, base: float) -> Tensor:
    """Rotate the vectors of boundaries by their place, ``(rows, boundaries, size)``.

    The product of two rotated vectors depends on their distance.

    Notes
    -----
    Source: Su et al. (2021), arXiv:2104.09864; neighbouring elements are a pair.
    """
    n, size = states.shape[1:]
    power = torch.arange(0, size, 2, dtype=torch.float32, device=states.device) / size
    angle = torch.arange(n, device=states.device).float()[:, None] / base**power
    cos, sin = angle.cos(), angle.sin()
    even, odd = states[..., 0::2].float(), states[..., 1::2].float()
    pairs = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
    return pairs.flatten(-2).to(states.dtype)


def width_features(spans: Tensor, lengths: Tensor) -> Tensor:
    """Describe the width of spans, ``(..., 3)``: its logarithm, its share of the window, and one over its root.

    Parameters
    ----------
    spans
        First and last boundary, ``(rows, ..., 2)``.
    lengths
        Number of words of each window, ``(rows,)``.
    """
    width = (spans[..., 1] - spans[..., 0]).clamp(min=1).float()
    share = width / lengths.clamp(min=1).view(-1, *[1] * (width.dim() - 1))
    return torch.stack([width.log1p(), share, width.rsqrt()], -1)


def at_boundaries(states: Tensor, places: Tensor) -> Tensor:
    """Select vectors, ``(rows, boundaries, size)``, at places, ``(rows, ...)``: ``(rows, ..., size)``."""
    rows, n, size = states.shape
    first = (torch.arange(rows, device=places.device) * n).view(-1, *[1] * (places.dim() - 1))
    picked = states.reshape(rows * n, size).index_select(0, (places + first).flatten())
    return picked.view(*places.shape, size)
