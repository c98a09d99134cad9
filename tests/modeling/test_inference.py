"""Groups of windows on a device whose memory is small: what is run again, and how large later groups are."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gliner_pipe.modeling import inference
from gliner_pipe.modeling.inference import PATIENCE, TokenBudget, run_groups

ERRORS = {
    "torch": torch.OutOfMemoryError("CUDA out of memory"),
    "driver": RuntimeError("CUDA error: out of memory"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


class Small(nn.Module):
    """Has room for `room` subword tokens."""

    device = torch.device("cpu")

    def __init__(self, room, error=ERRORS["torch"]):
        super().__init__()
        self.room, self.error = room, error
        self.failures, self.done, self.largest = 0, [], 0

    def run_all(self, sizes, budget):
        prompt = SimpleNamespace(n_labels=2)
        windows = [SimpleNamespace(n_pieces=size, prompt=prompt) for size in sizes]
        self.done, self.largest = [], 0

        def run(group, _):
            tokens = len(group) * max(sizes[index] for index in group)
            if tokens > self.room:
                self.failures += 1
                raise self.error
            self.done += group
            self.largest = max(self.largest, tokens)
            return tokens

        run_groups(self, windows, budget, list, run)
        assert sorted(self.done) == list(range(len(sizes)))


@pytest.mark.parametrize("error", list(ERRORS))
def test_a_group_that_does_not_fit_is_halved_from_its_own_size(error):
    """7,600 tokens under a budget of a million: groups of 3,760, 1,840 and 880 tokens follow, and not half a million first."""
    model, budget = Small(1000, ERRORS[error]), TokenBudget(1_000_000)
    model.run_all([80] * 95, budget)
    assert model.failures == 3 and budget.on(model.device) == 920
    model.run_all([80] * 95, budget)
    assert model.failures == 3  # later groups respect the ceiling


def test_other_errors_are_not_retried():
    model = Small(10, RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="assert"):
        model.run_all([8, 8], TokenBudget(100))
    assert model.failures == 1


def test_a_window_that_does_not_fit_alone_is_an_error():
    model = Small(10)
    with pytest.raises(torch.OutOfMemoryError):
        model.run_all([8, 20], TokenBudget(100))


def test_the_ceiling_rises_once_memory_is_free_again():
    model, budget = Small(1000), TokenBudget(4000)
    model.run_all([10] * 400, budget)
    assert model.largest <= 1000
    model.room = 10_000
    before = model.failures
    for _ in range(60):
        model.run_all([10] * 4000, budget)
    assert model.largest == 4000 and model.failures == before


def test_the_ceiling_falls_below_a_group_that_no_longer_fits():
    """Back to where it was before it rose, but to half of the group where even that no longer fits."""
    for tokens, expected in ((562, 500), (501, 500), (500, 250), (480, 240)):
        budget, cpu = TokenBudget(4000), torch.device("cpu")
        budget.halve(1000)
        for _ in range(PATIENCE):
            budget.observe(cpu, 500, 0)
        assert budget.on(cpu) == 562
        budget.halve(tokens)
        assert budget.on(cpu) == expected


def test_few_groups_are_run_in_vain_where_memory_stays_scarce():
    model, budget = Small(1000), TokenBudget(4000)
    model.run_all([10] * 400, budget)
    before, runs = model.failures, 0
    for _ in range(400):
        model.run_all([10] * 2000, budget)
        assert model.largest > 700  # a failed rise costs nothing but itself
        runs += 20
    assert model.failures - before <= 2 + (runs // inference.PATIENCE).bit_length()
