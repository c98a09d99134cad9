"""Inference over the windows of many texts: token budget, grouping, running, and collecting spans per text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gliner_pipe.modeling.backbones.base import Window, to_device
from gliner_pipe.modeling.batch import SpanVectors
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.encoders.base import EncoderBatch
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.layers.cache import evaluating
from gliner_pipe.modeling.span_reps.base import FoundSpans, Representations, all_alike, by_row, keep_scores
from gliner_pipe.modeling.task_finders import CHOICE, FoundValues, TaskInputs
from gliner_pipe.modeling.task_inference import find_values, values_by_text, values_on_host
from gliner_pipe.util.devices import is_out_of_memory, release_memory
from gliner_pipe.util.prefetch import ahead

NumberArray = npt.NDArray[np.float64]

logger = logging.getLogger(__name__)

#: Token budget on a CUDA device before its memory use per token is known.
DEFAULT_TOKENS = 8192
#: Token budget per CPU thread: the activations between two layers then stay in the CPU's cache.
CPU_TOKENS = 512
#: Number of large batches that must fit before the ceiling of a budget rises.
PATIENCE = 32

_Loaded = TypeVar("_Loaded")


class TokenBudget:
    """Maximum number of padded subword tokens in a batch.

    A fixed number, or ``"auto"``: on a CPU what fits its cache; on CUDA what fits the free memory, judging by the
    memory per token of earlier batches.

    If a batch still runs out of memory, half of its size is the ceiling of all later ones. Other programs may have used
    the memory for a while only, so the ceiling rises by an eighth after every `PATIENCE` large batches that fit. If a
    batch then runs out of memory, it falls back to where it was. Each failure after the first doubles the number of
    batches to wait for: where memory stays scarce, ever fewer batches are run in vain.

    Parameters
    ----------
    tokens
        The number, or ``"auto"``.

    Attributes
    ----------
    ceiling
        Maximum after a failure; None before the first.
    """

    def __init__(self, tokens: int | Literal["auto"]) -> None:
        self.auto = tokens == "auto"
        self.tokens = DEFAULT_TOKENS if tokens == "auto" else tokens
        self.ceiling: int | None = None
        self._bytes_per_token = 0.0
        self._patience = self._wait = PATIENCE
        self._below: int | None = None  # the ceiling before it rose

    def on(self, device: torch.device) -> int:
        """Return the budget on `device`."""
        tokens = self.tokens
        if self.auto and device.type == "cpu":
            tokens = min(tokens, CPU_TOKENS * torch.get_num_threads())
        return tokens if self.ceiling is None else min(tokens, self.ceiling)

    def observe(self, device: torch.device, tokens: int, before: int) -> None:
        """Update the budget after a batch of `tokens` tokens; `before` is the number of bytes allocated before it."""
        self._raise_ceiling(tokens)
        if not self.auto or device.type != "cuda" or not tokens:
            return
        used = (torch.cuda.max_memory_allocated(device) - before) / tokens
        if used <= 0:  # another thread released memory during the batch
            return
        self._bytes_per_token = 0.7 * self._bytes_per_token + 0.3 * used if self._bytes_per_token else used
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        self.tokens = max(512, int(0.6 * (free + cached) / self._bytes_per_token))

    def halve(self, tokens: int) -> None:
        """Set the ceiling after a batch of `tokens` tokens ran out of memory."""
        if self.ceiling is not None:
            self._patience *= 2
        self._wait = self._patience
        lower = self._below if self._below is not None and self._below < tokens else max(1, tokens // 2)
        self.ceiling, self._below = lower, None
        logger.warning("Out of device memory: continuing with batches of at most %d tokens.", self.ceiling)

    def _raise_ceiling(self, tokens: int) -> None:
        """Count a batch of `tokens` tokens that did fit."""
        if self.ceiling is None or tokens < 0.75 * self.ceiling:
            return
        self._wait -= 1
        if self._wait <= 0:
            self._wait = self._patience
            self._below = self.ceiling
            self.ceiling += max(1, self.ceiling // 8)


# -- grouping ------------------------------------------------------------------------------------------------------


def plan(windows: Sequence[Window], tokens: int) -> Iterator[list[int]]:
    """Group windows of similar length; a padded group holds at most `tokens` subword tokens, or a single window.

    Windows with the same prompt are grouped together as long as they fill groups. The remaining windows of each prompt
    are grouped with those of prompts with a similar number of labels.

    Yields
    ------
    list of int
        Indices of windows, longest first.
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


# -- running -------------------------------------------------------------------------------------------------------


def run_groups(
    model: nn.Module,
    windows: Sequence[Window],
    budget: TokenBudget,
    load: Callable[[list[Window]], _Loaded],
    run: Callable[[list[int], _Loaded], int],
) -> None:
    """Run windows in groups of similar length, without gradients; if memory runs out, the rest is regrouped.

    Parameters
    ----------
    model
        Set to evaluation mode for the duration of the call.
    windows
        Windows of all texts.
    budget
        Token budget, updated after each group.
    load
        Builds the batch of a group on the CPU. If the model is on another device, a thread loads the next group while
        the current one runs.
    run
        Runs one group, given the indices of its windows and its batch, and returns its number of padded tokens.
    """
    device = cast(torch.device, model.device)
    todo = list(plan(windows, budget.on(device)))

    def with_batch(group: list[int]) -> tuple[list[int], _Loaded]:
        return group, load([windows[index] for index in group])

    with evaluating(model), torch.inference_mode():
        while todo:
            done = 0
            try:
                in_order = ahead if device.type != "cpu" and len(todo) > 1 else map
                for group, batch in in_order(with_batch, todo):
                    before = 0
                    if device.type == "cuda":
                        torch.cuda.reset_peak_memory_stats(device)
                        before = torch.cuda.memory_allocated(device)
                    budget.observe(device, run(group, batch), before)
                    done += 1
            except Exception as error:
                failed = todo[done]
                if len(failed) == 1 or not is_out_of_memory(error):
                    raise
                release_memory(error)
                budget.halve(len(failed) * windows[failed[0]].n_pieces)
            todo = todo[done:]
            if todo:
                rest = [index for group in todo for index in group]
                regrouped = plan([windows[index] for index in rest], budget.on(device))
                todo = [[rest[at] for at in part] for part in regrouped]


@dataclass
class SpanPredictions:
    """Spans found in one text.

    Attributes
    ----------
    candidates
        Spans above their thresholds, in words of the text, ordered by start, end and label.
    windows
        Span vectors of each window, in order; empty if no relation layer or label generator needs them.
    below
        Spans from the lower threshold up to their thresholds, in the same order; empty without a lower threshold.
    class_scores
        Scores of each candidate span for all labels, by its first and last word, and of spans of values if these were
        asked for; empty unless asked for.
    class_logits
        Logits of the labels of the ``classes`` tasks, ``(tasks, labels)``, by number of the task in the query and of
        the label; 0 for others. One for all windows, see `Aggregation`. None if the text has no words or no task has
        classes.
    values
        Values of the fields of records and relations: number of the window, of the task, of the instance and of the
        field, first and last word in the text, and score, ordered, ``(7, values)``; None if there are none.
    """

    candidates: list[Candidate] = field(default_factory=list)
    windows: list[SpanVectors] = field(default_factory=list)
    below: list[Candidate] = field(default_factory=list)
    class_scores: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    class_logits: NumberArray | None = None
    values: NumberArray | None = None


#: How the logits of a class in the windows of a text become one: the mean, weighted by the number of words that each
#: window owns; the largest; or that of the first window.
Aggregation = Literal["mean", "max", "first"]

#: First and last word of the only spans to score in a text; None for all spans.
GivenSpans = Sequence[tuple[int, int]] | None


def predict_spans(
    model: GLiNER,
    windows: Sequence[Window],
    thresholds: Sequence[Sequence[float] | NumberArray],
    budget: TokenBudget,
    *,
    lower: float | None = None,
    given: Sequence[GivenSpans] | None = None,
    class_scores: bool = False,
    score_values: bool = False,
    field_limits: Sequence[NumberArray] | None = None,
    class_aggregation: Aggregation = "mean",
) -> list[SpanPredictions]:
    """Return the spans above their thresholds, text by text.

    Parameters
    ----------
    model
        With weights.
    windows
        Windows of all texts, from ``model.encoder.prepare``.
    thresholds
        One for each label of each text, in [0, 1]. Those that texts share are converted only once.
    budget
        Token budget.
    lower
        Also return the spans above this threshold that are not above their own (``SpanPredictions.below``).
    given
        The only spans of each text that may be returned, in words of the text; None for no restriction.
    class_scores
        Whether to score each candidate span for all labels.
    score_values
        Likewise, the spans of values of fields with them.
    field_limits
        Threshold of each field of the records and relations of each text, in [0, 1], ``(tasks, fields)``; infinite for
        padding. None to find none.
    class_aggregation
        How the logits of a label in several windows become one.
    """
    columns: list[NumberArray] = []
    below: list[NumberArray] = []
    scored: list[tuple[list[Window], Tensor, Tensor]] = []
    vectors: dict[int, SpanVectors] = {}
    classified: list[tuple[list[Window], Tensor, Tensor]] = []
    of_fields: list[NumberArray] = []
    distinct = {id(one): one for one in thresholds}
    limits = {key: torch.tensor(one, dtype=torch.float32) for key, one in distinct.items()}

    def load(group: list[Window]) -> tuple[EncoderBatch, Tensor, TaskInputs | None]:
        batch = model.encoder.collate(group)
        inputs = None
        if field_limits is not None and batch.tasks is not None:
            inputs = TaskInputs.of(group, [field_limits[window.text] for window in group], batch)
        row_limits = [limits[id(thresholds[window.text])] for window in group]
        return batch, _limits(row_limits, batch.label_mask), inputs

    def run(group: list[int], loaded: tuple[EncoderBatch, Tensor, TaskInputs | None]) -> int:
        batch = loaded[0].to(model.device)
        if batch.label_mask.shape[1] or batch.tasks is not None:
            here = [windows[index] for index in group]
            row_limits = to_device(loaded[1], model.device).expand(len(group), -1)
            encoded = model.encode(batch)
            if class_scores or score_values:
                keep_scores(encoded)
            least = row_limits
            if lower is not None:
                least = torch.where(row_limits.isinf(), row_limits, row_limits.clamp(max=lower))
            rest, values = None, list[FoundValues]()
            if loaded[2] is None:
                spans = model.span_rep.find(encoded, batch.windows, least)
            else:
                spans, values = find_values(model, encoded, batch, least, loaded[2].to(model.device))
            if given is not None:
                spans = spans.where(_is_given(spans, here, [given[window.text] for window in here]))
            if lower is not None:
                above = spans.scores > row_limits[spans.rows, spans.labels]
                rest, spans = spans.where(~above), spans.where(above)
            classes = None
            if class_scores or score_values:
                classes = _class_scores(model, encoded, batch, spans, values if score_values else ())
            of_text = _label_logits(model, encoded)
            of_spans = []
            if model.span_rep.needs_vectors:
                of_spans = list(_span_vectors(model, encoded, batch, spans, here))
            # last: a group that runs out of memory before is run again, and must not count twice
            columns.append(_in_texts(_on_host(spans), here))
            of_fields.extend(values_on_host(one, group, here) for one in values)
            if rest is not None:
                below.append(_in_texts(_on_host(rest), here))
            if classes is not None:
                scored.append((here, *classes))
            if of_text is not None:
                classified.append((here, *of_text))
            vectors.update(zip(group, of_spans, strict=False))
        return int(batch.windows.input_ids.numel())

    run_groups(model, windows, budget, load, run)
    predictions = [SpanPredictions(candidates) for candidates in _by_text(columns, len(thresholds))]
    for index in sorted(vectors):
        predictions[windows[index].text].windows.append(vectors[index])
    if below:
        for prediction, candidates in zip(predictions, _by_text(below, len(thresholds)), strict=True):
            prediction.below = candidates
    for here, places, found in scored:
        for (row, start, end), values in zip(places.tolist(), found.tolist(), strict=True):
            window = here[row]
            span = (start + window.first, end + window.first)
            predictions[window.text].class_scores[span] = values[: len(thresholds[window.text])]
    for text, logits in _text_logits(classified, len(thresholds), class_aggregation):
        predictions[text].class_logits = logits
    for text, of_text in values_by_text(of_fields, windows):
        predictions[text].values = of_text
    return predictions


def _label_logits(model: GLiNER, encoded: Representations) -> tuple[Tensor, Tensor] | None:
    """Return row, task and field of the labels of ``classes`` tasks, and their logits, on the CPU; None without any."""
    if encoded.tasks is None or model.classifier is None:
        return None
    places = encoded.tasks.places("classes")
    logits = model.classifier(encoded.tasks.fields[places.unbind(1)])
    return places.cpu(), logits.float().cpu()


def _text_logits(
    parts: Sequence[tuple[Sequence[Window], Tensor, Tensor]], n_texts: int, how: Aggregation
) -> Iterator[tuple[int, NumberArray]]:
    """Yield the logits of each text, ``(tasks, labels)``, from those of its windows."""
    if not any(len(places) for _, places, _ in parts):
        return
    columns = []
    for windows, places, logits in parts:
        rows, tasks, fields = places.numpy().T
        texts = np.array([window.text for window in windows])[rows]
        sizes = np.array([window.own_stop - window.own_start for window in windows])[rows]
        firsts = np.array([window.start == 0 for window in windows])[rows]
        weights = firsts if how == "first" else sizes
        columns.append(np.stack([texts, tasks, fields, weights, logits.double().numpy()]))
    joined = np.concatenate(columns, 1)
    at = tuple(joined[:3].astype(np.int64))
    shape = n_texts, *(int(column.max()) + 1 for column in at[1:])
    if how == "max":
        result = np.full(shape, -np.inf)
        np.maximum.at(result, at, joined[4])
        result[np.isneginf(result)] = 0.0
    else:
        sums = np.zeros((2, *shape))
        np.add.at(sums[0], at, joined[3])
        np.add.at(sums[1], at, joined[3] * joined[4])
        result = np.divide(sums[1], sums[0], out=np.zeros(shape), where=sums[0] > 0)
    yield from ((text, result[text]) for text in np.unique(at[0]).tolist())


def _class_scores(
    model: GLiNER,
    encoded: Representations,
    batch: EncoderBatch,
    spans: FoundSpans,
    values: Sequence[FoundValues],
) -> tuple[Tensor, Tensor]:
    """Return row, first and last word of the distinct spans, and their scores for all labels, on the CPU."""
    places = [torch.stack([spans.rows, spans.starts, spans.ends], 1)]
    places += [torch.stack([some.rows, some.starts, some.ends], 1) for some in values]
    every = torch.cat(places)
    distinct = every[every[:, 2] != CHOICE].unique(dim=0)
    scores = model.span_rep.class_scores(encoded, batch.windows, distinct)
    return distinct.cpu(), scores.float().cpu()


def _is_given(spans: FoundSpans, windows: Sequence[Window], given: Sequence[GivenSpans]) -> Tensor:
    """Whether each span found in these windows is among those given for its text, ``(spans,)``."""
    size = max(window.n_words for window in windows)
    codes = [
        (row * size + start - window.first) * size + end - window.first
        for row, (window, some) in enumerate(zip(windows, given, strict=True))
        for start, end in some or ()
        if window.start <= start <= end < window.stop
    ]
    free = torch.tensor([some is None for some in given], device=spans.rows.device)
    found = (spans.rows * size + spans.starts) * size + spans.ends
    return free[spans.rows] | torch.isin(found, torch.tensor(codes, dtype=torch.long, device=found.device))


def _limits(rows: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Threshold of each label of each row, ``(rows, labels)``; infinite for padding; a single row if all are equal."""
    if all(row is rows[0] for row in rows):
        return rows[0][None]
    limits = torch.full(mask.shape, torch.inf)
    for row, values in enumerate(rows):
        limits[row, : len(values)] = values
    return limits


# -- collecting ----------------------------------------------------------------------------------------------------


def _on_host(spans: FoundSpans) -> NumberArray:
    """Copy the five columns from the device as one array, ``(5, spans)``; integers are exact up to 2^53."""
    dtype = torch.float32 if spans.rows.device.type == "mps" else torch.float64
    packed = torch.stack([column.to(dtype) for column in spans])
    return np.asarray(packed.cpu().numpy(), dtype=np.float64)


def _in_texts(columns: NumberArray, windows: Sequence[Window]) -> NumberArray:
    """Replace the row of each span by its text, and count its words in the text instead of the window."""
    rows = columns[0].astype(np.int64)
    shift = np.array([window.first for window in windows])[rows]
    columns[0] = np.array([window.text for window in windows])[rows]
    columns[1:3] += shift
    return columns


def _by_text(columns: Sequence[NumberArray], n_texts: int) -> Iterator[list[Candidate]]:
    """Yield the candidates of each text, ordered by start, end and label."""
    if not columns:
        yield from ([] for _ in range(n_texts))
        return
    joined = np.concatenate(columns, axis=1)
    joined = joined[:, np.lexsort(joined[3::-1])]
    counts = np.bincount(joined[0].astype(np.int64), minlength=n_texts)
    starts, ends, labels = joined[1:4].astype(np.int64).tolist()
    candidates = map(Candidate, starts, ends, labels, joined[4].tolist())
    for count in counts.tolist():
        yield list(islice(candidates, count))


def _span_vectors(
    model: GLiNER, encoded: Representations, batch: EncoderBatch, found: FoundSpans, windows: Sequence[Window]
) -> Iterator[SpanVectors]:
    """Yield for each row the vectors of its distinct spans, computed in one pass, and of its labels."""
    spans = torch.stack([found.rows, found.starts, found.ends], 1).unique(dim=0)
    places, listed = by_row(spans, len(windows))
    vectors = model.span_rep.represent(encoded.span_words, places, batch.windows.word_mask)[listed]
    counts = torch.bincount(spans[:, 0], minlength=len(windows)).tolist()
    rows = zip(spans[:, 1:].split(counts), vectors.split(counts), strict=True)
    labels = _unpadded(encoded.labels, batch.label_mask)
    relations = _unpadded(encoded.relations, batch.relation_mask)
    for row, window, *of_labels in zip(rows, windows, labels, relations, strict=True):
        yield SpanVectors(row[0] + window.first, row[1], *of_labels)


def _unpadded(vectors: Tensor, mask: Tensor) -> list[Tensor]:
    """Return the label vectors of each row without padding; copied, so that the batch can be freed, unless shared."""
    counts = mask.sum(1).tolist()
    rows = [row[:count] for row, count in zip(vectors, counts, strict=True)]
    return rows if all_alike(vectors) else [row.clone() for row in rows]
