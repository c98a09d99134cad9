"""The contract of a span representation: the score of every span for every label."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.encoders.base import EncoderBatch
from gliner_pipe.modeling.losses.base import Loss

#: Scores that are held at once when spans are looked for; 128 MiB as fp32.
SCORES_AT_ONCE = 1 << 25
#: From so many labels on, shared by all rows, a vector is made for each span that can be.
MANY_LABELS = 512


class Readings(NamedTuple):
    """What words and labels have become before spans are scored.

    Attributes
    ----------
    words
        ``(rows, words, hidden)``.
    span_words
        What spans are made of: the words, read once more where there is a context encoder.
    labels, relations
        Entity labels and relation labels, ``(rows, labels, hidden)``.
    """

    words: Tensor
    span_words: Tensor
    labels: Tensor
    relations: Tensor


class Found(NamedTuple):
    """Spans above their thresholds: row, first and last word, label and score of each, ``(found,)``."""

    rows: Tensor
    starts: Tensor
    ends: Tensor
    labels: Tensor
    scores: Tensor

    @classmethod
    def join(cls, parts: Sequence[Found], device: torch.device) -> Found:
        """Put parts together."""
        if not parts:
            none = torch.zeros(0, dtype=torch.long, device=device)
            return cls(none, none, none, none, none.float())
        return parts[0] if len(parts) == 1 else cls(*map(torch.cat, zip(*parts, strict=True)))


class SpanRep(Block):
    """Scores spans against labels.

    Two calls, so that no vector need be made for each of the ``words x widths`` spans: ``score`` for all of them,
    ``represent`` for the few that a further head needs, or where labels are so many that vectors pay.

    Attributes
    ----------
    max_width
        Words in the widest span; None where there is no limit.
    projects_labels
        True: labels pass through the model's label projection before they are held against spans.
    needs_vectors
        Set before ``build`` where a further head will ask for ``represent``.
    """

    family = "span_reps"

    max_width: int | None
    projects_labels: bool = True
    needs_vectors: bool = False

    @abstractmethod
    def build(self, hidden_size: int) -> None:
        """Make the weights for vectors of this width."""

    @abstractmethod
    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Score all spans.

        Parameters
        ----------
        words
            ``(rows, words, hidden)``.
        labels
            ``(rows, labels, hidden)``.
        word_mask
            False for padding, ``(rows, words)``.

        Returns
        -------
        Tensor
            Logits, ``(rows, words, widths, labels)``: entry ``[r, i, k, c]`` is the span of words ``i`` to
            ``i + k``. Spans that end beyond the row carry numbers without meaning.
        """

    @abstractmethod
    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Vectors of chosen spans.

        Parameters
        ----------
        words
            ``(rows, words, hidden)``.
        spans
            First and last word (inclusive) of each span, ``(rows, spans, 2)``.
        word_mask
            False for padding, ``(rows, words)``.

        Returns
        -------
        Tensor
            ``(rows, spans, hidden)``.
        """

    # -- what follows is for all spans up to a width; a span representation that thinks otherwise says so --------

    def logits(self, read: Readings, word_mask: Tensor) -> Tensor:
        """Score all that was read; see ``score``."""
        return self.score(read.span_words, read.labels, word_mask)

    def find(self, read: Readings, windows: WindowBatch, limits: Tensor) -> Found:
        """Find the spans above their thresholds.

        Parameters
        ----------
        read
            Words and labels.
        windows
            Says which words may start and end a span.
        limits
            Threshold of each label, in [0, 1], ``(rows, labels)``; infinite for padding.

        Returns
        -------
        Found
            In memory that does not grow with the number of labels, beyond what is found.
        """
        valid = valid_spans(windows, self.max_width or 1)
        words, labels = read.span_words, read.labels
        if labels.shape[1] >= MANY_LABELS and all_alike(labels):
            return self._find_among_many(words, labels[0], windows.word_mask, valid, limits)
        step = max(1, SCORES_AT_ONCE // max(valid.numel(), 1))
        parts = []
        for at in range(0, labels.shape[1], step):
            probs = self.score(words, labels[:, at : at + step], windows.word_mask).sigmoid_()
            keep = (probs > limits[:, None, None, at : at + step]) & valid[..., None]
            rows, starts, widths, names = keep.nonzero().unbind(1)
            parts.append(Found(rows, starts, starts + widths, names + at, probs[keep]))
        return Found.join(parts, words.device)

    def _find_among_many(
        self, words: Tensor, labels: Tensor, word_mask: Tensor, valid: Tensor, limits: Tensor
    ) -> Found:
        """Find spans for labels, ``(labels, hidden)``, that all rows share and that are so many that a vector for each
        span is cheaper than what saves it.
        """
        rows, starts, widths = valid.nonzero().unbind(1)
        ends = starts + widths
        step = max(1, SCORES_AT_ONCE // len(labels))
        parts = []
        for at in range(0, len(rows), step):
            spans = torch.stack([rows[at : at + step], starts[at : at + step], ends[at : at + step]], 1)
            top = int(spans[0, 0])
            here = slice(top, int(spans[-1, 0]) + 1)
            spans[:, 0] -= top
            places, listed = by_row(spans, here.stop - top)
            vectors = self.represent(words[here], places, word_mask[here])[listed]
            logits = vectors @ labels.T
            least = limits[:1] if all_alike(limits) else limits[here][spans[:, 0]]
            # far fewer are left for the sigmoid; what it may round stays in
            span, name = (logits > least.clamp(max=0.999).logit() - 1e-3).nonzero().unbind(1)
            probs = logits[span, name].sigmoid()
            keep = probs > limits[rows[at + span], name]
            span, name, probs = span[keep], name[keep], probs[keep]
            parts.append(Found(rows[at + span], starts[at + span], ends[at + span], name, probs))
        return Found.join(parts, words.device)

    def loss(self, read: Readings, inputs: EncoderBatch, gold: Tensor, loss: Loss) -> dict[str, Tensor]:
        """Loss of a batch, as named sums.

        Parameters
        ----------
        read
            Words and labels.
        inputs
            Where words and labels came from.
        gold
            Row, first word, width - 1 and label of each gold span, ``(spans, 4)``.
        loss
            Of each score.
        """
        logits = self.logits(read, inputs.windows.word_mask)
        targets = torch.zeros_like(logits, dtype=torch.bool)
        targets[tuple(gold.unbind(1))] = True
        mask = valid_spans(inputs.windows, logits.shape[2])[..., None] & inputs.label_mask[:, None, None, :]
        return {"span": loss(logits, targets, mask, by_width=True)}

    def count(self, inputs: EncoderBatch) -> float:
        """Spans that the loss of a batch is over."""
        return float(valid_spans(inputs.windows, self.max_width or 1).sum())


def all_alike(rows: Tensor) -> bool:
    """Whether all rows are views of one tensor, as those of texts with one label set are: what holds for one holds for
    all.
    """
    return rows.shape[0] == 1 or rows.stride(0) == 0


def by_row(spans: Tensor, n_rows: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Lay spans that are listed one after the other out as ``SpanRep.represent`` takes them.

    Parameters
    ----------
    spans
        Row, first and last word (inclusive) of each span, ordered by row, ``(spans, 3)``.
    n_rows
        Rows of the batch.

    Returns
    -------
    tuple
        First and last word, padded with zeros to ``(rows, most spans of a row, 2)``, and the index that picks the
        spans from such a layout in the order of the list.
    """
    rows = spans[:, 0].contiguous()
    order = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)
    places = rows.new_zeros(n_rows, int(order.max()) + 1 if len(rows) else 0, 2)
    places[rows, order] = spans[:, 1:]
    return places, (rows, order)


def own_starts(windows: WindowBatch) -> Tensor:
    """Words at which a span of the window may start: its own ones that have pieces, ``(rows, words)``."""
    position = torch.arange(windows.word_mask.shape[1], device=windows.own.device)
    return windows.scorable & (position >= windows.own[:, :1]) & (position < windows.own[:, 1:])


def valid_spans(windows: WindowBatch, n_widths: int) -> Tensor:
    """Spans that lie in their window, start in its own words, and start and end at words with pieces.

    Returns
    -------
    Tensor
        ``(rows, words, widths)``, boolean.
    """
    padded = torch.nn.functional.pad(windows.scorable, (0, n_widths - 1))
    return own_starts(windows)[:, :, None] & padded.unfold(1, n_widths, 1)
