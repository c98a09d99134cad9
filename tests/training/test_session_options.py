"""Options for validation, epochs, accumulation, determinism and compilation."""

from __future__ import annotations

import json

import confit
import pytest
import spacy
import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from tests.training.conftest import records, weights, write


def options(config_path, **changes):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    return {**resolved["train"], "loggers": [], **changes}


def test_validation_after_each_epoch(config_path):
    """64 sentences in batches of 8 are 8 steps an epoch, 4 with two batches a step."""
    seen = []
    given = {"max_steps": None, "validation_interval": "epoch", "on_validation_callback": seen.append}
    train(**options(config_path, max_epochs=1.5, **given))
    assert [record["step"] for record in seen] == [8, 12]
    seen.clear()
    train(**options(config_path, max_epochs=2, gradient_accumulation_steps=2, **given))
    assert [record["step"] for record in seen] == [4, 8]


def test_accumulating_two_batches_equals_their_union(config_path):
    """Nothing is sampled in this task, so that a step of two batches is the step of their union."""
    sgd = {"optimizer": "sgd", "max_grad_norm": 0.1, "task_lr": 0.1, "transformer_lr": 0.1, "max_steps": 1}
    once = weights(train(**options(config_path, batch_size="16 samples", **sgd)))
    twice = weights(
        train(**options(config_path, batch_size="8 samples", gradient_accumulation_steps=2, **sgd))
    )
    for name, value in once.items():
        assert torch.allclose(value, twice[name], atol=1e-6), name


def test_validation_split_holds_out_training_data(config_path, capsys):
    seen = []
    given = options(config_path, max_steps=2, validation_interval=2, on_validation_callback=seen.append)
    train(**{**given, "val_data": None, "validation_split": 0.25})
    assert seen[-1]["validation"]["docs"] == 16
    assert "training data: 48 examples" in capsys.readouterr().out


def test_unseen_labels_are_held_out_and_scored_apart(config_path, tmp_path, capsys):
    config = confit.Config.from_disk(config_path)
    config["components"]["gliner"]["labels"] = []
    given = {**config.resolve(registry=registry)["train"], "loggers": [], "scorer": None, "max_steps": 150}
    seen = []
    nlp = train(
        **{
            **given,
            "unseen_labels": ["city"],
            "validation_interval": 150,
            "on_validation_callback": seen.append,
        }
    )
    assert nlp.get_pipe("gliner").labels == ("person",)
    assert "held out of the training: 57 x city" in capsys.readouterr().out
    scores = seen[-1]["scores"]["zero_shot"]
    assert scores["seen"]["person"]["f"] > 0.4 and "city" not in scores["seen"]
    assert "person" not in scores["unseen"] and scores["unseen"]["city"]["support"] > 0
    config["components"]["gliner"]["labels"] = ["person", "city"]
    given = {**config.resolve(registry=registry)["train"], "loggers": [], "unseen_labels": ["city"]}
    with pytest.raises(ConfigError) as caught:
        train(**given)
    assert caught.value.where == "train.unseen_labels" and "'city'" in caught.value.found


def test_unseen_labels_of_no_data_are_refused(config_path, tmp_path):
    given = confit.Config.from_disk(config_path).resolve(registry=registry)["train"]
    with pytest.raises(ConfigError) as caught:
        train(**{**given, "loggers": [], "unseen_labels": ["citty"]})
    assert caught.value.where == "train.unseen_labels" and caught.value.allowed == "city, person"
    assert "city" in caught.value.do


@pytest.mark.parametrize("path", ["", " "])
def test_the_folder_of_a_training_has_a_name(path, config_path):
    given = confit.Config.from_disk(config_path).resolve(registry=registry)["train"]
    with pytest.raises(ConfigError) as caught:
        train(**{**given, "output_path": path})
    assert caught.value.where == "train.output_path"


def test_a_folder_that_is_a_link_to_itself_is_an_error(config_path, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    given = confit.Config.from_disk(config_path).resolve(registry=registry)["train"]
    with pytest.raises((ConfigError, OSError)):
        train(**{**given, "output_path": tmp_path / "loop", "loggers": []})


def test_the_weights_before_the_first_step_can_be_the_best(config_path, tmp_path):
    start = spacy.load(train_once(config_path, tmp_path))
    seen = []
    # no weight changes: no later validation is better
    given = options(config_path, max_steps=2, validation_interval=1, transformer_lr=0.0, task_lr=0.0)
    out = tmp_path / "b" / "model-last"
    given |= {"on_validation_callback": seen.append, "output_path": out, "loggers": ["jsonl", "csv"]}
    train(**{**given, "nlp": start, "validate_at_start": True, "patience": 5})
    assert [(record["step"], record["best"]) for record in seen] == [(0, True), (1, False), (2, False)]
    best = weights(spacy.load(out.with_name("model-best")))
    assert all(torch.equal(value, best[name]) for name, value in weights(start).items())


def test_logging_interval(config_path, tmp_path):
    train(**options(config_path, max_steps=10, logging_interval=4, loggers=["jsonl"]))
    lines = [
        json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text("utf8").splitlines()
    ]
    assert [line["step"] for line in lines if line["type"] == "step"] == [1, 4, 8, 10]


def test_full_determinism_is_reset_after_the_training(config_path, monkeypatch):
    states = []

    def look(record):
        states.append(torch.are_deterministic_algorithms_enabled())

    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    one = train(**options(config_path, full_determinism=True, on_validation_callback=look))
    other = train(**options(config_path))
    assert states and all(states) and not torch.are_deterministic_algorithms_enabled()
    assert all(torch.equal(value, weights(other)[name]) for name, value in weights(one).items())


def test_compiled_transformers_learn_the_same_and_keep_their_weight_names(config_path, tmp_path):
    plain = weights(train(**options(config_path, max_steps=2)))
    compiled = train(**options(config_path, max_steps=2, compile="eager"))
    saved = weights(spacy.load(tmp_path / "out" / "model-last"))
    assert list(saved) == list(plain)
    for name, value in plain.items():
        assert torch.allclose(value, weights(compiled)[name], atol=1e-5), name
    with pytest.raises(ConfigError) as caught:
        train(**options(config_path, compile="nvcc"))
    assert caught.value.where == "train.compile" and "true, false, " in caught.value.allowed


def test_records_are_training_data(tmp_path, config_path):
    rows = records(16)
    nlp = spacy.load(train_once(config_path, tmp_path))
    again = train(
        nlp, rows, rows[:4], max_steps=1, batch_size="4 samples", output_path=tmp_path / "b" / "model-last"
    )
    assert again.meta["performance"]["ner.micro.f"] is not None
    write(tmp_path / "rows.jsonl", rows)


def train_once(config_path, tmp_path):
    train(**options(config_path, max_steps=1))
    return tmp_path / "out" / "model-last"
