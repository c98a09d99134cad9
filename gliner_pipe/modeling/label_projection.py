"""Label vectors that were projected, kept from batch to batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gliner_pipe.modeling.layers.cache import Cache

#: Labels that are compared or projected at once.
LABELS_AT_ONCE = 8192


class ProjectedLabels:
    """The projections of the labels that were asked for last.

    They are taken again while labels and weights stay. Where labels were added, removed or put in place of others,
    those before and behind keep what they have: one more label costs the projection of one, whatever their number.
    """

    def __init__(self) -> None:
        #: The last labels and their projections, by where the labels lie: as long as they are kept, nothing else can
        #: come to lie there.
        self._made: Cache[tuple[object, ...], tuple[Tensor, Tensor]] = Cache(1)

    def forget(self) -> None:
        """Forget what is kept."""
        self._made.forget()

    def of(self, layer: nn.Module, labels: Tensor) -> Tensor:
        """Apply `layer` to labels, ``(labels, hidden)``, which nobody writes to afterwards."""
        weights = tuple(layer.parameters())
        key = (labels.data_ptr(), labels.shape)
        found = self._made.peek(key, weights)
        if found is None:
            before = next(iter(self._made.items(weights).values()), None)
            made = _projected(layer, labels) if before is None else _changed(layer, labels, *before)
            found = self._made.get(key, lambda: (labels, made), weights)
        return found[1]


def _changed(layer: nn.Module, labels: Tensor, before: Tensor, made: Tensor) -> Tensor:
    """Projections of labels, some of which are those of `before`."""
    head = _same_at_start(before, labels)
    tail = _same_at_end(before[head:], labels[head:])
    new = labels[head : len(labels) - tail]
    return torch.cat([made[:head], _projected(layer, new), made[len(made) - tail :]])


def _projected(layer: nn.Module, labels: Tensor) -> Tensor:
    return torch.cat([layer(part) for part in labels.split(LABELS_AT_ONCE)])


def _same_at_start(one: Tensor, other: Tensor) -> int:
    """How many rows are the same from the first on."""
    most = min(len(one), len(other))
    for at in range(0, most, LABELS_AT_ONCE):
        here = slice(at, min(at + LABELS_AT_ONCE, most))
        differ = (one[here] != other[here]).any(1).nonzero()
        if len(differ):
            return at + int(differ[0])
    return most


def _same_at_end(one: Tensor, other: Tensor) -> int:
    """How many rows are the same from the last on."""
    most = min(len(one), len(other))
    one, other = one[len(one) - most :], other[len(other) - most :]
    for stop in range(most, 0, -LABELS_AT_ONCE):
        here = slice(max(0, stop - LABELS_AT_ONCE), stop)
        differ = (one[here] != other[here]).any(1).nonzero()
        if len(differ):
            return most - (here.start + int(differ[-1]) + 1)
    return most
