"""Chooses the labels of classifications: of all choices that obey the rules, the one with the highest total score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb, log, prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gliner_pipe.data.classes import Chosen
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.gliner.class_rules import BoolArray, Expression, OneLabel, holds, labels_in
from gliner_pipe.pipeline.gliner.task_settings import ClassesItem

NumberArray = npt.NDArray[np.float64]

#: Minimum score of a label of a task that may have several.
THRESHOLD = 0.5
#: Most combinations of labels that rules connect; all are kept in memory.
MOST_COMBINATIONS = 1 << 18
VIOLATED = "text whose classes cannot obey all class_rules"
_EPSILON = 1e-12


def utilities(item: ClassesItem, logits: NumberArray) -> NumberArray:
    """Return how much each label adds to the total score of a choice: 0 at the threshold of the task.

    For a task with several labels to a text it is the logit of the label minus that of the threshold; for one with a
    single label the logarithm of its probability minus that of the threshold.

    Notes
    -----
    Source: the constrained classifier of GLiNER2 2.1, whose tasks with a single label add the same number to each.
    """
    scaled = logits / item.temperature
    if item.multi_label:
        limit = min(max(THRESHOLD if item.threshold is None else item.threshold, _EPSILON), 1 - _EPSILON)
        return np.asarray(scaled - log(limit / (1 - limit)))
    shifted = scaled - scaled.max()
    values = shifted - np.log(np.exp(shifted).sum())
    values -= 0.0 if item.threshold is None else log(max(item.threshold, _EPSILON))
    if item.default is not None:
        at = item.names.index(item.default)
        values[at] = max(values[at], 0.0)
    return np.asarray(values)


class _Options(NamedTuple):
    """What can be chosen among the labels of a task that rules name.

    The other labels follow by their scores alone: each option says how many of them there may be.

    Attributes
    ----------
    bound, free
        Numbers of the labels that rules name, and of the others.
    chosen
        Which of the bound labels each option has, ``(options, bound)``.
    least, most
        Number of free labels beside them, ``(options,)``.
    """

    bound: list[int]
    free: list[int]
    chosen: BoolArray
    least: npt.NDArray[np.int64]
    most: npt.NDArray[np.int64]

    @classmethod
    def of(cls, item: ClassesItem, bound: list[int]) -> _Options:
        free = [number for number in range(len(item.names)) if number not in bound]
        rows = list(_rows(item, bound, len(free)))
        chosen = np.zeros((len(rows), len(bound)), dtype=bool)
        for row, (some, _, _) in zip(chosen, rows, strict=True):
            row[list(some)] = True
        limits = np.array([row[1:] for row in rows], dtype=np.int64).reshape(-1, 2)
        return cls(bound, free, chosen, limits[:, 0], limits[:, 1])

    def values(self, utility: NumberArray) -> tuple[NumberArray, npt.NDArray[np.int64], list[int]]:
        """Return the utility of each option, its number of free labels, and these labels, the best first."""
        ranked = sorted(self.free, key=lambda number: -utility[number])
        sums = np.concatenate([[0.0], np.cumsum(utility[ranked])])
        number = np.clip(int((utility[ranked] >= 0).sum()), self.least, self.most)
        return self.chosen @ utility[self.bound] + sums[number], number, ranked


def _rows(item: ClassesItem, bound: list[int], n_free: int) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """Yield each option: positions among the bound labels, and how few and many free labels may be added."""
    least, most = item.bounds
    default = item.names.index(item.default) if item.multi_label and item.default is not None else None
    for size in range(min(most, len(bound)) + 1):
        for some in combinations(range(len(bound)), size):
            low, high = max(0, least - size), min(most - size, n_free)
            if default is not None and any(bound[at] == default for at in some):
                if size > 1:
                    continue
                low = high = 0
            if low <= high:
                yield some, low, high


def needs_choice(items: Sequence[ClassesItem]) -> bool:
    """Return whether a classification with several labels bounds their number or has a default."""
    return any(
        item.multi_label and (item.min_labels, item.max_labels, item.default) != (None, None, None)
        for item in items
    )


class ClassChoice:
    """Chooses the labels of several classifications, each for itself or together where rules connect them.

    All combinations of the labels that rules name are written down once; a text costs a few sums.

    Parameters
    ----------
    items
        The classifications.
    rules
        What the labels of a text must obey.
    where
        Section of the rules, for errors.

    Attributes
    ----------
    violated
        How many rules each choice violates, because none obeys all of them.

    Raises
    ------
    ConfigError
        If rules connect too many labels.
    """

    def __init__(self, items: Sequence[ClassesItem], rules: Sequence[Expression], where: str) -> None:
        self.items, self.violated = items, 0
        numbers = {item.name: number for number, item in enumerate(items)}
        named: list[set[int]] = [set() for _ in items]
        for number, item in enumerate(items):
            if item.multi_label and item.default is not None:
                named[number].add(item.names.index(item.default))
        groups = [{number} for number in range(len(items))]
        for rule in rules:
            labels = list(labels_in(rule))
            for task, label in labels:
                named[numbers[task]].add(items[numbers[task]].names.index(label))
            together = {numbers[task] for task, _ in labels}
            joined = [group for group in groups if group & together]
            groups = [group for group in groups if not group & together] + [set().union(*joined)]
        sizes = [
            sum(comb(len(some), size) for size in range(min(item.bounds[1], len(some)) + 1))
            for item, some in zip(items, named, strict=True)
        ]
        for group in groups:
            if (size := prod(sizes[number] for number in group)) > MOST_COMBINATIONS:
                found = (
                    f"connects labels of {', '.join(repr(items[number].name) for number in sorted(group))}"
                )
                allowed = f"rules that connect at most {MOST_COMBINATIONS:,} combinations of labels"
                do = "Name fewer labels, or set max_labels of a task"
                raise ConfigError(where, f"{found} with {size:,} combinations", allowed, do)
        self.options = [_Options.of(item, sorted(some)) for item, some in zip(items, named, strict=True)]
        self.groups = [self._combined(sorted(group), rules) for group in groups]

    def _combined(
        self, group: list[int], rules: Sequence[Expression]
    ) -> tuple[list[int], npt.NDArray[np.intp]]:
        """Return the tasks of a group, and the options of each in all combinations that obey the rules."""
        options = [self.options[number] for number in group]
        grid = np.indices([len(one.chosen) for one in options]).reshape(len(group), -1)
        columns = {
            OneLabel(self.items[number].name, self.items[number].names[label]): one.chosen[places, at]
            for number, one, places in zip(group, options, grid, strict=True)
            for at, label in enumerate(one.bound)
        }
        own = [rule for rule in rules if next(labels_in(rule)) in columns]
        violated = np.zeros(grid.shape[1], dtype=np.int64)
        for rule in own:
            violated += ~holds(rule, columns)
        self.violated += int(violated.min(initial=len(own)))
        return group, grid[:, violated == violated.min(initial=len(own))]

    def __call__(self, logits: NumberArray) -> list[Chosen]:
        """Return the chosen label or labels of each classification.

        Parameters
        ----------
        logits
            Logits of the labels of each classification, and perhaps of others after them, ``(tasks, labels)``.
        """
        chosen: list[Chosen] = [None] * len(self.items)
        for group, grid in self.groups:
            valued = [
                self.options[number].values(
                    utilities(self.items[number], logits[number, : len(self.items[number].names)])
                )
                for number in group
            ]
            total = sum(values[places] for (values, _, _), places in zip(valued, grid, strict=True))
            best = int(np.argmax(total))
            for number, (_, counts, ranked), places in zip(group, valued, grid, strict=True):
                option, names = self.options[number], self.items[number].names
                of_rules = {option.bound[at] for at in np.flatnonzero(option.chosen[places[best]])}
                some = of_rules | set(ranked[: counts[places[best]]])
                labels = [name for at, name in enumerate(names) if at in some]
                chosen[number] = labels if self.items[number].multi_label else next(iter(labels), None)
        return chosen
