"""Messages that could mislead: each says where, what was found and what to do, and nothing else is printed."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from confit import Cli

from gliner_pipe.cli.app import explain, run
from gliner_pipe.cli.config_cli import ConfigCli, _check_numbers
from gliner_pipe.data.detect import reader_of_path
from gliner_pipe.data.files import find_files
from gliner_pipe.errors import ConfigError, DataError, shortened
from gliner_pipe.migration import translate
from gliner_pipe.pipeline.build import pipeline_of
from gliner_pipe.pipeline.labels import parse_labels
from gliner_pipe.prediction.job import _check_same
from gliner_pipe.training.validation import _no_such_metric
from gliner_pipe.util.atomic import replace_file
from gliner_pipe.util.listing import advice_on, names_in


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("max_steps", "ten", "a whole number of at least 1"),
        ("max_steps", True, "a whole number of at least 1"),
        ("task_lr", "fast", "a number of at least 0"),
        ("seed", "x", "a whole number from 0"),
    ],
)
def test_a_number_that_is_none(option: str, value: object, allowed: str) -> None:
    with pytest.raises(ConfigError) as raised:
        _check_numbers({"train": {option: value}})
    assert raised.value.where == f"train.{option}"
    assert raised.value.allowed.startswith(allowed) and repr(value) in raised.value.found


@pytest.mark.parametrize("option", ["threshold", "labels", "dtype", "flat_ner", "scheme"])
def test_a_setting_of_a_component_is_no_option_of_train(option: str) -> None:
    with pytest.raises(ConfigError) as raised:
        translate({option: 1}, ["max_steps", "patience_threshold"], lambda _: None)
    assert raised.value.where == f"train.{option}"
    assert f"components.NAME.{option}" in raised.value.do and "Did you mean" not in str(raised.value)


def test_labels_as_one_text() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_labels("person,city", "components.gliner.labels")
    assert raised.value.where == "components.gliner.labels"
    assert '["person", "city"]' in raised.value.do


def test_a_missing_file(tmp_path: Path) -> None:
    for name in ("train.jsonl", ".hidden", ".tmp-0af3-model-last", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(DataError) as raised:
        find_files(tmp_path / "trian.jsonl", (".jsonl",))
    assert raised.value.where == str(tmp_path / "trian.jsonl")
    assert raised.value.do == f"Did you mean {tmp_path / 'train.jsonl'}?"
    assert advice_on(tmp_path / "x") == "The folder contains notes.txt, train.jsonl"
    assert str(Path.cwd()) in advice_on(tmp_path / "no" / "x")
    assert names_in(tmp_path, 1) == "notes.txt and 1 more"
    error = explain(FileNotFoundError(2, "No such file", str(tmp_path / "trian.jsonl")))
    assert f"{tmp_path / 'train.jsonl'}?" in error


def test_names_of_temporary_files_are_not_shown(tmp_path: Path) -> None:
    assert explain(PermissionError(13, "Permission denied", "/data/.tmp-0af3-scores.json")) == (
        "/data/scores.json: Permission denied"
    )
    with pytest.raises(DataError) as raised, replace_file(tmp_path):
        raise AssertionError
    assert raised.value.where == str(tmp_path)


def test_long_messages_of_libraries_end_with_a_sentence_or_a_word() -> None:
    text = "It could not be read. Look at https://a.b/c.d for help. " + "More words follow. " * 30
    assert shortened(text, 60) == "It could not be read. Look at https://a.b/c.d for help."
    assert shortened("a word " * 30, 23) == "a word a word a word a ..."
    assert shortened("short\n text") == "short text"


def test_a_missing_pipeline(tmp_path: Path) -> None:
    (tmp_path / "model-best").mkdir()
    (tmp_path / "data.jsonl").touch()
    for name, do in (("model-bets", "model-best?"), ("model-best", ""), ("data.jsonl", "")):
        with pytest.raises(ConfigError) as raised:
            pipeline_of(str(tmp_path / name), where="train.nlp")
        assert raised.value.where == "train.nlp" and raised.value.do.endswith(do)


def test_an_unknown_reader_and_an_unknown_metric(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        reader_of_path(tmp_path, name="conl")
    assert raised.value.where == "reader" and "conll" in raised.value.allowed
    scores = {f"ner.{label}.{key}": 0.5 for label in ("micro", "macro", "a", "b") for key in "prf"}
    error = _no_such_metric("ner.mirco.f", scores)
    assert error.where == "train.best_metric" and error.do == "Did you mean ner.micro.f?"
    assert "ner.a.p" not in error.allowed


def test_predictions_of_another_pipeline_are_named_without_hashes(tmp_path: Path) -> None:
    before: dict[str, Any] = {"settings": {"pipeline": "0af3" * 4}, "inputs": {}}
    with pytest.raises(ConfigError) as raised:
        _check_same(tmp_path, before, {"settings": {"pipeline": "17bc" * 4}, "inputs": {}})
    assert raised.value.where == "pipeline"
    assert "0af3" not in str(raised.value) and "17bc" not in str(raised.value)


@pytest.mark.parametrize("kind", [Cli, ConfigCli])
def test_nothing_but_one_line_is_printed(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    app = kind()

    @app.command(name="train")
    def train(numbers: int, needed: str) -> None: ...

    arguments = ["--numbers", "a,b"]
    with warnings.catch_warnings(), pytest.raises(SystemExit) as stopped:
        warnings.simplefilter("error")
        run(lambda: app([*arguments]), arguments, "gliner-pipe train CONFIG")
    assert stopped.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: [train.numbers]") and "[train.needed] is missing" in line
    assert line.endswith("Write gliner-pipe train CONFIG")
