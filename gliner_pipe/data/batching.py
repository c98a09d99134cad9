"""Batches of examples by words, pieces, examples or spans, from examples of similar length."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from spacy.training import Example

from gliner_pipe.data.annotations import DEFAULT_SPANS_KEY, SpanSetter, gold_spans
from gliner_pipe.errors import ConfigError

#: What a batch can be measured in, with other names for the same.
UNITS = {
    "words": "words",
    "tokens": "words",
    "padded_words": "padded_words",
    "pieces": "pieces",
    "samples": "samples",
    "docs": "samples",
    "spans": "spans",
}

#: Tells how many pieces the text of each example is cut into.
PieceCounter = Callable[[Sequence[Example]], Sequence[int]]

_SIZE = re.compile(r"\s*(\d+)\s*([a-z_]*)\s*", re.IGNORECASE)


class BatchSize(NamedTuple):
    """A number and its unit: ``words``, ``padded_words``, ``pieces``, ``samples`` or ``spans``."""

    number: int
    unit: str

    def __str__(self) -> str:
        return f"{self.number} {self.unit}"


def parse_size(size: int | str | BatchSize) -> BatchSize:
    """Read a batch size such as ``"2000 words"``, ``"16 samples"`` or ``16``.

    Parameters
    ----------
    size
        A number alone counts samples. Units: ``words`` (the same: ``tokens``), ``padded_words`` (number of
        examples times the longest of them), ``pieces`` (of the text, as a tokenizer cuts it), ``samples`` (the
        same: ``docs``), ``spans`` (gold entities, at least 1 an example). The last letter may be missing:
        ``"1 word"``.

    Raises
    ------
    ConfigError
        Another unit, or a number below 1.
    """
    if isinstance(size, BatchSize):
        size = str(size)
    allowed = f'a number from 1 on, alone or with {", ".join(UNITS)}, e.g. "2000 words"'
    match = (
        _SIZE.fullmatch(str(size)) if isinstance(size, (int, str)) and not isinstance(size, bool) else None
    )
    unit = match[2].lower() if match else ""
    unit = UNITS.get(unit) or UNITS.get(f"{unit}s") or ("" if unit else "samples")
    if match is None or not unit or int(match[1]) < 1:
        raise ConfigError("batch_size", f"is {size!r}", allowed)
    return BatchSize(int(match[1]), unit)


def example_length(example: Example) -> int:
    """Return the number of words of `example`."""
    return len(example.predicted)


def batches(
    examples: Iterable[Example],
    size: int | str | BatchSize,
    *,
    shuffle: bool = True,
    rng: random.Random | None = None,
    sort_window: int = 0,
    noise: float = 0.1,
    endless: bool = False,
    spans_key: SpanSetter = DEFAULT_SPANS_KEY,
    count_pieces: PieceCounter | None = None,
) -> Iterator[list[Example]]:
    """Yield batches of at most `size`.

    Chance decides which examples meet, and the order of the batches. An example larger than `size` makes a batch of
    its own; no example is left out.

    Parameters
    ----------
    examples
        Read once and kept.
    size
        See :func:`parse_size`.
    shuffle
        Whether chance decides on the order; else batches follow the order of `examples`, and nothing is
        sorted.
    rng
        The only source of chance; seeded with 0 when not given.
    sort_window
        Number of shuffled examples that are sorted by length at a time, which saves padding; 0 or 1 for no
        sorting. Batches of like length are no fair sample of the data: where gradients are clipped, those of
        short texts, which have few entities, weigh as much as all others, and recall suffers.
    noise
        How far a length is falsified for sorting, as a part of it (0.1: by up to 10 percent), so that the
        same examples do not always meet.
    endless
        Whether to go on forever, each pass in a new order.
    spans_key
        Span group that the unit ``spans`` counts.
    count_pieces
        What the unit ``pieces`` counts.

    Raises
    ------
    ConfigError
        If `size` is in pieces and nothing counts these.
    """
    limit = parse_size(size)
    pool = list(examples)
    rng = rng or random.Random(0)
    costs = _costs(pool, limit, spans_key, count_pieces)
    lengths = [example_length(example) for example in pool]
    while pool:
        order = list(range(len(pool)))
        if not shuffle:
            groups: Iterable[list[int]] = _packed(order, costs, limit)
        else:
            rng.shuffle(order)
            groups = _bucketed(order, lengths, costs, limit, rng, sort_window, noise)
        for group in groups:
            yield [pool[i] for i in group]
        if not endless:
            return


def cut_by_length(
    sizes: Sequence[tuple[int, int]], most: int | None = None, overhead: float = math.inf
) -> list[list[int]]:
    """Cut a batch into parts of like length, such that padding and parts together cost least.

    Parameters
    ----------
    sizes
        Rows, and pieces of the longest row, of each text.
    most
        Padded pieces of a part; a text larger than that makes a part of its own. None for no limit.
    overhead
        What a part costs beyond its pieces, as a number of pieces; infinite for as few parts as `most` allows.

    Returns
    -------
    list of list of int
        The texts of each part, the longest part first; a batch that is not cut keeps its order.
    """
    order = sorted(range(len(sizes)), key=lambda text: sizes[text][1])
    rows = np.concatenate([[0], np.cumsum([sizes[text][0] for text in order])])
    least = np.zeros(len(order) + 1)
    came_from = np.zeros(len(order) + 1, dtype=np.int64)
    per_part = 1e12 if math.isinf(overhead) else overhead
    for end in range(1, len(order) + 1):
        pieces = (rows[end] - rows[:end]) * sizes[order[end - 1]][1]
        costs = least[:end] + pieces + per_part
        if most is not None:
            costs[:-1][pieces[:-1] > most] = np.inf
        came_from[end] = costs.argmin()
        least[end] = costs[came_from[end]]
    parts: list[list[int]] = []
    end = len(order)
    while end:
        start = int(came_from[end])
        parts.append(order[start:end])
        end = start
    return [sorted(part) for part in parts]


def _costs(
    examples: Sequence[Example], size: BatchSize, spans_key: SpanSetter, count_pieces: PieceCounter | None
) -> Sequence[int]:
    if size.unit == "pieces":
        if count_pieces is None:
            raise ConfigError(
                "batch_size",
                f"is '{size}', and nothing here cuts texts into pieces",
                ", ".join(unit for unit in UNITS if unit != "pieces"),
            )
        return count_pieces(examples)
    measures: dict[str, Callable[[Example], int]] = {
        "words": example_length,
        "padded_words": example_length,
        "samples": lambda example: 1,
        "spans": lambda example: max(1, len(gold_spans(example.reference, spans_key))),
    }
    return [measures[size.unit](example) for example in examples]


def _packed(order: Sequence[int], costs: Sequence[int], limit: BatchSize) -> Iterator[list[int]]:
    """Yield `order` in groups, each as large as `limit` permits."""
    group: list[int] = []
    total = longest = 0
    for i in order:
        longest = max(longest, costs[i])
        total += costs[i]
        measure = (len(group) + 1) * longest if limit.unit == "padded_words" else total
        if group and measure > limit.number:
            yield group
            group, total, longest = [], costs[i], costs[i]
        group.append(i)
    if group:
        yield group


def _bucketed(
    order: list[int],
    lengths: Sequence[int],
    costs: Sequence[int],
    limit: BatchSize,
    rng: random.Random,
    sort_window: int,
    noise: float,
) -> Iterator[list[int]]:
    """Yield groups of similar length, in random order, from a window of `order` at a time."""
    if sort_window <= 1:
        yield from _packed(order, costs, limit)
        return
    for start in range(0, len(order), sort_window):
        window = order[start : start + sort_window]
        keys = {i: lengths[i] * (1 + noise * (2 * rng.random() - 1)) for i in window}
        groups = list(_packed(sorted(window, key=keys.__getitem__), costs, limit))
        rng.shuffle(groups)
        yield from groups
