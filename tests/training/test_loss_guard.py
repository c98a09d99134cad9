from __future__ import annotations

import math

import pytest

from gliner_pipe.errors import TrainingError
from gliner_pipe.training.step import LossGuard

RATES = {"transformer": 5e-5, "task": 1e-4}


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops(loss):
    guard = LossGuard()
    guard.check(1, 0.5, RATES, [])
    with pytest.raises(TrainingError) as caught:
        guard.check(2, loss, RATES, [f"train.jsonl:{line}" for line in range(1, 11)])
    message = str(caught.value)
    assert "step 2" in message and f"is {loss}" in message
    assert "transformer 5e-05, task 0.0001" in message
    assert "train.jsonl:1, " in message and "and 2 more" in message


def test_gradients_that_are_not_finite_stop():
    with pytest.raises(TrainingError, match=r"step 7.*nan"):
        LossGuard().check_gradients(7, math.nan, RATES, [])


def test_a_diverging_loss_stops_after_patience():
    guard = LossGuard(patience=20)
    for step in range(100):
        guard.check(step, 1.0 / (step + 1), RATES, [])
    with pytest.raises(TrainingError, match="diverges") as caught:
        for step in range(100, 400):
            guard.check(step, 50.0, RATES, [])
    assert "for 20 steps" in str(caught.value)


def test_spikes_and_small_losses_do_not_stop():
    guard = LossGuard()
    for step in range(300):
        guard.check(step, 1.0 / (step + 1), RATES, [])
    for step in range(300, 600):  # more than ten times the lowest, far below the first
        guard.check(step, 0.2, RATES, [])
    for step in range(600, 1200):
        guard.check(step, 500.0 if step % 200 == 0 else 0.01, RATES, [])
    assert guard.steps_above < 100
