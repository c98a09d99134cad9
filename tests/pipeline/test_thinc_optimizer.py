"""The torch counterpart of a thinc optimizer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from thinc.api import SGD, Adam, RAdam
from torch import nn

from gliner_pipe.modeling.backbones.base import pretrained_parameters
from gliner_pipe.pipeline.thinc_optimizer import ThincDrivenOptimizer


def made(model: nn.Module, sgd: Any, most: float | None = None) -> tuple[ThincDrivenOptimizer, list[str]]:
    told: list[str] = []
    optimizer = ThincDrivenOptimizer(
        model, sgd, task_lr_ratio=4.0, max_learn_rate=most, tell=lambda setting, text: told.append(setting)
    )
    return optimizer, told


@pytest.mark.parametrize(
    ("sgd", "kind"),
    [
        (Adam(0.1, use_averages=False), torch.optim.AdamW),
        (Adam(0.1, use_averages=False, L2_is_weight_decay=False), torch.optim.Adam),
        (RAdam(0.1, use_averages=False), torch.optim.RAdam),
        (SGD(0.1, use_averages=False), torch.optim.SGD),
    ],
)
def test_the_kind(sgd: Any, kind: type[torch.optim.Optimizer]) -> None:
    optimizer, told = made(nn.Linear(2, 1), sgd)
    assert type(optimizer.optimizer) is kind and not told


def test_one_step_of_sgd() -> None:
    """w - rate * ratio * (gradient + L2 * w), and no weight decay of the bias."""
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(3.0)
    optimizer, _ = made(model, sgd := SGD(0.1, L2=0.5, grad_clip=0.0, use_averages=False))
    (model.weight.sum() + model.bias.sum()).backward()
    optimizer.step(sgd)
    assert model.weight.item() == pytest.approx(2 - 0.1 * 4 * (1 + 0.5 * 2))
    assert model.bias.item() == pytest.approx(3 - 0.1 * 4)
    assert model.weight.grad is None


def test_the_settings_of_adam_are_followed() -> None:
    sgd = Adam(0.1, beta1=0.8, beta2=0.95, eps=1e-3, L2=0.2, use_averages=False)
    optimizer, _ = made(nn.Linear(1, 1, bias=False), sgd)
    optimizer.step(sgd)
    (group,) = optimizer.optimizer.param_groups
    assert (group["lr"], group["betas"], group["eps"], group["weight_decay"]) == (0.4, (0.8, 0.95), 1e-3, 0.2)


def test_a_high_rate_is_limited_and_told_once(nlp: Any) -> None:
    model = nlp.get_pipe("gliner").network
    optimizer, told = made(model, sgd := Adam(0.001, use_averages=False), most=1e-4)
    pretrained = set(map(id, pretrained_parameters(model)))
    for rate, expected in ((0.001, 1e-4), (0.001, 1e-4), (5e-5, 5e-5)):
        sgd.learn_rate = rate
        optimizer.step(sgd)
        rates = {
            id(parameter) in pretrained: group["lr"]
            for group in optimizer.optimizer.param_groups
            for parameter in group["params"]
        }
        assert rates == {True: pytest.approx(expected), False: pytest.approx(4 * expected)}
    assert told == ["max_learn_rate"]


def test_averages_are_told() -> None:
    assert made(nn.Linear(1, 1), Adam(0.1, use_averages=True))[1] == ["model"]
