"""A training that is interrupted and resumed ends with the weights of one that was not interrupted."""

from __future__ import annotations

import json
import random
import socket
import sys
import time
from pathlib import Path

import confit
import pytest
import spacy
import torch
from forked import Forked

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.registry import registry
from gliner_pipe.train import main, train
from gliner_pipe.training.checkpoints import FOLDER, checkpoints, random_state, read_state, state_of_device
from tests.training.conftest import records, weights


def options(config_path, **changes):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    return {**resolved["train"], "loggers": [], "validation_interval": 2, **changes}


class StopError(Exception):
    """Raised in the middle of a training."""


def broken_off(config_path, after, **changes):
    """Train until the validation at step `after` is over."""

    def stop(record):
        if record["step"] == after:
            raise StopError

    with pytest.raises(StopError):
        train(**options(config_path, on_validation_callback=stop, **changes))


def same(one, other):
    return [name for name, value in one.items() if not torch.equal(value, other[name])]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ema_decay": 0.8, "start_decay": 10.0, "schedule": "cosine", "optimizer": "NAdam"},
        {"gradient_accumulation_steps": 2, "num_workers": 1, "grad_accumulation_max_tokens": 60},
        {"optimizer": "adafactor"},
        {"optimizer": "muon", "start_decay": 10.0, "ema_decay": 0.8},
        {"checkpoint_interval": 3, "validation_interval": 4, "max_steps": 10},
    ],
)
def test_a_resumed_training_ends_with_the_same_weights(config_path, tmp_path, backbone, changes):
    # dropout is on: the generators must go on from where they were
    config = confit.Config.from_disk(config_path)
    config["components"]["gliner"]["model"]["encoder"]["backbone"]["model"] = str(backbone)
    config["components"]["gliner"]["model"]["dropout"] = 0.3
    path = tmp_path / "dropout.cfg"
    config.to_disk(path)
    changes = {"max_steps": 8, **changes}
    out = {"output_path": tmp_path / "whole" / "model-last"}
    whole = train(**options(path, **changes, **out, loggers=["jsonl", "csv"]))
    broken_off(path, 8 if "checkpoint_interval" in changes else 6, **changes, loggers=["jsonl", "csv"])
    torch.manual_seed(99)
    random.seed(99)
    went_on = train(**options(path, **changes, resume_from_checkpoint="auto", loggers=["jsonl", "csv"]))
    assert same(weights(whole), weights(went_on)) == []
    for name in ("model-last", "model-best"):
        one, other = spacy.load(tmp_path / "whole" / name), spacy.load(tmp_path / "out" / name)
        assert same(weights(one), weights(other)) == []
        assert one.meta["performance"] == other.meta["performance"]
    one, other = (read_state(checkpoints(tmp_path / folder / FOLDER)[-1]) for folder in ("whole", "out"))
    assert one["guard"]["first"] > 0
    for state in (one, other):
        state["optimizer"] = state["optimizer"]["state"]
    for part in ("step", "optimizer", "scheduler", "guard", "average", "anchor"):
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0, msg=part)

    def log(folder):
        lines = [
            json.loads(line)
            for line in (tmp_path / folder / "train_log.jsonl").read_text("utf8").splitlines()
        ]
        return [(line["type"], line["step"], line["loss"]) for line in lines if line["type"] != "start"]

    assert log("out") == log("whole")


def test_checkpoints_are_pipelines_and_old_ones_are_removed(config_path, tmp_path):
    folder = tmp_path / "out" / "checkpoints"
    train(**options(config_path, max_steps=6, checkpoint_interval=1, save_total_limit=2))
    assert sorted(path.name for path in folder.iterdir()) == ["step-000005", "step-000006"]
    assert spacy.load(folder / "step-000005")("Ann lives in Oslo .").text
    assert (folder / "step-000005" / "train_config.cfg").is_file()
    train(**options(config_path, max_steps=3, checkpoint_interval=1, save_total_limit=None, seed=3))
    assert len(list(folder.iterdir())) == 3
    other = tmp_path / "none" / "model-last"
    train(**options(config_path, max_steps=2, save_total_limit=0, output_path=other))
    assert not (other.parent / "checkpoints").exists()


def test_a_new_training_removes_the_checkpoints_of_an_earlier_one(config_path, tmp_path):
    folder = tmp_path / "out" / "checkpoints"
    train(**options(config_path, max_steps=8))
    broken_off(config_path, 2, max_steps=8, seed=3, checkpoint_interval=1)
    assert [path.name for path in folder.iterdir()] == ["step-000001"]
    went_on = train(**options(config_path, max_steps=8, seed=3, resume_from_checkpoint="auto"))
    fresh = train(**options(config_path, max_steps=8, seed=3, output_path=tmp_path / "b" / "model-last"))
    assert same(weights(went_on), weights(fresh)) == []


def test_resuming_from_an_older_checkpoint_keeps_the_new_ones(config_path, tmp_path):
    folder = tmp_path / "out" / "checkpoints"
    train(**options(config_path, max_steps=6, save_total_limit=None))
    first = folder / "step-000002"
    train(**options(config_path, max_steps=4, resume_from_checkpoint=str(first), save_total_limit=1))
    assert [path.name for path in folder.iterdir()] == ["step-000004"]


def test_a_resumed_training_uses_its_own_settings_but_not_another_optimizer(config_path, tmp_path, capsys):
    train(**options(config_path, max_steps=4, checkpoint_interval=2, save_total_limit=None))
    first = str(tmp_path / "out" / "checkpoints" / "step-000002")
    given = {"max_steps": 4, "resume_from_checkpoint": first, "output_path": tmp_path / "b" / "model-last"}
    with pytest.raises(ConfigError) as caught:
        train(**options(config_path, **given, optimizer="sgd"))
    assert caught.value.where == "train.optimizer" and caught.value.allowed == "adamw"
    with pytest.raises(ConfigError) as caught:
        train(**options(config_path, **given, freeze_components=["span_rep"]))
    assert (
        caught.value.where == "train.resume_from_checkpoint" and "freeze_components" in caught.value.allowed
    )
    plain = weights(train(**options(config_path, **given)))
    other = weights(train(**options(config_path, **given, weight_decay=0.9)))
    assert "weight_decay was 0.01 and is 0.9" in capsys.readouterr().out
    assert same(plain, other)


def changed_config(config_path, tmp_path, change):
    config = confit.Config.from_disk(config_path)
    change(config["components"]["gliner"])
    path = tmp_path / "changed.cfg"
    config.to_disk(path)
    return path


@pytest.mark.parametrize(
    ("block", "option", "value", "old"),
    [
        ("encoder", "embed_ent_token", True, "false"),
        ("encoder", "ent_token", "<<LABEL>>", '"<<ENT>>"'),
        ("encoder.backbone", "pooling", "last", '"first"'),
        ("encoder.backbone", "hidden_size", 24, "null"),
    ],
)
def test_settings_that_change_what_weights_mean_are_refused(config_path, tmp_path, block, option, value, old):
    train(**options(config_path, max_steps=2))

    def change(component):
        section = component["model"]
        for name in block.split("."):
            section = section[name]
        section[option] = value

    path = changed_config(config_path, tmp_path, change)
    with pytest.raises(ConfigError) as caught:
        train(**options(path, max_steps=4, resume_from_checkpoint="auto"))
    assert caught.value.where == f"components.gliner.model.{block}.{option}"
    assert f"{option} = {old} in [components.gliner.model.{block}]" in caught.value.do


def test_other_data_and_settings_are_reported(config_path, tmp_path, capsys):
    train(**options(config_path, max_steps=2))
    train(**options(config_path, max_steps=4, resume_from_checkpoint="auto"))
    assert "data was" not in capsys.readouterr().out

    def change(component):
        component["labels"] = ["city", "person"]
        component["model"]["encoder"]["backbone"]["window"] = 64
        component["model"]["dropout"] = 0.1
        component["label_sampling"] = {"all_labels": True}

    path = changed_config(config_path, tmp_path, change)
    given = options(path, max_steps=6, resume_from_checkpoint="auto")
    train(**{**given, "train_data": records(40, seed=3)})
    lines = capsys.readouterr().out.splitlines()
    [settings] = [line for line in lines if "the settings of 'gliner' differ" in line]
    assert 'label_sampling was {"all_labels": true, "shuffle": false} and is {"all_labels": true}' in settings
    for part in ("labels was [", "backbone.window was 384 and is 64", "model.dropout was 0.0 and is 0.1"):
        assert part in settings
    [data] = [line for line in lines if "train_data was" in line]
    assert "64 documents" in data and "40 documents" in data
    assert not any("val_data was" in line for line in lines)


def test_a_complete_training_does_nothing_unless_it_is_made_longer(config_path, tmp_path, capsys):
    short = train(**options(config_path, max_steps=4))
    again = train(**options(config_path, max_steps=4, resume_from_checkpoint="auto"))
    assert "Training is already complete" in capsys.readouterr().out
    assert same(weights(short), weights(again)) == []
    seen = []
    train(
        **options(config_path, max_steps=6, resume_from_checkpoint=True, on_validation_callback=seen.append)
    )
    assert [record["step"] for record in seen] == [6]
    assert "max_steps was 4 and is 6" in capsys.readouterr().out


def test_auto_starts_a_new_training_without_a_checkpoint(config_path, tmp_path):
    fresh = train(**options(config_path))
    other = tmp_path / "other" / "model-last"
    auto = train(**options(config_path, resume_from_checkpoint="auto", output_path=other))
    assert same(weights(fresh), weights(auto)) == []
    by_path = train(
        **options(config_path, max_steps=6, resume_from_checkpoint=str(tmp_path / "out"), output_path=other)
    )
    assert by_path.meta["performance"]


def test_a_missing_and_a_damaged_checkpoint_fail(config_path, tmp_path):
    with pytest.raises(ConfigError, match=r"train.resume_from_checkpoint\] .*nowhere"):
        train(**options(config_path, resume_from_checkpoint=str(tmp_path / "nowhere")))
    train(**options(config_path, max_steps=2))
    [state] = (tmp_path / "out" / "checkpoints").rglob("state.pt")
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"train.resume_from_checkpoint\] .*state.pt"):
        train(**options(config_path, resume_from_checkpoint="auto"))


def test_patience_is_resumed_and_the_best_weights_are_loaded(config_path, tmp_path):
    seen = []
    given = {"max_steps": 40, "patience": 2, "patience_threshold": 1.0, "task_lr": 0.0, "transformer_lr": 0.0}
    train(**options(config_path, **given, on_validation_callback=seen.append))
    assert [record["step"] for record in seen] == [2, 4, 6]
    train(**options(config_path, **given, resume_from_checkpoint="auto", on_validation_callback=seen.append))
    assert len(seen) == 3
    nlp = train(
        **options(
            config_path, max_steps=30, validation_interval=5, schedule="constant", load_best_model_at_end=True
        )
    )
    best = spacy.load(tmp_path / "out" / "model-best")
    assert same(weights(nlp), weights(best)) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_any_moment_and_resumed(config_path, tmp_path):
    """Two runs are killed after some time, and leave models that load; a third comes to the end."""
    whole = train(**options(config_path, max_steps=24, output_path=tmp_path / "whole" / "model-last"))
    arguments = ["--config", config_path, "--max_steps", 24, "--validation_interval", 2]
    arguments += ["--resume_from_checkpoint", "auto"]
    for wait in (0.1, 0.3):
        before = _newest(tmp_path)
        run = Forked(main, arguments, tmp_path / "process")
        while _newest(tmp_path) == before and run.process.is_alive():
            time.sleep(0.01)
        time.sleep(wait)
        assert run.process.is_alive(), "ended before it was killed"
        run.kill()
        for name in ("model-last", "model-best"):
            loaded = spacy.load(tmp_path / "out" / name)
            assert all(torch.isfinite(value).all() for value in weights(loaded).values())
            assert loaded("Ann lives in Oslo .").text == "Ann lives in Oslo ."
    Forked(main, arguments, tmp_path / "process").output()
    assert same(weights(whole), weights(spacy.load(tmp_path / "out" / "model-last"))) == []


def _newest(folder: Path) -> str:
    return max((path.name for path in folder.glob("out/checkpoints/step-*")), default="")


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked")
def test_two_trainings_do_not_share_a_folder(config_path, tmp_path):
    def wait(record):
        (tmp_path / "validated").touch()
        time.sleep(300)

    first = Forked(
        lambda: train(**options(config_path, checkpoint_interval=1, on_validation_callback=wait)),
        [],
        tmp_path / "process",
    )
    try:
        while not (tmp_path / "validated").exists():
            assert first.process.is_alive()
            time.sleep(0.01)
        before = sorted(path.name for path in (tmp_path / "out").rglob("*"))
        for output in ("out", "out/model-last"):
            with pytest.raises(DataError) as caught:
                train(**options(config_path, output_path=tmp_path / output))
            assert f"process {first.process.pid} on {socket.gethostname()}" in caught.value.found
        assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == before
    finally:
        first.kill()
    # and goes on at once
    train(**options(config_path, resume_from_checkpoint="auto"))
    assert not [path for path in (tmp_path / "out").rglob("*") if "lock" in path.name]


@pytest.mark.parametrize(
    ("before", "now", "restored", "explained"),
    [
        ("cuda:0", "cuda:0", 0, False),
        ("cuda:1", "cuda:0", 1, False),  # of several devices, the one in use counts
        ("cuda:0", "cuda:3", 0, False),
        (None, "cuda:1", 1, False),  # earlier checkpoints do not name it
        (None, "cuda:3", 1, False),
        ("cpu", "cpu", None, False),
        ("cpu", "cuda:0", None, True),
        ("cuda:0", "cpu", None, True),
    ],
)
def test_the_generator_of_the_device_is_restored(before, now, restored, explained):
    state = {"cuda": [torch.tensor([0]), torch.tensor([1])]} | ({} if before is None else {"device": before})
    found, why = state_of_device(state, torch.device(now))
    assert found is None if restored is None else int(found) == restored
    assert (why is not None) == explained


def test_the_random_state_names_its_device():
    assert random_state(torch.device("cpu"))["device"] == "cpu"
    assert state_of_device({"cuda": []}, torch.device("cuda", 0))[1] is not None
