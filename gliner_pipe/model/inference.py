"""Runs windows of many texts in batches of equal cost, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gliner_pipe.backbones.windows import Window
from gliner_pipe.decoders.base import Candidate
from gliner_pipe.encoders.base import EncoderBatch
from gliner_pipe.model.gliner import GLiNER
from gliner_pipe.span_reps.base import Readings

logger = logging.getLogger(__name__)

#: Padded pieces run at once on a CPU, and on a CUDA device before its memory is known.
DEFAULT_TOKENS = 8192


class SpanVectors(NamedTuple):
    """What further heads need of one window.

    Attributes
    ----------
    spans
        First and last word of the distinct spans above a threshold, counted in the text and in this order,
        ``(spans, 2)``.
    vectors
        Their vectors, ``(spans, hidden)``.
    labels, relations
        Vectors of the entity labels and of the relation labels as this window sees them, ``(labels, hidden)``.
    """

    spans: Tensor
    vectors: Tensor
    labels: Tensor
    relations: Tensor


@dataclass
class Findings:
    """What was found in one text.

    Attributes
    ----------
    candidates
        Spans above their thresholds in words of the text, ordered by start, end and label.
    windows
        For further heads, in the order of the windows; empty where the model has none.
    """

    candidates: list[Candidate] = field(default_factory=list)
    windows: list[SpanVectors] = field(default_factory=list)


class TokenBudget:
    """How many padded pieces are run at once.

    A fixed number, or ``"auto"``: on CUDA what the free memory allows, by the memory that earlier batches took a
    piece; halved when the device runs out of memory all the same.

    Parameters
    ----------
    tokens
        The number, or ``"auto"``.
    """

    def __init__(self, tokens: int | Literal["auto"]) -> None:
        self.auto = tokens == "auto"
        self.tokens = DEFAULT_TOKENS if tokens == "auto" else tokens
        self._bytes_per_token = 0.0

    def observe(self, device: torch.device, tokens: int, before: int) -> None:
        """Learn from a batch of `tokens` pieces; `before` are the bytes allocated when it began."""
        if not self.auto or device.type != "cuda" or not tokens:
            return
        used = (torch.cuda.max_memory_allocated(device) - before) / tokens
        self._bytes_per_token = 0.7 * self._bytes_per_token + 0.3 * used if self._bytes_per_token else used
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        if self._bytes_per_token > 0:
            self.tokens = max(512, int(0.6 * (free + cached) / self._bytes_per_token))

    def halve(self) -> None:
        """Ask for less after the device ran out of memory."""
        self.tokens = max(1, self.tokens // 2)
        logger.warning("Out of device memory: going on with %d pieces at once.", self.tokens)


def plan(windows: Sequence[Window], tokens: int) -> Iterator[list[int]]:
    """Group windows of like length, so that a group, padded, holds at most `tokens` pieces (one window at least)."""
    order = sorted(range(len(windows)), key=lambda index: -windows[index].n_pieces)
    group: list[int] = []
    for index in order:
        longest = windows[group[0]].n_pieces if group else windows[index].n_pieces
        if group and longest * (len(group) + 1) > tokens:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def run_groups(
    model: nn.Module,
    windows: Sequence[Window],
    budget: TokenBudget,
    run: Callable[[dict[int, Window]], int],
) -> None:
    """Run windows in groups of like length, without gradients; a group is halved when the device is full.

    Parameters
    ----------
    model
        In evaluation mode meanwhile.
    windows
        Of all texts.
    budget
        How much to run at once; it learns from each group.
    run
        Runs one group, windows by their number, and returns how many padded pieces that took.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            todo = list(plan(windows, budget.tokens))[::-1]
            while todo:
                group = todo.pop()
                before = 0
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                    before = torch.cuda.memory_allocated(device)
                try:
                    budget.observe(device, run({index: windows[index] for index in group}), before)
                except torch.cuda.OutOfMemoryError:
                    if len(group) == 1:
                        raise
                    torch.cuda.empty_cache()
                    budget.halve()
                    rest = [index for other in [group, *reversed(todo)] for index in other]
                    regrouped = plan([windows[index] for index in rest], budget.tokens)
                    todo = [[rest[at] for at in part] for part in regrouped][::-1]
    finally:
        model.train(was_training)


def find(
    model: GLiNER,
    windows: Sequence[Window],
    thresholds: Sequence[Sequence[float]],
    budget: TokenBudget,
) -> list[Findings]:
    """Find the spans above their thresholds.

    Parameters
    ----------
    model
        With weights.
    windows
        Of all texts, from ``model.encoder.prepare``.
    thresholds
        One for each label of each text, in [0, 1].
    budget
        How much to run at once.

    Returns
    -------
    list of Findings
        One for each text.
    """
    found = [Findings() for _ in thresholds]
    vectors: dict[int, SpanVectors] = {}

    def run(group: dict[int, Window]) -> int:
        return _run(model, group, thresholds, found, vectors)

    run_groups(model, windows, budget, run)
    for one in found:
        one.candidates.sort(key=lambda candidate: candidate[:3])
    for index in sorted(vectors):
        found[windows[index].text].windows.append(vectors[index])
    return found


def _run(
    model: GLiNER,
    windows: Mapping[int, Window],
    thresholds: Sequence[Sequence[float]],
    found: list[Findings],
    vectors: dict[int, SpanVectors],
) -> int:
    """Run one group of windows, add what it finds to `found` and, by window, to `vectors`; return its pieces."""
    device = model.device
    batch = model.encoder.collate(list(windows.values())).to(device)
    n_pieces = int(batch.windows.input_ids.numel())
    if not batch.label_mask.shape[1]:
        return 0
    limits = torch.full(batch.label_mask.shape, torch.inf)
    for row, window in enumerate(windows.values()):
        limits[row, : len(thresholds[window.text])] = torch.tensor(thresholds[window.text])
    read = model.encode(batch)
    spans = model.span_rep.find(read, batch.windows, limits.to(device))
    rows, starts, ends, labels, scores = (column.cpu().numpy() for column in spans)
    texts = np.array([window.text for window in windows.values()])
    shift = np.array([window.start for window in windows.values()])
    columns = (texts[rows], starts + shift[rows], ends + shift[rows], labels, scores)
    for text, start, end, label, score in zip(*(column.tolist() for column in columns), strict=True):
        found[text].candidates.append(Candidate(start, end, label, score))
    if model.span_rep.needs_vectors:
        for row, (index, window) in enumerate(windows.items()):
            here = spans.rows == row
            vectors[index] = _vectors(
                model, read, batch, row, spans.starts[here], spans.ends[here], window.start
            )
    return n_pieces


def _vectors(
    model: GLiNER, read: Readings, batch: EncoderBatch, row: int, starts: Tensor, ends: Tensor, shift: int
) -> SpanVectors:
    """Vectors of the distinct spans of one row, and of its labels."""
    spans = torch.stack([starts, ends], 1).unique(dim=0)
    mask = batch.windows.word_mask[row : row + 1]
    vectors = model.span_rep.represent(read.span_words[row : row + 1], spans[None], mask)[0]
    labels = _own(read.labels, row, batch.label_mask)
    return SpanVectors(spans + shift, vectors, labels, _own(read.relations, row, batch.relation_mask))


def _own(vectors: Tensor, row: int, mask: Tensor) -> Tensor:
    """Vectors of one row, so that the batch can go; those that all rows share stay shared."""
    one = vectors[row, : int(mask[row].sum())]
    return one if vectors.stride(0) == 0 else one.clone()
