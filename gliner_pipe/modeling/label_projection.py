"""Cache of projected label vectors, shared by consecutive batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gliner_pipe.modeling.layers.cache import Cache

#: Maximum number of labels compared or projected at once.
LABELS_AT_ONCE = 8192


class ProjectedLabels:
    """Caches the projections of the last label set, and of the largest one.

    They are reused while labels and weights stay the same. If labels were added, removed or replaced, the unchanged
    labels before and after them are not projected again: one more label costs one projection, whatever their number.
    The largest set is kept as well, so that texts with few labels of their own do not cost its projections.
    """

    def __init__(self) -> None:
        #: Labels and their projections, by memory address of the labels. The caches keep the labels alive, so the
        #: address cannot be reused.
        self._last: Cache[tuple[object, ...], tuple[Tensor, Tensor]] = Cache(1)
        self._largest: Cache[tuple[object, ...], tuple[Tensor, Tensor]] = Cache(1)

    def forget(self) -> None:
        """Empty the caches."""
        self._last.forget()
        self._largest.forget()

    def of(self, layer: nn.Module, labels: Tensor) -> Tensor:
        """Apply `layer` to labels, ``(labels, hidden)``, which must not be modified afterwards."""
        weights = tuple(layer.parameters())
        key = (labels.data_ptr(), labels.shape)
        cached = self._last.peek(key, weights) or self._largest.peek(key, weights)
        if cached is None:
            largest = list(self._largest.items(weights).values())
            known = [*self._last.items(weights).values(), *largest]
            nearest = min(known, key=lambda one: abs(len(one[0]) - len(labels)), default=None)
            made = labels, _projected(layer, labels) if nearest is None else _updated(layer, labels, *nearest)
            cached = self._last.get(key, lambda: made, weights)
            if not largest or len(labels) >= len(largest[0][0]):
                self._largest.get(key, lambda: made, weights)
        return cached[1]


def _updated(layer: nn.Module, labels: Tensor, before: Tensor, projected: Tensor) -> Tensor:
    """Project labels, reusing the projections of the first and last ones that equal those of `before`."""
    head = _equal_at_start(before, labels)
    if head == len(labels):
        return projected[:head]
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
        if not torch.equal(one[here], other[here]):
            return at + int((one[here] != other[here]).any(1).nonzero()[0])
    return most


def _equal_at_end(one: Tensor, other: Tensor) -> int:
    """Count the equal rows from the last on."""
    most = min(len(one), len(other))
    one, other = one[len(one) - most :], other[len(other) - most :]
    for stop in range(most, 0, -LABELS_AT_ONCE):
        here = slice(max(0, stop - LABELS_AT_ONCE), stop)
        if not torch.equal(one[here], other[here]):
            return most - (here.start + int((one[here] != other[here]).any(1).nonzero()[-1]) + 1)
    return most
