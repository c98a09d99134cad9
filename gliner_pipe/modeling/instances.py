"""Relations and records of a text, from the values that were found for their fields in its windows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gliner_pipe.modeling.backbones.base import Window
from gliner_pipe.modeling.decoders.span import Candidate
from gliner_pipe.modeling.task_finders import CHOICE
from gliner_pipe.modeling.tasks import Task

#: Selects among the values of a field that overlap.
Decode = Callable[[list[Candidate]], list[Candidate]]
#: Whether a value may be one of the task and the field of these numbers.
Matches = Callable[[int, int, Candidate], bool]


class Instance(NamedTuple):
    """A relation or a record.

    Attributes
    ----------
    task
        Number of the task in the query.
    values
        Values of each field, ordered by place: first and last word in the text, number of the field and score; of a
        choice its number, and `CHOICE`.
    """

    task: int
    values: tuple[tuple[Candidate, ...], ...]

    def first(self) -> int | None:
        """Return its first word; None if all its values are choices."""
        return min((one.start for part in self.values for one in part if one.end != CHOICE), default=None)

    def keys(self) -> list[set[tuple[int, int]]]:
        """Return the values of each field without their scores."""
        return [{one[:2] for one in part} for part in self.values]


def find_instances(
    found: npt.NDArray[np.float64],
    windows: Sequence[Window],
    tasks: Sequence[Task],
    decode: Decode,
    matches: Matches | None = None,
) -> list[Instance]:
    """Return the relations and records of one text.

    An instance belongs to the window that owns its first word. Two windows may each see a part of a record: one whose
    values are all among those of a record of a window that shares words with its own is left out, and so is one of
    choices alone, which have no place, if another record of the text has them.

    Parameters
    ----------
    found
        Number of the window, task, instance and field of each value, its first and last word in the text, and its
        score, ``(7, values)``, ordered.
    windows
        Those that the numbers count.
    tasks
        The tasks of the text.
    decode
        Selects among values of one field that overlap.
    matches
        Whether a value is allowed; all are by default.

    Returns
    -------
    list of Instance
        Ordered by task, window and number.
    """
    rows: list[list[int]] = found[:6].astype(np.int64).T.tolist()
    by_task: dict[int, list[tuple[int, Instance]]] = {}
    values = zip(rows, found[6].tolist(), strict=True)
    for (window, task, _), group in groupby(values, key=lambda one: tuple(one[0][:3])):
        fields: list[list[Candidate]] = [[] for _ in tasks[task].fields]
        for (*_, field, start, end), score in group:
            candidate = Candidate(start, end, field, score)
            if matches is None or matches(task, field, candidate):
                fields[field].append(candidate)
        chosen = tuple(
            _chosen(some, field.is_list, decode)
            for some, field in zip(fields, tasks[task].fields, strict=True)
        )
        needed = all if tasks[task].kind == "relation" else any
        instance = Instance(task, chosen)
        first = instance.first()
        own = windows[window]
        if needed(chosen) and (first is None or own.own_start <= first < own.own_stop):
            by_task.setdefault(task, []).append((window, instance))
    return [one for task in sorted(by_task) for one in _distinct(by_task[task], windows)]


def _chosen(values: list[Candidate], is_list: bool, decode: Decode) -> tuple[Candidate, ...]:
    """Return the values of a field that stay: without overlaps, and the best alone if the field takes one value."""
    kept = values if not values or values[0].end == CHOICE else decode(values)
    return tuple(kept) if is_list or not kept else (max(kept, key=attrgetter("score")),)


def _distinct(found: Sequence[tuple[int, Instance]], windows: Sequence[Window]) -> Iterator[Instance]:
    """Yield the instances of one task without those that another window sees more of."""
    by_window: dict[int, list[list[set[tuple[int, int]]]]] = {}
    for window, instance in found:
        by_window.setdefault(window, []).append(instance.keys())
    placeless: dict[tuple[frozenset[tuple[int, int]], ...], int] = {}
    for window, instance in found:
        keys = instance.keys()
        if instance.first() is None:
            others: Iterable[int] = by_window
            if placeless.setdefault(tuple(map(frozenset, keys)), window) != window:
                continue
        else:
            others = _neighbours(window, windows)
        seen = (other for number in others if number != window for other in by_window.get(number, ()))
        if not any(other != keys and all(map(set.issubset, keys, other)) for other in seen):
            yield instance


def _neighbours(window: int, windows: Sequence[Window]) -> Iterator[int]:
    """Yield the numbers of other windows of the same text that share words with a window."""
    this = windows[window]
    for step in (-1, 1):
        number = window + step
        while 0 <= number < len(windows) and windows[number].text == this.text:
            other = windows[number]
            if other.start >= this.stop or other.stop <= this.start:
                break
            yield number
            number += step
