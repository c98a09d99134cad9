"""The labels of documents, and what the model reads of them: made once for a label set, however large."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gliner_pipe.pipeline.gliner.restrictions import patterns_of
from gliner_pipe.pipeline.labels import LabelItem, parse_labels
from gliner_pipe.util.patterns import Pattern
from gliner_pipe.util.sequences import equal_at_start

#: Labels from which on a label set is kept for the next document.
MANY = 256
#: Number of labels that may differ from the label set before, so that the others are not parsed again.
FEW = 8


class ParsedLabels(NamedTuple):
    """The labels to find in a document.

    Attributes
    ----------
    items
        The labels.
    texts
        What the model reads for each label.
    thresholds
        Minimum score of each label; NaN for the component's.
    patterns
        The pattern of each label that has one.
    """

    items: tuple[LabelItem, ...]
    texts: tuple[str, ...]
    thresholds: npt.NDArray[np.float64]
    patterns: dict[str, Pattern]

    @classmethod
    def of(cls, items: tuple[LabelItem, ...], before: ParsedLabels) -> ParsedLabels:
        """Return the label set of some labels; what it shares with another set is taken from there."""
        start = equal_at_start(before.items, items) if before.items else 0
        if items and start == len(items) == len(before.items):
            return before
        new = items[start:]
        some = items if before.patterns else new
        thresholds = np.array(
            [np.nan if item.threshold is None else item.threshold for item in new], np.float64
        )
        return cls(
            items,
            before.texts[:start] + tuple([item.text for item in new]),
            np.concatenate([before.thresholds[:start], thresholds]),
            patterns_of(some) if any(item.pattern is not None for item in some) else {},
        )

    def limits(self, threshold: float) -> npt.NDArray[np.float64]:
        """Return the minimum score of each label, given that of labels without their own."""
        return np.where(np.isnan(self.thresholds), threshold, self.thresholds)


_NONE = ParsedLabels((), (), np.zeros(0), {})


class LabelParser:
    """Parses label sets; the last large one is kept, so that documents with the same labels, or a few others, are fast.

    Copies and pickles are empty.
    """

    def __init__(self) -> None:
        self._last = _NONE
        self._parsed: tuple[tuple[str, ...], tuple[LabelItem, ...]] = (), ()  # strings, and the label of each

    def __reduce__(self) -> tuple[type[LabelParser], tuple[()]]:
        return LabelParser, ()

    def parse(self, labels: Iterable[Any], where: str) -> tuple[LabelItem, ...]:
        """Return the labels that ``parse_labels`` returns."""
        if not isinstance(labels, (list, tuple)) or len(labels) < MANY:
            return parse_labels(labels, where)
        given = tuple(labels)
        before, items = self._parsed
        start = equal_at_start(before, given)
        if start == len(given) == len(before):
            return items
        new = given[start:]
        if start >= MANY and len(new) <= FEW and all(type(label) is str and label.strip() for label in new):
            more = [item for item in parse_labels(new, where) if item.label not in given[:start]]
            items = items[:start] + tuple(more)
        else:
            items = parse_labels(given, where)
        if len(items) == len(given) and (start >= MANY or set(map(type, given)) == {str}):
            self._parsed = given, items
        return items

    def of(self, items: tuple[LabelItem, ...]) -> ParsedLabels:
        """Return the label set of some labels."""
        if len(items) < MANY:
            return ParsedLabels.of(items, _NONE)
        self._last = made = ParsedLabels.of(items, self._last)
        return made
