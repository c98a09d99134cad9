"""The folder of a training holds all its files, and no other training replaces them unasked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import confit
import pytest
import spacy
import torch

import gliner_pipe
from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from gliner_pipe.training.run_folder import RunFolder
from tests.training.conftest import weights

FILES = ["checkpoints", "model-best", "model-last", "train_config.cfg", "train_log.csv", "train_log.jsonl"]


def options(config_path, **changes):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    return {**resolved["train"], "loggers": [], "validation_interval": 2, "overwrite": False, **changes}


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stopped(config_path, step, **changes):
    """Train until the record of a validation is made."""

    class StopError(Exception):
        pass

    def stop(record):
        if record["step"] == step:
            raise StopError

    with pytest.raises(StopError):
        train(**options(config_path, on_validation_callback=stop, **changes))


def test_places():
    run = Path("runs/1")
    assert RunFolder.of("runs/1") == RunFolder(run, run / "model-last", run / "model-best")
    assert RunFolder.of("runs/1/model-last") == RunFolder.of("runs/1")
    assert RunFolder.of(run, "best").best == Path("best")
    assert RunFolder.of("model-last").path == Path()


@pytest.mark.parametrize(
    ("output", "best", "option"),
    [
        ("a", "a/model-last", "best_path"),
        ("a", "a/model-last/b", "best_path"),
        ("a/model-last", "a", "best_path"),
        ("x/model-best", None, "output_path"),
        ("{pipeline}/sub", None, "output_path"),
        ("{pipeline}/sub/model-last", None, "output_path"),
    ],
)
def test_models_inside_each_other_are_refused(tmp_path, output, best, option):
    spacy.blank("en").to_disk(tmp_path)
    with pytest.raises(ConfigError) as caught:
        RunFolder.of(output.format(pipeline=tmp_path), best)
    assert caught.value.where == f"train.{option}"


@pytest.mark.parametrize("option", ["output_path", "best_path"])
def test_folders_that_cannot_be_written_are_found_before_the_training(tmp_path, option):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "data.jsonl").write_text('{"tokenized_text": ["Ada", "sings"], "ner": [[0, 0, "person"]]}\n')
    given = {"output_path": str(tmp_path / "out"), option: str(tmp_path / "file" / "model")}
    with pytest.raises(ConfigError) as error:
        train(spacy.blank("en"), train_data=str(tmp_path / "data.jsonl"), max_steps=1, **given)
    assert error.value.where == f"train.{option}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "file"]


def test_trainings_in_neighbouring_folders_share_nothing(config_path, tmp_path):
    loggers = ["jsonl", "csv"]
    first, second = tmp_path / "runs" / "1", tmp_path / "runs" / "2"
    train(**options(config_path, output_path=first, loggers=loggers))
    before = content(first)
    train(**options(config_path, output_path=second, seed=3, loggers=loggers))
    assert content(first) == before
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["1", "2"]
    assert sorted(path.name for path in second.iterdir()) == FILES


def test_another_training_in_the_folder_is_refused_before_anything_is_written(config_path, tmp_path):
    train(**options(config_path, loggers=["jsonl", "csv"]))
    before = content(tmp_path / "out")
    for output in ("out", "out/model-last"):
        with pytest.raises(ConfigError) as caught:
            train(**options(config_path, output_path=tmp_path / output, seed=3))
        assert caught.value.where == "train.overwrite"
    checkpoint = shutil.copytree(tmp_path / "out" / "checkpoints" / "step-000004", tmp_path / "kept")
    with pytest.raises(ConfigError) as caught:  # one from elsewhere is another training, too
        train(**options(config_path, resume_from_checkpoint=str(checkpoint)))
    assert caught.value.where == "train.overwrite"
    assert content(tmp_path / "out") == before
    train(**options(config_path, max_steps=6, resume_from_checkpoint="auto"))


def test_an_earlier_training_is_moved_by_default(config_path, tmp_path, capsys):
    out = tmp_path / "out"
    for seed in (1, 2, 3):
        before = content(out) if seed > 1 else {}
        given = options(config_path, seed=seed, loggers=["jsonl", "csv"], overwrite=None)
        trained = train(**given)
        moved = sorted((out / "earlier").iterdir()) if seed > 1 else []
        assert (
            len(moved) == seed - 1
            and sorted(path.name for path in out.iterdir() if path.name in FILES) == FILES
        )
        if moved:
            assert str(moved[-1]) in capsys.readouterr().out
            before = {name: text for name, text in before.items() if not name.startswith("earlier")}
            assert content(moved[-1]) == before
        saved = weights(spacy.load(out / "model-last"))
        assert all(torch.equal(value, saved[name]) for name, value in weights(trained).items())
    train(**options(config_path, max_steps=6, seed=3, overwrite=None, resume_from_checkpoint="auto"))
    assert len(list((out / "earlier").iterdir())) == 2  # a training that is resumed stays


def test_overwrite_leaves_nothing_of_the_earlier_training(config_path, tmp_path, capsys):
    train(**options(config_path, loggers=["jsonl", "csv"], save_total_limit=None))
    given = options(config_path, max_steps=2, seed=3, overwrite=True, save_total_limit=0)
    given.pop("val_data")
    trained = train(**given)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "checkpoints", "model-last", "train_config.cfg"
    ]  # fmt: skip
    assert not list((tmp_path / "out" / "checkpoints").iterdir())
    assert "step-000002, step-000004, train_log.jsonl, train_log.csv" in capsys.readouterr().out
    saved = weights(spacy.load(tmp_path / "out" / "model-last"))
    assert all(torch.equal(value, saved[name]) for name, value in weights(trained).items())


def test_a_training_that_fails_at_once_keeps_the_earlier_one(config_path, tmp_path):
    train(**options(config_path, loggers=["jsonl"]))
    before = content(tmp_path / "out")
    with pytest.raises(ConfigError):
        train(**options(config_path, overwrite=True, best_metric="nothing"))
    assert content(tmp_path / "out") == before


def test_a_training_stopped_before_its_first_checkpoint_begins_again(config_path, tmp_path):
    given = {"resume_from_checkpoint": "auto", "validate_at_start": True}
    stopped(config_path, 0, **given)
    assert (tmp_path / "out" / "model-best").is_dir() and not (tmp_path / "out" / "checkpoints").exists()
    with pytest.raises(ConfigError) as caught:
        train(**options(config_path, **given, task_lr=1e-5))
    assert caught.value.where == "train.overwrite"
    train(**options(config_path, **given, on_validation_callback=lambda record: None))


def older_layout(config_path, tmp_path):
    """Make the files of a training by an earlier version: ``output_path`` was the last model, the rest beside it."""
    run = tmp_path / "runs"
    stopped(config_path, 4, max_steps=6, output_path=run, loggers=["jsonl"])
    for path in (*run.glob("checkpoints/*/train_config.cfg"), run / "train_config.cfg"):
        text = path.read_text("utf8")
        path.write_text(text.replace(f'"{run}"', f'"{run / "first"}"'), encoding="utf8")
    return (run / "model-last").rename(run / "first")


def test_a_training_of_the_older_layout_is_resumed_in_place(config_path, tmp_path):
    whole = train(**options(config_path, max_steps=6, output_path=tmp_path / "whole"))
    last = older_layout(config_path, tmp_path)
    given = {"max_steps": 6, "output_path": last, "loggers": ["jsonl"]}
    trained = train(**options(config_path, **given, resume_from_checkpoint="auto"))
    assert all(torch.equal(value, weights(whole)[name]) for name, value in weights(trained).items())
    saved = weights(spacy.load(last))
    assert all(torch.equal(value, saved[name]) for name, value in weights(trained).items())
    run = last.parent
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints", "first", "model-best", "train_config.cfg", "train_log.jsonl"
    ]  # fmt: skip
    lines = [json.loads(line) for line in (run / "train_log.jsonl").read_text("utf8").splitlines()]
    assert [line["step"] for line in lines if line["type"] == "step"] == [1, 2, 3, 4, 5, 6]


def test_a_pipeline_is_not_the_folder_of_a_new_training(config_path, tmp_path):
    last = older_layout(config_path, tmp_path)
    before = content(last.parent)
    for changes in ({}, {"overwrite": True}):
        with pytest.raises(ConfigError) as caught:
            train(**options(config_path, output_path=last, **changes))
        assert caught.value.where == "train.output_path"
    # a second training of that layout shared the folder: its checkpoint is not that of this one
    shutil.copytree(last, last.with_name("second"))
    with pytest.raises(ConfigError) as caught:
        train(**options(config_path, output_path=last.with_name("second"), resume_from_checkpoint="auto"))
    assert caught.value.where == "train.output_path"
    assert {name: text for name, text in content(last.parent).items() if "second" not in name} == before
    # nor is its best model
    trained = train(**options(config_path, output_path=tmp_path / "new", resume_from_checkpoint=str(last)))
    assert trained.meta["performance"]


def test_the_folder_of_a_training_stands_for_its_best_model(config_path, tmp_path, capsys):
    train(**options(config_path))
    run = tmp_path / "out"
    for name in ("model-best", "model-last"):
        found, expected = weights(gliner_pipe.load(run)), weights(spacy.load(run / name))
        assert all(torch.equal(value, expected[key]) for key, value in found.items())
        assert f"its {name} is used" in capsys.readouterr().out
        shutil.rmtree(run / "model-best", ignore_errors=True)
