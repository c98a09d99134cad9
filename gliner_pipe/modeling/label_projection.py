"""Cache of projected label vectors, shared by consecutive batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gliner_pipe.modeling.layers.cache import Cache

#: Maximum number of labels compared or projected at once.
LABELS_AT_ONCE = 8192


class ProjectedLabels:
    """Caches the projections of the last label set.

    They are reused while labels and weights stay the same. If labels were added, removed or replaced, the unchanged
    labels before and after them are not projected again: one more label costs one projection, whatever their number.
    """

    def __init__(self) -> None:
        #: The last labels and their projections, by memory address of the labels. The cache keeps the labels alive, so
        #: the address cannot be reused.
        self._cache: Cache[tuple[object, ...], tuple[Tensor, Tensor]] = Cache(1)

    def forget(self) -> None:
        """Empty the cache."""
        self._cache.forget()

    def of(self, layer: nn.Module, labels: Tensor) -> Tensor:
        """Apply `layer` to labels, ``(labels, hidden)``, which must not be modified afterwards."""
        weights = tuple(layer.parameters())
        key = (labels.data_ptr(), labels.shape)
        cached = self._cache.peek(key, weights)
        if cached is None:
            last = next(iter(self._cache.items(weights).values()), None)
            projected = _projected(layer, labels) if last is None else _updated(layer, labels, *last)
            cached = self._cache.get(key, lambda: (labels, projected), weights)
        return cached[1]


def _updated(layer: nn.Module, labels: Tensor, before: Tensor, projected: Tensor) -> Tensor:
    """Project labels, reusing the projections of the first and last ones that equal those of `before`."""
    head = _equal_at_start(before, labels)
    tail = _equal_at_end(before[head:], labels[head:])
    new = labels[head : len(labels) - tail]
    return torch.cat([projected[:head], _projected(layer, new), projected[len(projected) - tail :]])


def _projected(layer: nn.Module, labels: Tensor) -> Tensor:
    return torch.cat([layer(part) for part in labels.split(LABELS_AT_ONCE)])


def _equal_at_start(one: Tensor, other: Tensor) -> int:
    """Count the equal rows from the first on."""
    most = min(len(one), len(other))
    for at in range(0, most, LABELS_AT_ONCE):
        here = slice(at, min(at + LABELS_AT_ONCE, most))
        differ = (one[here] != other[here]).any(1).nonzero()
        if len(differ):
            return at + int(differ[0])
    return most


def _equal_at_end(one: Tensor, other: Tensor) -> int:
    """Count the equal rows from the last on."""
    most = min(len(one), len(other))
    one, other = one[len(one) - most :], other[len(other) - most :]
    for stop in range(most, 0, -LABELS_AT_ONCE):
        here = slice(max(0, stop - LABELS_AT_ONCE), stop)
        differ = (one[here] != other[here]).any(1).nonzero()
        if len(differ):
            return most - (here.start + int(differ[-1]) + 1)
    return most
