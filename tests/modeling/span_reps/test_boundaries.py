"""Starts and ends are joined as a plain loop would join them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gliner_pipe.modeling.span_reps.token_level import pair_boundaries


def by_loop(probs: Any, may_start: Any, may_end: Any, mask: Any, limits: Any) -> dict[Any, float]:
    rows, words, labels, _ = probs.shape
    found = {}
    for row, label in itertools.product(range(rows), range(labels)):
        limit = limits[row, label]
        for start in range(words):
            for end in range(start, words):
                inside = probs[row, start : end + 1, label, 2]
                if not (may_start[row, start] and may_end[row, end] and mask[row, start : end + 1].all()):
                    continue
                if (
                    probs[row, start, label, 0] > limit < probs[row, end, label, 1]
                    and (inside >= limit).all()
                ):
                    ends = probs[row, start, label, 0], probs[row, end, label, 1]
                    found[row, start, end, label] = float(min(*ends, inside.min()))
    return found


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 3),
    words=st.integers(0, 9),
    labels=st.integers(0, 3),
    limit=st.floats(0, 1),
    seed=st.integers(0, 10**6),
)
def test_the_same_spans_and_scores(rows: int, words: int, labels: int, limit: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probs = torch.rand(rows, words, labels, 3, generator=generator).round(decimals=1)  # ties are common
    lengths = torch.randint(0, words + 1, (rows,), generator=generator)
    mask = torch.arange(words) < lengths[:, None]
    may = [mask & (torch.rand(rows, words, generator=generator) < 0.8) for _ in range(2)]
    limits = torch.full((rows, labels), round(limit, 1))
    found = pair_boundaries(probs, *may, mask, limits)
    ours = {
        tuple(key): score
        for *key, score in zip(
            *(column.tolist() for column in (found.rows, found.starts, found.ends, found.labels)),
            found.scores.tolist(),
            strict=True,
        )
    }
    assert len(ours) == len(found.rows)
    assert ours == pytest.approx(by_loop(probs, *may, mask, limits))
