"""Runs windows of many texts in batches of equal cost, in bounded memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gliner_pipe.modeling.backbones.windows import Window, to_device
from gliner_pipe.modeling.batch import SpanVectors
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.encoders.base import EncoderBatch
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.layers.eval_mode import evaluating
from gliner_pipe.modeling.span_reps.base import Found, Readings, all_alike, by_row
from gliner_pipe.util.prefetch import ahead

NumberArray = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)

#: Padded pieces run at once on a CUDA device before its memory is known.
DEFAULT_TOKENS = 8192
#: Padded pieces run at once for each thread of a CPU: what lies between two layers then stays in its cache.
CPU_TOKENS = 512

_Loaded = TypeVar("_Loaded")


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

    A fixed number, or ``"auto"``: on a CPU what its cache holds; on CUDA what the free memory allows, by the memory
    that earlier batches took a piece; halved when the device runs out of memory all the same.

    Parameters
    ----------
    tokens
        The number, or ``"auto"``.
    """

    def __init__(self, tokens: int | Literal["auto"]) -> None:
        self.auto = tokens == "auto"
        self.tokens = DEFAULT_TOKENS if tokens == "auto" else tokens
        self._bytes_per_token = 0.0

    def on(self, device: torch.device) -> int:
        """Padded pieces to be run at once on `device`."""
        if self.auto and device.type == "cpu":
            return min(self.tokens, CPU_TOKENS * torch.get_num_threads())
        return self.tokens

    def observe(self, device: torch.device, tokens: int, before: int) -> None:
        """Learn from a batch of `tokens` pieces; `before` are the bytes allocated when it began."""
        if not self.auto or device.type != "cuda" or not tokens:
            return
        used = (torch.cuda.max_memory_allocated(device) - before) / tokens
        if used <= 0:  # another thread gave memory back meanwhile
            return
        self._bytes_per_token = 0.7 * self._bytes_per_token + 0.3 * used if self._bytes_per_token else used
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        self.tokens = max(512, int(0.6 * (free + cached) / self._bytes_per_token))

    def halve(self) -> None:
        """Ask for less after the device ran out of memory."""
        self.tokens = max(1, self.tokens // 2)
        logger.warning("Out of device memory: going on with %d pieces at once.", self.tokens)


def plan(windows: Sequence[Window], tokens: int) -> Iterator[list[int]]:
    """Group windows of like length, so that a group, padded, holds at most `tokens` pieces (one window at least).

    Windows with one prompt go together as long as they fill groups; the rest of each prompt joins those of others that
    have about as many labels.

    Yields
    ------
    list of int
        Numbers of windows, those with the most pieces first.
    """
    prompts: dict[int, list[int]] = {}
    for index, window in enumerate(windows):
        prompts.setdefault(id(window.prompt), []).append(index)
    rest: dict[int, list[int]] = {}
    for indices in prompts.values():
        *full, last = _cut(windows, indices, tokens)
        yield from full
        rest.setdefault(windows[last[0]].prompt.n_labels.bit_length(), []).extend(last)
    for indices in rest.values():
        yield from _cut(windows, indices, tokens)


def _cut(windows: Sequence[Window], indices: Sequence[int], tokens: int) -> Iterator[list[int]]:
    group: list[int] = []
    longest = 0
    for index in sorted(indices, key=lambda index: -windows[index].n_pieces):
        if group and longest * (len(group) + 1) > tokens:
            yield group
            group = []
        if not group:
            longest = windows[index].n_pieces
        group.append(index)
    if group:
        yield group


def run_groups(
    model: nn.Module,
    windows: Sequence[Window],
    budget: TokenBudget,
    load: Callable[[list[Window]], _Loaded],
    run: Callable[[list[int], _Loaded], int],
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
    load
        Makes the batch of a group on the CPU. Where the model is on another device, a thread loads the next group
        while this one runs.
    run
        Runs one group, given as numbers of windows and its batch, and returns how many padded pieces that took.
    """
    device = cast(torch.device, model.device)
    todo = list(plan(windows, budget.on(device)))

    def batch_of(group: list[int]) -> _Loaded:
        return load([windows[index] for index in group])

    with evaluating(model), torch.inference_mode():
        while todo:
            done = 0
            try:
                for group, batch in ahead(todo, batch_of, in_thread=device.type != "cpu" and len(todo) > 1):
                    before = 0
                    if device.type == "cuda":
                        torch.cuda.reset_peak_memory_stats(device)
                        before = torch.cuda.memory_allocated(device)
                    budget.observe(device, run(group, batch), before)
                    done += 1
            except torch.cuda.OutOfMemoryError:
                if len(todo[done]) == 1:
                    raise
                budget.halve()
            todo = todo[done:]
            if todo:
                torch.cuda.empty_cache()
                rest = [index for group in todo for index in group]
                regrouped = plan([windows[index] for index in rest], budget.on(device))
                todo = [[rest[at] for at in part] for part in regrouped]


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
        One for each label of each text, in [0, 1]. Texts that share a list cost nothing more than the first.
    budget
        How much to run at once.

    Returns
    -------
    list of Findings
        One for each text.
    """
    columns: list[NumberArray] = []
    vectors: dict[int, SpanVectors] = {}
    limits = {id(one): torch.tensor(one, dtype=torch.float32) for one in _distinct(thresholds)}

    def load(group: list[Window]) -> tuple[EncoderBatch, Tensor]:
        batch = model.encoder.collate(group)
        return batch, _limits([limits[id(thresholds[window.text])] for window in group], batch.label_mask)

    def run(group: list[int], loaded: tuple[EncoderBatch, Tensor]) -> int:
        batch = loaded[0].to(model.device)
        if batch.label_mask.shape[1]:
            here = [windows[index] for index in group]
            thresholds_of_rows = to_device(loaded[1], model.device).expand(len(group), -1)
            columns.append(_run(model, batch, thresholds_of_rows, group, here, vectors))
        return int(batch.windows.input_ids.numel())

    run_groups(model, windows, budget, load, run)
    found = [Findings(candidates) for candidates in _by_text(columns, len(thresholds))]
    for index in sorted(vectors):
        found[windows[index].text].windows.append(vectors[index])
    return found


def _distinct(lists: Sequence[Sequence[float]]) -> Iterable[Sequence[float]]:
    return {id(one): one for one in lists}.values()


def _limits(rows: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Threshold of each label of each row, ``(rows, labels)``; infinite for padding; one row where all are alike."""
    if all(row is rows[0] for row in rows):
        return rows[0][None]
    limits = torch.full(mask.shape, torch.inf)
    for row, values in enumerate(rows):
        limits[row, : len(values)] = values
    return limits


def _run(
    model: GLiNER,
    batch: EncoderBatch,
    limits: Tensor,
    indices: Sequence[int],
    windows: Sequence[Window],
    vectors: dict[int, SpanVectors],
) -> NumberArray:
    """Run one group of windows.

    Returns
    -------
    NumberArray
        Text, first and last word, label and score of each span above its threshold, ``(5, found)``. Vectors of spans
        go to `vectors`, by number of the window.
    """
    read = model.encode(batch)
    spans = model.span_rep.find(read, batch.windows, limits)
    found = _on_host(spans)
    rows = found[0].astype(np.int64)
    shift = np.array([window.start for window in windows])[rows]
    found[0] = np.array([window.text for window in windows])[rows]
    found[1] += shift
    found[2] += shift
    if model.span_rep.needs_vectors:
        vectors.update(zip(indices, _vectors(model, read, batch, spans, windows), strict=True))
    return found


def _on_host(spans: Found) -> NumberArray:
    """The five columns as one array, by one copy from the device; numbers are exact up to 2^53."""
    kind = torch.float32 if spans.rows.device.type == "mps" else torch.float64
    packed = torch.stack([column.to(kind) for column in spans])
    return np.asarray(packed.cpu().numpy(), dtype=np.float64)


def _by_text(columns: Sequence[NumberArray], n_texts: int) -> Iterator[list[Candidate]]:
    """Candidates of each text, ordered by start, end and label."""
    if not columns:
        yield from ([] for _ in range(n_texts))
        return
    joined = np.concatenate(columns, axis=1)
    joined = joined[:, np.lexsort(joined[3::-1])]
    counts = np.bincount(joined[0].astype(np.int64), minlength=n_texts)
    starts, ends, labels = joined[1:4].astype(np.int64).tolist()
    listed = map(Candidate, starts, ends, labels, joined[4].tolist())
    for count in counts.tolist():
        yield list(islice(listed, count))


def _vectors(
    model: GLiNER, read: Readings, batch: EncoderBatch, found: Found, windows: Sequence[Window]
) -> Iterator[SpanVectors]:
    """Vectors of the distinct spans of each row, made in one pass, and of its labels."""
    spans = torch.stack([found.rows, found.starts, found.ends], 1).unique(dim=0)
    places, listed = by_row(spans, len(windows))
    vectors = model.span_rep.represent(read.span_words, places, batch.windows.word_mask)[listed]
    counts = torch.bincount(spans[:, 0], minlength=len(windows)).tolist()
    rows = zip(spans[:, 1:].split(counts), vectors.split(counts), strict=True)
    labels, relations = _own(read.labels, batch.label_mask), _own(read.relations, batch.relation_mask)
    for (some, of_spans), names, ties, window in zip(rows, labels, relations, windows, strict=True):
        yield SpanVectors(some + window.start, of_spans, names, ties)


def _own(vectors: Tensor, mask: Tensor) -> list[Tensor]:
    """Vectors of the labels of each row, so that the batch can go; those that all rows share stay shared."""
    counts = mask.sum(1).tolist()
    own = [row[:count] for row, count in zip(vectors, counts, strict=True)]
    return own if all_alike(vectors) else [one.clone() for one in own]
