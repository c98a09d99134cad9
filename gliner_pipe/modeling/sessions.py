"""Sessions: the spans of a text that grows, each word of which is read once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import IntArray, Pieces, WindowBatch
from gliner_pipe.modeling.backbones.transformer import MIN_WINDOW, shortened
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.encoders.base import Encoded, Query
from gliner_pipe.modeling.encoders.causal_encoder import CausalEncoder, copied
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.layers.cache import evaluating
from gliner_pipe.modeling.span_reps.base import keep_scores

#: Largest number of subword tokens that are run at once.
TOKENS_AT_ONCE = 1024
#: Widest span, in words, that a new memory has room for if spans have no maximum width.
WIDE = 32


class SpanSession:
    """Finds the spans of a text above their thresholds, piece by piece.

    Each piece is read with the keys and values of what came before. The spans that end in it are scored, and those that
    end in the last `right` words before its last word are scored again. Once the memory is full, it is replaced by a
    new one, in which the latest words are read again after the prompt.

    Parameters
    ----------
    model
        With weights, over a ``causal_encoder``.
    query
        The labels.
    limits
        Threshold of each label, in [0, 1].
    class_scores
        Whether to score each span found for all labels.

    Attributes
    ----------
    n_words
        Number of words read.
    candidates
        Spans above their thresholds that `take` has not returned, in words of the text, ordered by start, end and
        label.
    class_scores
        Scores of these spans for all labels, by first and last word.
    """

    def __init__(
        self, model: GLiNER, query: Query, limits: Sequence[float], *, class_scores: bool = False
    ) -> None:
        encoder = model.encoder
        assert isinstance(encoder, CausalEncoder)
        self.model, self.encoder, self.query = model, encoder, query
        self.limits = torch.tensor(np.asarray(limits, np.float32), device=model.device)[None]
        self.width = model.max_width
        context, span_rep = model.context, model.span_rep
        #: Number of words after a span that may change its score.
        self.right = (self.width or 0) if encoder.right_context is None else encoder.right_context
        if encoder.rnn is None and not span_rep.looks_ahead:
            self.right = 0
        #: Whether a word changes the scores of all spans before it.
        self.changes_all = (
            self.width is None or model.fusion is not None or (context is not None and context.looks_ahead)
        )
        self._needs_all = self.changes_all or context is not None or span_rep.reads_row
        self._needs_all = self._needs_all or encoder.rnn is not None
        self.n_words = 0
        self.candidates: list[Candidate] = []
        self.class_scores: dict[tuple[int, int], list[float]] | None = {} if class_scores else None
        self.room = self._room()
        self._start_anew(0)

    def _room(self) -> int:
        """Return the largest number of subword tokens of text in the memory."""
        backbone, most = self.encoder.backbone, self.encoder.max_session_tokens
        prompt = len(self.encoder.prompt(self.query).ids)
        backbone.room(prompt)  # refuses a prompt that leaves no positions
        limits = [limit for limit in (backbone.limit, most) if limit is not None]
        room = min(limits) - prompt if limits else backbone.window
        if room < MIN_WINDOW:
            raise ConfigError(
                "components.*.model.encoder.max_session_tokens",
                f"found {most}, of which the label prompt takes {prompt}",
                f"at least {prompt + MIN_WINDOW}",
            )
        return room

    # -- reading ---------------------------------------------------------------------------------------------------

    def append(self, pieces: Pieces, report: Counter[str] | None = None) -> None:
        """Read the next words of the text; `report` counts words that are cut."""
        if not pieces.n_words:
            return
        pieces = shortened(pieces, self.room, report)
        with evaluating(self.model), torch.inference_mode():
            before, ids, counts = self.n_words, pieces.ids, pieces.counts
            while len(counts):
                free = self.room - len(self._ids)
                if counts[0] > free:
                    if self.n_words > before:
                        self._score(before)
                        before = self.n_words
                    self._move_on(int(counts[0]))
                    continue
                fits = int(np.searchsorted(counts.cumsum(), free, side="right"))
                n_ids = int(counts[:fits].sum())
                self._read(ids[:n_ids], counts[:fits])
                self.n_words += fits
                ids, counts = ids[n_ids:], counts[fits:]
            self._score(before)

    def _start_anew(self, start: int) -> None:
        """Start a memory that holds the prompt alone; the next word to be read is `start`."""
        self._memory_start = self._words_start = start
        self._ids: IntArray = np.zeros(0, np.int64)
        self._counts: IntArray = np.zeros(0, np.int64)
        with evaluating(self.model), torch.inference_mode():
            read = self.encoder.read_prompt(self.query)
            self._memory, self._labels = copied(read.memory), read.labels
            self._words = read.labels[:, :0]

    def _read(self, ids: IntArray, counts: IntArray) -> None:
        self._ids, self._counts = np.concatenate([self._ids, ids]), np.concatenate([self._counts, counts])
        vectors = [self._words]
        while len(counts):
            some = int(np.searchsorted(counts.cumsum(), TOKENS_AT_ONCE, side="right")) or 1
            n_ids = int(counts[:some].sum())
            vectors.append(self.encoder.backbone.next_words(ids[:n_ids], counts[:some], self._memory))
            ids, counts = ids[n_ids:], counts[some:]
        self._words = torch.cat(vectors, 1)

    def _move_on(self, needed: int) -> None:
        """Replace the memory by one with the latest words: a third of its room, and the words that spans may need.

        It has room for `needed` more subword tokens.
        """
        sizes = self._counts[::-1].cumsum()
        most = (self.room // 3, self.room // 2, self.room - needed)
        third, half, free = (int(np.searchsorted(sizes, one, side="right")) for one in most)
        kept = min(max(third, min(half, (self.width or WIDE) + self.right)), free)
        counts = self._counts[len(sizes) - kept :]
        ids = self._ids[len(self._ids) - int(counts.sum()) :]
        self._start_anew(self.n_words - kept)
        self._read(ids, counts)

    # -- scoring ---------------------------------------------------------------------------------------------------

    def _score(self, before: int) -> None:
        """Score the spans that may have changed; `before` is the number of words when this was last done."""
        first_end = 0 if self.changes_all else max(0, min(before, self.n_words - 1 - self.right))
        first = max(first_end - (self.width or self.n_words) + 1, self._words_start)
        encoder, words, skipped = self.encoder, self._words, first - self._words_start
        if not self._needs_all:
            words, skipped = words[:, skipped:], 0
            self._words, self._words_start = words, first
        mask = torch.ones(words.shape[:2], dtype=torch.bool, device=words.device)
        if encoder.rnn is not None:
            words = encoder.rnn(words, mask)
        label_mask = torch.ones(self._labels.shape[:2], dtype=torch.bool, device=words.device)
        encoded = Encoded(words, self._labels, self._labels[:, :0])
        vectors = self.model.refine(encoded, mask, label_mask, (self.query,))
        if skipped and not self.model.span_rep.reads_row:
            kept = {name: getattr(vectors, name)[:, skipped:] for name in ("words", "span_words")}
            vectors, mask, skipped = vectors._replace(**kept), mask[:, skipped:], 0
        windows = _window(mask, skipped)
        if self.class_scores is not None:
            keep_scores(vectors)
        found = self.model.span_rep.find(vectors, windows, self.limits)
        at = first - skipped
        found = found.where(found.ends + at >= first_end)
        self.candidates = [one for one in self.candidates if one.end < first_end or one.start < first]
        columns = (found.starts + at, found.ends + at, found.labels, found.scores)
        self.candidates += map(Candidate, *(column.tolist() for column in columns))
        self.candidates.sort(key=attrgetter("start", "end", "label"))
        if self.class_scores is not None:
            spans = torch.stack([found.rows, found.starts, found.ends], 1).unique(dim=0)
            scores = self.model.span_rep.class_scores(vectors, windows, spans).tolist()
            places = (spans[:, 1:] + at).tolist()
            self.class_scores |= {(start, end): row for (start, end), row in zip(places, scores, strict=True)}

    # -- what is certain -------------------------------------------------------------------------------------------

    @property
    def certain_starts(self) -> int:
        """Number of words at which spans start whose scores no later word can change."""
        if self.changes_all or self.width is None:
            return self._memory_start
        return max(self._memory_start, self.n_words - self.right - self.width + 1)

    def settled(self, places: Sequence[int]) -> int | None:
        """Return the last place before which no selection of spans can change any more.

        The scores of all spans that start before it must be certain, and no span found may lie across it.

        Parameters
        ----------
        places
            Numbers of words, sorted.
        """
        best, reach, at = None, -1, 0
        for place in places:
            if place > self.certain_starts:
                break
            while at < len(self.candidates) and self.candidates[at].start < place:
                reach = max(reach, self.candidates[at].end)
                at += 1
            if reach < place:
                best = place
        return best

    def take(self, place: int) -> list[Candidate]:
        """Return the spans that start before `place`, and forget them."""
        found = [one for one in self.candidates if one.start < place]
        self.candidates = self.candidates[len(found) :]
        if self.class_scores is not None:
            self.class_scores = {span: row for span, row in self.class_scores.items() if span[0] >= place}
        return found


def _window(mask: Tensor, first: int) -> WindowBatch:
    """Return the window of words that are read already, ``(1, words)``; it owns those from `first` on."""
    none = torch.zeros(1, 0, dtype=torch.long, device=mask.device)
    own = torch.tensor([[first, mask.shape[1]]], device=mask.device)
    return WindowBatch(none, none, none, mask.long(), mask, none, none.bool(), own)
