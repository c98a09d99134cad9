"""Losses of classes by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gliner_pipe.modeling.batch import TaskTargets
from gliner_pipe.modeling.task_losses import class_loss

EMPTY = torch.zeros(0, dtype=torch.long)


def targets(values, single, labels, weights):
    mask = torch.tensor([[value is not None for value in row] for row in values])
    filled = torch.tensor([[value or 0.0 for value in row] for row in values])
    empty = (EMPTY.view(-1, width) for width in (3, 5, 2, 4))
    return TaskTargets(
        torch.tensor(labels),
        torch.tensor(weights),
        filled,
        mask,
        torch.tensor(single),
        *empty,
        None,
        None,
        None,
    )


def test_one_label_to_a_text_is_a_choice_among_the_labels():
    made = targets([[1.0, 0.0, None]], [True], [[0, 0, 0, 0, 0], [0, 0, 1, 0, 1]], [1.0, 1.0])
    loss = class_loss(torch.tensor([2.0, 1.0]), made)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1.0)))


def test_each_of_several_labels_counts_by_itself():
    made = targets([[1.0, 0.0, None]], [False], [[0, 0, 0, 0, 0], [0, 0, 1, 0, 1]], [1.0, 1.0])
    loss = class_loss(torch.tensor([2.0, 1.0]), made)
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(1.0)))


def test_the_logit_of_a_text_is_the_mean_over_its_windows():
    rows = [[0, 0, 0, 0, 0], [0, 0, 1, 0, 1], [1, 0, 0, 0, 0], [1, 0, 1, 0, 1]]
    logits = torch.tensor([4.0, 0.0, 0.0, 2.0], requires_grad=True)
    made = targets([[1.0, 0.0]], [True], rows, [0.75, 0.75, 0.25, 0.25])
    loss = class_loss(logits, made)
    assert float(loss.detach()) == pytest.approx(math.log(1 + math.exp(0.5 - 3.0)))
    loss.backward()
    assert logits.grad.isfinite().all() and logits.grad.abs().sum() > 0
    both = targets(
        [[1.0, 0.0], [1.0, None]], [True, False], [*rows, [1, 1, 0, 1, 0]], [0.75, 0.75, 0.25, 0.25, 1.0]
    )
    more = class_loss(torch.cat([logits.detach(), torch.zeros(1)]), both)
    assert float(more) == pytest.approx(float(loss.detach()) + math.log(2.0))


def test_no_classification():
    made = targets([[1.0]], [True], [[0, 0, 0, 0, 0]], [1.0])
    none = replace(made, labels=EMPTY.view(-1, 5), weights=torch.zeros(0), values=torch.zeros(0, 0))
    none = replace(
        none, value_mask=torch.zeros(0, 0, dtype=torch.bool), single=torch.zeros(0, dtype=torch.bool)
    )
    assert float(class_loss(torch.zeros(0), none)) == 0
