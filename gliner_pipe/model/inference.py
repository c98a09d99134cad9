"""Runs windows of many texts in batches of equal cost, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch

from gliner_pipe.backbones.windows import Window
from gliner_pipe.decoders.base import Candidate
from gliner_pipe.model.gliner import GLiNER, valid_spans

logger = logging.getLogger(__name__)

#: Padded pieces run at once on a CPU, and on a CUDA device before its memory is known.
DEFAULT_TOKENS = 8192


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


def find(
    model: GLiNER,
    windows: Sequence[Window],
    thresholds: Sequence[Sequence[float]],
    budget: TokenBudget,
) -> list[list[Candidate]]:
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
    list of list of Candidate
        For each text, in words of the text, ordered by start, end and label.
    """
    found: list[list[Candidate]] = [[] for _ in thresholds]
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            todo = list(plan(windows, budget.tokens))[::-1]
            while todo:
                group = todo.pop()
                try:
                    _run(model, [windows[index] for index in group], thresholds, budget, found)
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
    for candidates in found:
        candidates.sort(key=lambda candidate: candidate[:3])
    return found


def _run(
    model: GLiNER,
    windows: Sequence[Window],
    thresholds: Sequence[Sequence[float]],
    budget: TokenBudget,
    found: list[list[Candidate]],
) -> None:
    """Run one group of windows and add what it finds to `found`."""
    device = model.device
    before = 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    batch = model.encoder.collate(windows).to(device)
    if not batch.windows.prompt_mask.shape[1]:
        return
    limits = torch.full(batch.windows.prompt_mask.shape, torch.inf)
    for row, window in enumerate(windows):
        limits[row, : len(thresholds[window.text])] = torch.tensor(thresholds[window.text])
    probs = model.score(batch).sigmoid_()
    keep = probs > limits.to(device)[:, None, None, :]
    keep &= valid_spans(batch.windows, probs.shape[2])[..., None]
    where = keep.nonzero()
    scores = probs[keep].cpu().numpy()
    rows, starts, widths, labels = where.cpu().numpy().T
    texts = np.array([window.text for window in windows])[rows]
    shift = np.array([window.start for window in windows])[rows]
    columns = (texts, starts + shift, starts + shift + widths, labels, scores)
    for text, start, end, label, score in zip(*(column.tolist() for column in columns), strict=True):
        found[text].append(Candidate(start, end, label, score))
    budget.observe(device, int(batch.windows.input_ids.numel()), before)
