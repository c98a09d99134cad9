"""Sampling of records, relations and classes."""

from __future__ import annotations

import random

import pytest

from gliner_pipe.data.task_sampling import TaskSampling
from gliner_pipe.errors import ConfigError
from gliner_pipe.util.options import checked


def test_true_labels_are_kept():
    values = {label: float(label == "c") for label in "abcdefgh"}
    for seed in range(50):
        labels = TaskSampling(drop_labels=1.0).labels(values, random.Random(seed))
        assert "c" in labels and set(labels) <= set(values)
        assert len(TaskSampling(max_labels=2).labels(values, random.Random(seed))) == 2
    sizes = {len(TaskSampling(drop_labels=0.5).labels(values, random.Random(seed))) for seed in range(200)}
    assert (min(sizes), max(sizes)) == (5, 8)


def test_labels_without_a_true_one():
    values = dict.fromkeys("abcd", 0.0)
    sizes = {len(TaskSampling(drop_labels=1.0).labels(values, random.Random(seed))) for seed in range(200)}
    assert sizes == {1, 2, 3, 4}


def test_order():
    items = list("abcdef")
    rng = random.Random(0)
    assert TaskSampling(shuffle=False).some(items, 0.0, rng) == items
    assert TaskSampling().some(items, 0.0, rng) != items
    assert len(TaskSampling().some(items, 1.0, rng)) == 1
    assert TaskSampling().some([], 1.0, rng) == []


@pytest.mark.parametrize("options", [{"drop_tasks": 1.5}, {"max_labels": 0}, {"odd": 1}])
def test_wrong_options(options):
    with pytest.raises(ConfigError) as caught:
        checked(TaskSampling, options, "task_sampling")
    assert next(iter(options)) in caught.value.where or "task_sampling" in caught.value.where
