from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.train import train
from gliner_pipe.training.arguments import Plan, check_options, output_paths

GOOD = {
    name: parameter.default
    for name, parameter in inspect.signature(train).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}


def test_good_numbers_pass():
    check_options(GOOD)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_steps", 0),
        ("validation_interval", -1),
        ("checkpoint_interval", -1),
        ("patience", 0),
        ("grad_accumulation_max_tokens", 0),
        ("transformer_lr", -1e-5),
        ("task_lr", float("nan")),
        ("weight_decay", -0.1),
        ("num_workers", -1),
        ("warmup_rate", 1.1),
        ("max_grad_norm", 0.0),
        ("mixed_precision", "fp8"),
        ("validation_interval", "day"),
        ("gradient_accumulation_steps", 0),
        ("logging_interval", 0),
        ("save_total_limit", -1),
        ("task_weight_decay", -1.0),
        ("warmup_steps", -1),
        ("ema_decay", 1.0),
        ("start_decay", -0.1),
        ("max_epochs", 0),
        ("patience_threshold", -1.0),
    ],
)
def test_bad_numbers_are_named(name, value):
    with pytest.raises(ConfigError, match=rf"\[train.{name}\] is '?{value}'?; allowed: "):
        check_options({**GOOD, name: value})


def test_output_paths():
    assert output_paths("artifacts/model-last", None) == (
        Path("artifacts/model-last"),
        Path("artifacts/model-best"),
    )
    assert output_paths("a", "b") == (Path("a"), Path("b"))
    for last, best in (("a", "a"), ("a", "a/b"), ("a/b", "a"), ("x/model-best", None)):
        with pytest.raises(ConfigError, match=r"train\.best_path"):
            output_paths(last, best)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_steps": 5, "max_epochs": 1.0}, r"train.max_epochs\] is 1, and max_steps is 5"),
        (
            {"validation_split": 0.1, "val_data": []},
            r"train.validation_split\] is set, and there is val_data",
        ),
        (
            {"load_best_model_at_end": True},
            r"train.load_best_model_at_end\] is set, but there is no val_data",
        ),
        ({"validation_split": 1.5}, r"train.validation_split\] is 1.5; allowed: a number between 0 and 1"),
    ],
)
def test_options_that_do_not_go_together(changes, message):
    with pytest.raises(ConfigError, match=message):
        check_options({**GOOD, **changes})


def plan(**changes):
    return Plan.make({**GOOD, **changes}, lambda: 7)


def test_a_plan_counts_steps_and_epochs():
    assert plan() == Plan(2000, 200, 200)
    assert plan(max_steps=2) == Plan(2, 1, 1)
    assert plan(max_steps=2, validation_interval=0, checkpoint_interval=0) == Plan(2, 1, 1)
    assert plan(max_steps=100, validation_interval=30, checkpoint_interval=7) == Plan(100, 30, 7)
    assert plan(max_epochs=2.5, validation_interval="epoch") == Plan(18, 7, 7)
    assert plan(max_steps=100, checkpoint_interval="epoch") == Plan(100, 10, 7)
