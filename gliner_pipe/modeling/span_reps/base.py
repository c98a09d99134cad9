"""Base class of span representations, which score every span for every label."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.encoders.base import EncoderBatch, TaskVectors
from gliner_pipe.modeling.losses.base import Loss

#: Maximum number of scores held in memory at once during prediction: 128 MiB in fp32.
SCORES_AT_ONCE = 1 << 25
#: From this many labels on (shared by all rows), prediction computes a vector for every valid span.
MANY_LABELS = 512
#: Name under which ``find`` leaves the scores of all spans in ``Representations.shared``; see ``keep_scores``.
ALL_SCORES = "all_scores"


class Representations(NamedTuple):
    """Vectors of words and labels from which spans are scored.

    Attributes
    ----------
    words
        ``(rows, words, hidden)``.
    span_words
        Word vectors from which span vectors are built: the output of the context encoder, or else ``words``.
    labels, relations
        Entity labels and relation labels, ``(rows, labels, hidden)``.
    tasks
        Vectors of the tasks, as the encoder gives them; None if no row has any.
    shared
        What one block computed from these vectors and others need as well, by name; None to share nothing.
    """

    words: Tensor
    span_words: Tensor
    labels: Tensor
    relations: Tensor
    tasks: TaskVectors | None = None
    shared: dict[str, Any] | None = None


class FieldSpans(NamedTuple):
    """Gold values of the fields of tasks, for span representations that find them together with the labels.

    Attributes
    ----------
    gold
        Row, first word, width - 1 and field of each value, ``(values, 4)``. Fields are numbered over all tasks, each
        with as many as the largest.
    choices
        The same of all choices of the fields, right or wrong, ``(choices, 4)``.
    outside
        Words that are not in the text, ``(rows, words)``; None if there are none.
    unnamed
        Row and field of each that may have other values than those known, ``(fields, 2)``; None if there are none.
    """

    gold: Tensor
    choices: Tensor
    outside: Tensor | None
    unnamed: Tensor | None = None


class FoundSpans(NamedTuple):
    """Spans above their thresholds: row, first and last word, label and score of each, ``(spans,)``."""

    rows: Tensor
    starts: Tensor
    ends: Tensor
    labels: Tensor
    scores: Tensor

    def where(self, keep: Tensor) -> FoundSpans:
        """Return the spans for which `keep` is true, ``(spans,)``."""
        return FoundSpans(*(column[keep] for column in self))

    @classmethod
    def join(cls, parts: Sequence[FoundSpans], device: torch.device) -> FoundSpans:
        """Concatenate several results."""
        if not parts:
            empty = torch.zeros(0, dtype=torch.long, device=device)
            return cls(empty, empty, empty, empty, empty.float())
        return parts[0] if len(parts) == 1 else cls(*map(torch.cat, zip(*parts, strict=True)))


class SpanRep(Block):
    """Scores spans against labels.

    ``score`` scores all ``words x widths`` spans without computing a vector for each. ``represent`` computes the
    vectors of selected spans, for relation layers and label generators, or when there are so many labels that vectors
    are cheaper.

    Attributes
    ----------
    max_width
        Maximum span width in words; None for no limit.
    projects_labels
        Whether label vectors pass through the model's label projection before spans are scored.
    needs_vectors
        Set before ``build`` when a relation layer or label generator needs ``represent``.
    reads_row, looks_ahead
        Whether the vector of a span depends on words before it, and on words after it.
    represents_many
        Whether vectors of spans are computed where there are many labels.
    teaches_fields
        Whether the loss covers the fields of tasks, too.
    """

    family = "span_reps"

    max_width: int | None
    projects_labels: bool = True
    needs_vectors: bool = False
    reads_row: bool = False
    looks_ahead: bool = False
    represents_many: bool = True
    teaches_fields: bool = False

    @abstractmethod
    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width."""

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
            ``i + k``. Values of spans that end beyond the row are undefined.
        """

    @abstractmethod
    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Compute the vectors of selected spans.

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

    # -- defaults for all spans up to a maximum width ---------------------------------------------------------------

    def logits(self, vectors: Representations, word_mask: Tensor) -> Tensor:
        """Return the logits of all spans; see ``score``."""
        return self.score(vectors.span_words, vectors.labels, word_mask)

    def find(self, vectors: Representations, windows: WindowBatch, limits: Tensor) -> FoundSpans:
        """Find the spans above their thresholds.

        Peak memory does not grow with the number of labels, apart from the spans returned.

        Parameters
        ----------
        vectors
            Words and labels.
        windows
            Determines at which words a span may start and end.
        limits
            Threshold of each label, in [0, 1], ``(rows, labels)``; infinite for padding.
        """
        valid = valid_spans(windows, self.max_width or 1)
        words, labels = vectors.span_words, vectors.labels
        if self._compares_vectors(labels):
            return self._find_among_many(words, labels[0], windows.word_mask, valid, limits)
        step = max(1, SCORES_AT_ONCE // max(valid.numel(), 1))
        parts = []
        for at in range(0, labels.shape[1], step):
            probs = self.score(words, labels[:, at : at + step], windows.word_mask).sigmoid_()
            keep = (probs > limits[:, None, None, at : at + step]) & valid[..., None]
            rows, starts, widths, names = keep.nonzero().unbind(1)
            parts.append(FoundSpans(rows, starts, starts + widths, names + at, probs[keep]))
            if step >= labels.shape[1]:
                leave_scores(vectors, probs)
        return FoundSpans.join(parts, words.device)

    def class_scores(self, vectors: Representations, windows: WindowBatch, spans: Tensor) -> Tensor:
        """Score chosen spans for all labels, from the scores that `find` left where `keep_scores` asked for them.

        Parameters
        ----------
        vectors
            Words and labels.
        windows
            The windows that `find` was given.
        spans
            Row, first and last word (inclusive) of each span, ``(spans, 3)``.

        Returns
        -------
        Tensor
            Scores in [0, 1], ``(spans, labels)``; undefined for padding.
        """
        rows, starts, ends = spans.unbind(1)
        words, labels = vectors.span_words, vectors.labels
        probs = left_scores(vectors)
        if probs is not None:
            return probs[rows, starts, ends - starts]
        if self._compares_vectors(labels):
            places, listed = by_row(spans, len(words))
            return (self.represent(words, places, windows.word_mask)[listed] @ labels[0].T).sigmoid_()
        step = max(1, SCORES_AT_ONCE // max(words.shape[0] * words.shape[1] * (self.max_width or 1), 1))
        parts = [words.new_zeros(len(spans), 0)]
        for at in range(0, labels.shape[1], step):
            logits = self.score(words, labels[:, at : at + step], windows.word_mask)
            parts.append(logits[rows, starts, ends - starts])
        return torch.cat(parts, 1).sigmoid_()

    def _compares_vectors(self, labels: Tensor) -> bool:
        """Whether a vector of each span is compared with these labels."""
        return self.represents_many and labels.shape[1] >= MANY_LABELS and all_alike(labels)

    def _find_among_many(
        self, words: Tensor, labels: Tensor, word_mask: Tensor, valid: Tensor, limits: Tensor
    ) -> FoundSpans:
        """Find spans for labels, ``(labels, hidden)``, that all rows share.

        With this many labels, computing a vector for each span is cheaper than the factored score.
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
            # prefilter by logit, with a margin for rounding, so that the sigmoid is taken of far fewer values
            span, name = (logits > least.clamp(max=0.999).logit() - 1e-3).nonzero().unbind(1)
            probs = logits[span, name].sigmoid()
            keep = probs > limits[rows[at + span], name]
            span, name, probs = span[keep], name[keep], probs[keep]
            parts.append(FoundSpans(rows[at + span], starts[at + span], ends[at + span], name, probs))
        return FoundSpans.join(parts, words.device)

    def loss(
        self,
        vectors: Representations,
        inputs: EncoderBatch,
        gold: Tensor,
        loss: Loss,
        fields: FieldSpans | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss of a batch, as named sums.

        Parameters
        ----------
        vectors
            Words and labels.
        inputs
            Encoder input of these words and labels.
        gold
            Row, first word, width - 1 and label of each gold span, ``(spans, 4)``.
        loss
            Loss of each score.
        fields
            Gold values of fields; read by span representations that propose spans.
        """
        logits = self.logits(vectors, inputs.windows.word_mask)
        targets = torch.zeros_like(logits, dtype=torch.bool)
        targets[tuple(gold.unbind(1))] = True
        mask = valid_spans(inputs.windows, logits.shape[2])[..., None] & inputs.label_mask[:, None, None, :]
        return {"span": loss(logits, targets, mask, by_width=True)}

    def not_proposed(self, n_words: int, gold: FoundSpans) -> tuple[int, str]:
        """Return how many gold spans are more than can be found, and the options that bound them; none by default.

        Parameters
        ----------
        n_words
            Words of the longest row.
        gold
            The spans, without scores that mean anything.
        """
        return 0, ""

    def count(self, inputs: EncoderBatch) -> float:
        """Return the number of spans in the loss of a batch."""
        return float(valid_spans(inputs.windows, self.max_width or 1).sum())


def keep_scores(vectors: Representations) -> None:
    """Ask ``find`` to leave the scores that it computes, so that ``class_scores`` need not compute them again.

    They are left where those of all labels are in memory at once.
    """
    if vectors.shared is not None:
        vectors.shared[ALL_SCORES] = None


def keeps_scores(vectors: Representations) -> bool:
    """Whether `keep_scores` asked for scores."""
    return vectors.shared is not None and ALL_SCORES in vectors.shared


def leave_scores(vectors: Representations, scores: Tensor) -> None:
    """Leave the scores of a row's spans or words, labels last, where `keep_scores` asked for them."""
    if keeps_scores(vectors) and vectors.shared is not None:
        vectors.shared[ALL_SCORES] = scores


def left_scores(vectors: Representations) -> Tensor | None:
    """Return the scores that were left; None if there are none."""
    return None if vectors.shared is None else vectors.shared.get(ALL_SCORES)


def all_alike(rows: Tensor) -> bool:
    """Whether all rows are views of one tensor, as for texts that share one label set."""
    return rows.shape[0] == 1 or rows.stride(0) == 0


def by_row(spans: Tensor, n_rows: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Pad a flat list of spans to the layout that ``SpanRep.represent`` takes.

    Parameters
    ----------
    spans
        Row, first and last word (inclusive) of each span, ordered by row, ``(spans, 3)``.
    n_rows
        Rows of the batch.

    Returns
    -------
    tuple
        First and last word, padded with zeros to ``(rows, maximum spans per row, 2)``, and the index that selects the
        spans from this layout in list order.
    """
    rows = spans[:, 0].contiguous()
    order = torch.arange(len(rows), device=rows.device) - torch.searchsorted(rows, rows)
    places = rows.new_zeros(n_rows, int(order.max()) + 1 if len(rows) else 0, 2)
    places[rows, order] = spans[:, 1:]
    return places, (rows, order)


def own_starts(windows: WindowBatch) -> Tensor:
    """Words at which a span of the window may start: its own words with subword tokens, ``(rows, words)``.

    In training without those that nobody annotated: no span starts or ends there, nor does a gold one.
    """
    position = torch.arange(windows.word_mask.shape[1], device=windows.own.device)
    return windows.annotated & (position >= windows.own[:, :1]) & (position < windows.own[:, 1:])


def valid_spans(windows: WindowBatch, n_widths: int) -> Tensor:
    """Spans inside their window that start at one of its own words and start and end at words with subword tokens.

    Returns
    -------
    Tensor
        ``(rows, words, widths)``, boolean.
    """
    padded = torch.nn.functional.pad(windows.annotated, (0, n_widths - 1))
    return own_starts(windows)[:, :, None] & padded.unfold(1, n_widths, 1)
