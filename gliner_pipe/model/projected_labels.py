"""Label vectors that were projected, kept from batch to batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gliner_pipe.model.marks import marks

#: Labels that are compared or projected at once.
LABELS_AT_ONCE = 8192


class ProjectedLabels:
    """The projections of the labels that were asked for last.

    They are taken again while labels and weights stay. Where labels were added, removed or put in place of others,
    those before and behind keep what they have: one more label costs the projection of one, whatever their number.
    """

    def __init__(self) -> None:
        self._made: tuple[Any, Tensor, Tensor] | None = None

    def forget(self) -> None:
        """Forget what is kept."""
        self._made = None

    def of(self, layer: nn.Module, labels: Tensor) -> Tensor:
        """Apply `layer` to labels, ``(labels, hidden)``, which nobody writes to afterwards."""
        weights = marks(layer.parameters())
        if self._made is None or self._made[0] != weights:
            self._made = None
            projected = _projected(layer, labels)
        else:
            _, before, made = self._made
            # what went in is kept, so that nothing else can come to lie where it is
            if before.data_ptr() == labels.data_ptr() and before.shape == labels.shape:
                return made
            head = _same_at_start(before, labels)
            tail = _same_at_end(before[head:], labels[head:])
            new = labels[head : len(labels) - tail]
            projected = torch.cat([made[:head], _projected(layer, new), made[len(made) - tail :]])
        self._made = weights, labels, projected
        return projected


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
