from __future__ import annotations

from pathlib import Path

import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.training.options import check_numbers, intervals, output_paths, translate

GOOD = {
    "max_steps": 1,
    "validation_interval": None,
    "checkpoint_interval": None,
    "patience": None,
    "grad_accumulation_max_tokens": None,
    "transformer_lr": 0.0,
    "task_lr": 1e-4,
    "weight_decay": 0.0,
    "num_workers": 0,
    "warmup_rate": 1.0,
    "max_grad_norm": None,
    "mixed_precision": "no",
}


def test_other_names():
    notes: list[str] = []
    options = translate(
        {"grad_max_norm": 5, "output_dir": "out", "sub_batch_size": "1000 tokens", "logger": ["csv"]},
        [],
        notes.append,
    )
    assert options == {
        "max_grad_norm": 5.0,
        "output_path": Path("out/model-last"),
        "grad_accumulation_max_tokens": 1000,
        "loggers": ["csv"],
    }
    assert notes[0] == "note: grad_max_norm is read as max_grad_norm = 5.0"


def test_unknown_options_get_a_hint():
    with pytest.raises(
        ConfigError, match=r"\[train.max_step\] is no option of train.*Did you mean 'max_steps'"
    ):
        translate({"max_step": 3}, ["nlp", "max_steps"], print)
    with pytest.raises(ConfigError, match=r"sub_batch_size.*'4 splits'"):
        translate({"sub_batch_size": "4 splits"}, [], print)


def test_good_numbers_pass():
    check_numbers(GOOD)


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
    ],
)
def test_bad_numbers_are_named(name, value):
    with pytest.raises(ConfigError, match=rf"\[train.{name}\] is '?{value}'?; allowed: "):
        check_numbers({**GOOD, name: value})


def test_output_paths():
    assert output_paths("artifacts/model-last", None) == (
        Path("artifacts/model-last"),
        Path("artifacts/model-best"),
    )
    assert output_paths("a", "b") == (Path("a"), Path("b"))
    for last, best in (("a", "a"), ("a", "a/b"), ("a/b", "a"), ("x/model-best", None)):
        with pytest.raises(ConfigError, match=r"train\.best_path"):
            output_paths(last, best)


def test_intervals_are_at_least_one_step():
    assert intervals(2000, None, None) == (200, 200)
    assert intervals(2, None, None) == (1, 1)
    assert intervals(2, 0, 0) == (1, 1)
    assert intervals(100, 30, 7) == (30, 7)
