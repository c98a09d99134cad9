from __future__ import annotations

import pytest
import torch
from confit.errors import ConfitValidationError

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.training.schedules import constant, cosine, linear, make_schedule, polynomial


def rates(schedule, steps: int = 10, lr: float = 1.0) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = schedule.build(optimizer, steps)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


def test_linear_rises_and_falls_to_zero():
    assert rates(linear(0.2)) == pytest.approx(
        [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8, 0]
    )


def test_linear_matches_transformers_apart_from_the_idle_first_step():
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3.0)
    theirs = get_linear_schedule_with_warmup(optimizer, 4, 20)
    values = []
    for _ in range(20):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    ours = rates(linear(0.2), 20, lr=3.0)
    assert values[0] == 0 < ours[0]
    assert ours[:4] == pytest.approx(values[1:5])  # the warm-up is one step ahead
    assert ours[4:20] == pytest.approx(values[4:])


def test_end_factor_is_where_they_end():
    for make in (linear, cosine, polynomial):
        seen = rates(make(0.1, end_factor=0.25))
        assert seen[-1] == pytest.approx(0.25)
        assert seen[1] == pytest.approx(1.0)


def test_shapes():
    assert rates(constant(), 4) == [1, 1, 1, 1, 1]
    assert rates(constant(0.5), 4) == [0.5, 1, 1, 1, 1]
    half = rates(cosine(0.0), 4)
    assert half == pytest.approx([1, 0.853553, 0.5, 0.146447, 0], abs=1e-6)
    assert rates(polynomial(0.0, power=2.0), 4) == pytest.approx([1, 9 / 16, 4 / 16, 1 / 16, 0])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps_still_learn(steps):
    assert all(rate > 0 for rate in rates(linear(0.1), steps)[:-1])
    assert all(rate > 0 for rate in rates(linear(1.0), steps)[:-1])


def test_registry_and_names():
    assert {"linear", "cosine", "constant", "polynomial"} <= set(registry.schedules.get_available())
    named = make_schedule("cosine", warmup_rate=0.5)
    assert named.warmup_rate == 0.5
    block = registry.schedules.get("constant")(warmup_rate=0.3)
    assert make_schedule(block, warmup_rate=0.1) is block
    assert make_schedule(None, 0.1).factor(50, 100) == linear(0.1).factor(50, 100)


def test_invalid_schedules_fail():
    with pytest.raises(ConfigError) as caught:
        make_schedule("linaer", 0.1)
    assert caught.value.where == "train.schedule" and "constant, cosine" in caught.value.allowed
    with pytest.raises(ConfitValidationError) as refused:
        linear(1.5)
    assert refused.value.errors()[0]["loc"] == ("warmup_rate",)


def test_the_warm_up_may_be_given_in_steps():
    schedule = make_schedule("linear", 0.5, warmup_steps=4)
    assert [schedule.factor(step, 100) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert make_schedule(cosine(warmup_rate=0.5), 0.1, warmup_steps=2).factor(1, 100) == 1.0


def test_restarts_and_the_inverse_square_root():
    restarts = make_schedule("cosine_with_restarts", 0.0)
    factors = [restarts.factor(step, 100) for step in (0, 25, 49, 50, 75, 100)]
    assert factors[0] == factors[3] == 1.0 and factors[1] == factors[4] == pytest.approx(0.5)
    assert factors[2] < 0.01 and factors[5] == pytest.approx(0.0, abs=1e-9)
    root = make_schedule("inverse_sqrt", 0.1)
    # one over the square root of the steps, counted in warm-ups
    assert [root.factor(step, 1000) for step in (100, 400, 900)] == pytest.approx([1.0, 1 / 2, 1 / 3])
