from __future__ import annotations

import inspect

import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.train import train
from gliner_pipe.training.arguments import Plan, TrainOptions

GOOD = {
    name: parameter.default
    for name, parameter in inspect.signature(train).parameters.items()
    if parameter.default is not inspect.Parameter.empty
} | {"train_data": []}
for _name in ("config_meta", "trust_remote_code", "transformers_path"):
    GOOD.pop(_name)


def test_the_defaults_are_valid_and_every_option_has_a_type():
    assert {*dict(TrainOptions.of(GOOD))} == {*GOOD}


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
        ("validation_split", 1.5),
    ],
)
def test_values_out_of_range_fail(name, value):
    with pytest.raises(ConfigError) as caught:
        TrainOptions.of({**GOOD, name: value})
    assert caught.value.where == f"train.{name}"
    assert str(value) in caught.value.found and caught.value.allowed


def test_an_error_lists_all_allowed_values():
    with pytest.raises(ConfigError) as caught:
        TrainOptions.of({**GOOD, "validation_interval": "day"})
    assert (
        str(caught.value)
        == "[train.validation_interval] is 'day'; allowed: a valid integer, or 'epoch', or null."
    )


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"max_steps": 5, "max_epochs": 1.0}, "max_epochs"),
        ({"validation_split": 0.1, "val_data": []}, "validation_split"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end"),
        ({"patience": 2}, "patience"),
        ({"feature_cache": "2 apples"}, "feature_cache"),
    ],
)
def test_options_that_exclude_each_other_fail(changes, where):
    with pytest.raises(ConfigError) as caught:
        TrainOptions.of({**GOOD, **changes})
    assert caught.value.where == f"train.{where}"


def plan(**changes):
    return Plan.make(TrainOptions.of({**GOOD, **changes}), lambda: 7)


def test_epochs_are_converted_to_steps():
    assert plan() == Plan(2000, 200, 200)
    assert plan(max_steps=2) == Plan(2, 1, 1)
    assert plan(max_steps=2, validation_interval=0, checkpoint_interval=0) == Plan(2, 1, 1)
    assert plan(max_steps=100, validation_interval=30, checkpoint_interval=7) == Plan(100, 30, 7)
    assert plan(max_epochs=2.5, validation_interval="epoch") == Plan(18, 7, 7)
    assert plan(max_steps=100, checkpoint_interval="epoch") == Plan(100, 10, 7)
