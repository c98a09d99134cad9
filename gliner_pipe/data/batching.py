"""Batches of examples, limited by words, padded words, subword tokens, examples or spans."""

from __future__ import annotations

import math
import random
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from spacy.training import Example

from gliner_pipe.data.annotations import DEFAULT_SPANS_KEY, SpanSetter, gold_spans
from gliner_pipe.data.lazy import LazyExamples, Subset
from gliner_pipe.errors import ConfigError

#: Units of a batch size, with their synonyms.
UNITS = {
    "words": "words",
    "tokens": "words",
    "padded_words": "padded_words",
    "pieces": "pieces",
    "samples": "samples",
    "docs": "samples",
    "spans": "spans",
}

#: Fixed cost of a part of a batch, in subword tokens. On a CPU gradients are accumulated and those of the embeddings
#: allocated once more, which was measured; a GPU is busy only with parts of some thousand subword tokens.
OVERHEAD = {"cpu": 64, "cuda": 4096}
#: Number of examples whose size is determined at once, when they are drawn.
COUNTED_AT_ONCE = 512

#: Returns the number of subword tokens of the text of each example.
PieceCounter = Callable[[Sequence[Example]], Sequence[int]]

_SIZE = re.compile(r"\s*(\d{1,15})\s*([a-z_]*)\s*", re.IGNORECASE)


class BatchSize(NamedTuple):
    """A number and its unit: ``words``, ``padded_words``, ``pieces``, ``samples`` or ``spans``."""

    number: int
    unit: str

    def __str__(self) -> str:
        return f"{self.number} {self.unit}"


def parse_size(size: int | str | BatchSize) -> BatchSize:
    """Parse a batch size such as ``"2000 words"``, ``"16 samples"`` or ``16``.

    Parameters
    ----------
    size
        A number alone counts examples. Units: ``words`` (or ``tokens``), ``padded_words`` (number of examples times
        the length of the longest), ``pieces`` (subword tokens of the text), ``samples`` (or ``docs``), ``spans`` (gold
        entities, at least 1 for each example). The final s may be missing: ``"1 word"``.

    Raises
    ------
    ConfigError
        Another unit, or a number below 1.
    """
    if isinstance(size, BatchSize):
        size = str(size)
    allowed = f'a number from 1 on, alone or with {", ".join(UNITS)}, e.g. "2000 words"'
    valid = isinstance(size, (int, str)) and not isinstance(size, bool)
    match = _SIZE.fullmatch(str(size)) if valid else None
    unit = match[2].lower() if match else ""
    unit = UNITS.get(unit) or UNITS.get(f"{unit}s") or ("" if unit else "samples")
    if match is None or not unit or int(match[1]) < 1:
        raise ConfigError("batch_size", f"is {size!r}", allowed)
    return BatchSize(int(match[1]), unit)


def batches(
    examples: Iterable[Example],
    size: int | str | BatchSize,
    *,
    shuffle: bool = True,
    rng: random.Random | None = None,
    spans_key: SpanSetter = DEFAULT_SPANS_KEY,
    count_pieces: PieceCounter | None = None,
) -> Iterator[Sequence[Example]]:
    """Yield batches of at most `size`: lists, or parts of a lazy sequence whose examples are made when they are read.

    An example larger than `size` is a batch of its own; no example is left out. Examples are not grouped by length:
    batches of similar length are no fair sample of the data. With gradient clipping, those of short texts, which have
    few entities, weigh as much as all others, and recall suffers.

    Parameters
    ----------
    examples
        Read once and kept.
    size
        See :func:`parse_size`.
    shuffle
        Shuffle the examples; otherwise batches follow their order.
    rng
        Source of randomness; seeded with 0 by default.
    spans_key
        Span group that the unit ``spans`` counts.
    count_pieces
        Counts the unit ``pieces``.

    Raises
    ------
    ConfigError
        `size` is in pieces, and `count_pieces` is missing.
    """
    limit = parse_size(size)
    pool = examples if isinstance(examples, LazyExamples) else list(examples)
    order = array("q", range(len(pool)))
    if shuffle:
        (rng or random.Random(0)).shuffle(order)
    group = array("q")
    total = longest = 0
    for at in range(0, len(order), COUNTED_AT_ONCE):
        some = order[at : at + COUNTED_AT_ONCE]
        for i, cost in zip(some, _costs(_chosen(pool, some), limit, spans_key, count_pieces), strict=True):
            longest = max(longest, cost)
            total += cost
            measure = (len(group) + 1) * longest if limit.unit == "padded_words" else total
            if group and measure > limit.number:
                yield _chosen(pool, group)
                group, total, longest = array("q"), cost, cost
            group.append(i)
    if group:
        yield _chosen(pool, group)


def _chosen(pool: list[Example] | LazyExamples, places: Sequence[int]) -> Sequence[Example]:
    return Subset(pool, places) if isinstance(pool, LazyExamples) else [pool[i] for i in places]


def _costs(
    examples: Sequence[Example], size: BatchSize, spans_key: SpanSetter, count_pieces: PieceCounter | None
) -> Sequence[int]:
    """Return the size of each example in the unit of `size`."""
    if size.unit == "samples":
        return [1] * len(examples)
    if isinstance(examples, LazyExamples) and size.unit in ("words", "padded_words"):
        lengths: list[int] = examples.lengths.tolist()
        return lengths
    if size.unit == "spans":
        return [max(1, len(gold_spans(example.reference, spans_key))) for example in examples]
    if size.unit != "pieces":
        return [len(example.predicted) for example in examples]
    if count_pieces is None:
        allowed = ", ".join(unit for unit in UNITS if unit != "pieces")
        raise ConfigError("batch_size", f"is '{size}', and no component counts subword tokens", allowed)
    return count_pieces(examples)


def overhead_of(device: str) -> float:
    """Return the fixed cost of a part of a batch on a type of device, in subword tokens."""
    return OVERHEAD.get(device, OVERHEAD["cuda"])


def cut_by_length(
    sizes: Sequence[tuple[int, int]], most: int | None = None, overhead: float = math.inf
) -> list[list[int]]:
    """Split a batch into parts of similar length, so that padding and parts together cost least.

    Parameters
    ----------
    sizes
        For each text, its number of rows and the subword tokens of its longest row.
    most
        Maximum number of padded subword tokens of a part; a larger text is a part of its own. None for no limit.
    overhead
        Fixed cost of a part in subword tokens; infinite for as few parts as `most` allows.

    Returns
    -------
    list of list of int
        The texts of each part, the longest part first. A batch that is not split keeps its order.
    """
    order = sorted(range(len(sizes)), key=lambda text: sizes[text][1])
    rows = np.concatenate([[0], np.cumsum([sizes[text][0] for text in order])])
    least = np.zeros(len(order) + 1)
    came_from = np.zeros(len(order) + 1, dtype=np.int64)
    per_part = 1e12 if math.isinf(overhead) else overhead
    for end in range(1, len(order) + 1):
        padded = (rows[end] - rows[:end]) * sizes[order[end - 1]][1]
        costs = least[:end] + padded + per_part
        if most is not None:
            costs[:-1][padded[:-1] > most] = np.inf
        came_from[end] = costs.argmin()
        least[end] = costs[came_from[end]]
    parts: list[list[int]] = []
    end = len(order)
    while end:
        start = int(came_from[end])
        parts.append(order[start:end])
        end = start
    return [sorted(part) for part in parts]
