"""Compares long sequences."""

from __future__ import annotations

from typing import Any

#: Items compared at once.
_STEP = 1024


def equal_at_start(one: tuple[Any, ...], other: tuple[Any, ...]) -> int:
    """Return how many items are equal from the first on; fast where most are the same objects."""
    if one is other:
        return len(one)
    most = min(len(one), len(other))
    for at in range(0, most, _STEP):
        if one[at : min(at + _STEP, most)] != other[at : min(at + _STEP, most)]:
            pairs = zip(one[at:most], other[at:most], strict=True)
            return at + next(place for place, (a, b) in enumerate(pairs) if a is not b and a != b)
    return most
