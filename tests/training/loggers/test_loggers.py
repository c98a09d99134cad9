from __future__ import annotations

import csv
import json
import re
import sys
import time

import numpy as np
import pytest
from logger_records import step, validation

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.training.loggers import CsvLogger, JsonlLogger, RichLogger, RunInfo, make_loggers
from gliner_pipe.training.loggers.base import flatten


def test_flatten():
    assert dict(flatten({"a": {"b": {"c": 1}, "d": None}, "e": 2})) == {"a.b.c": 1, "a.d": None, "e": 2}


def test_jsonl_writes_each_line_at_once(tmp_path):
    logger = JsonlLogger()
    logger.start(RunInfo(2, tmp_path, "[train]", {"torch": "2"}))
    logger.step({**step(1), "loss": np.float32(0.5)})
    lines = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text("utf8").splitlines()]
    assert [line["type"] for line in lines] == ["start", "step"]
    assert lines[0]["versions"] == {"torch": "2"} and lines[0]["config"] == "[train]"
    assert lines[1]["loss"] == 0.5 and lines[1]["lr"]["task"] == 1e-4
    logger.validation(validation(2, 0.3))
    logger.finish()
    last = json.loads((tmp_path / "train_log.jsonl").read_text("utf8").splitlines()[-1])
    assert last["type"] == "validation" and last["scores"]["ner"]["micro"]["f"] == 0.3


def test_csv_has_one_row_a_validation_and_stable_columns(tmp_path):
    path = tmp_path / "train_log.csv"
    logger = CsvLogger()
    logger.start(RunInfo(4, tmp_path))
    logger.step(step(1))
    logger.validation(validation(2, None))
    first = path.read_text("utf8").splitlines()[0]
    assert first.startswith("step,loss,lr.transformer,lr.task,words_per_second,best,loss_per_example,scores.")
    logger.validation(validation(4, 0.5))
    assert path.read_text("utf8").splitlines()[0] == first
    logger.validation(validation(6, 0.6, city={"f": 0.1}))
    logger.finish()
    rows = list(csv.DictReader(path.read_text("utf8").splitlines()))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [row["scores.ner.micro.f"] for row in rows] == ["", "0.5", "0.6"]
    assert [row["scores.ner.city.f"] for row in rows] == ["", "", "0.1"]
    assert all(None not in row and None not in row.values() for row in rows)


def test_a_second_run_starts_new_files(tmp_path):
    for logger in (CsvLogger("a.csv"), JsonlLogger("a.jsonl")):
        for _ in range(2):
            logger.start(RunInfo(1, tmp_path))
            logger.validation(validation(1, 0.5))
            logger.finish()
    assert len((tmp_path / "a.csv").read_text("utf8").splitlines()) == 2
    assert len((tmp_path / "a.jsonl").read_text("utf8").splitlines()) == 2


def test_a_resumed_run_continues_its_files(tmp_path):
    for logger in (CsvLogger(), JsonlLogger()):
        logger.start(RunInfo(6, tmp_path, "[train]"))
        for number in range(1, 6):
            logger.step(step(number))
            if number % 2 == 0:
                logger.validation(validation(number, number / 10))
        logger.finish()
    with (tmp_path / "train_log.jsonl").open("a") as file:
        file.write('{"type": "step", "st')  # the process was killed
    for logger in (CsvLogger(), JsonlLogger()):
        logger.start(RunInfo(6, tmp_path, "[train]", resumed_step=3))
        for number in (4, 5, 6):
            logger.step(step(number, loss=7.0))
        logger.validation(validation(6, 0.6))
        logger.finish()
    lines = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text("utf8").splitlines()]
    seen = [(line["type"], line.get("step", line.get("resumed_step"))) for line in lines]
    steps = [("step", 1), ("step", 2), ("validation", 2), ("step", 3)]
    more = [("start", 3), ("step", 4), ("step", 5), ("step", 6), ("validation", 6)]
    assert seen == [("start", None), *steps, *more]
    assert [line["loss"] for line in lines if line["type"] == "step"] == [1, 1 / 2, 1 / 3, 7, 7, 7]
    rows = list(csv.DictReader((tmp_path / "train_log.csv").read_text("utf8").splitlines()))
    assert [(row["step"], row["scores.ner.micro.f"]) for row in rows] == [("2", "0.2"), ("6", "0.6")]


def test_a_resumed_run_without_its_files_starts_new_ones(tmp_path):
    for logger in (CsvLogger(), JsonlLogger()):
        logger.start(RunInfo(6, tmp_path, resumed_step=3))
        logger.validation(validation(4, 0.5))
        logger.finish()
    assert len((tmp_path / "train_log.csv").read_text("utf8").splitlines()) == 2
    assert len((tmp_path / "train_log.jsonl").read_text("utf8").splitlines()) == 2


def test_rich_prints_at_its_interval_though_not_every_step_is_logged(tmp_path, capsys):
    logger = RichLogger(interval=10)
    logger.start(RunInfo(100, tmp_path, resumed_step=40))
    for number in range(44, 101, 4):
        logger.step(step(number))
    logger.finish()
    shown = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["52/100", "60/100", "72/100", "80/100", "92/100", "100/100"]


def test_rich_prints_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    logger = RichLogger(interval=5)
    logger.start(RunInfo(12, tmp_path))
    for number in range(1, 13):
        logger.step(step(number))
    logger.validation(validation(12, 0.4))
    logger.finish()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["1/12", "5/12", "10/12", "12/12"]
    assert "loss 0.1 per example  lr transformer 5.0e-05  lr task 1.0e-04  1,234 words/s" in lines[1]
    assert lines[-1] == "validation at step 12  ner P 25.0  ner R 50.0  ner F 40.0  (best so far)"
    assert not any("\x1b" in line for line in lines)


def test_rich_shows_a_bar_and_a_table_on_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    logger = RichLogger(fields=["work of art.f"])
    logger.start(RunInfo(2, tmp_path))
    logger.step(step(1))
    logger.validation(validation(1, 0.4))
    logger.finish()
    out = capsys.readouterr().out
    assert "1/2" in out and "ner.work of art" in out and "0.0" in out and "P" not in out


def test_rich_fits_into_80_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    logger = RichLogger()
    logger.start(RunInfo(1000, tmp_path))
    scores = {name: {"micro": {"p": 1.0, "r": 0.934, "f": 0.8251}} for name in ("ner", "overlap", "token")}
    for number in range(1, 4):
        logger.validation(
            {**validation(number, 0.4), "scores": {**scores, "relations": {"strict": scores["ner"]}}}
        )
        logger.step(step(number))
        time.sleep(0.3)
    logger.finish()
    lines = [re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\r", "", line) for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= 80 and not any("…" in line for line in lines)
    assert any(line.split() == ["step", "example", "P", "R", "F", "F", "F", "F"] for line in lines)
    assert any(
        line.split() == ["1*", "0.25", "100.0", "93.4", "82.5", "82.5", "82.5", "82.5"] for line in lines
    )
    bars = [line for line in lines if "3/1000" in line]
    assert bars and bars[-1].count("━") > 40


def test_names_and_blocks(tmp_path):
    made = make_loggers(["csv", registry.loggers.get("jsonl")(file_name="x.jsonl")])
    assert isinstance(made[0], CsvLogger) and made[1].file_name == "x.jsonl"
    assert isinstance(make_loggers({"console": RichLogger()})[0], RichLogger)
    assert make_loggers(None) == [] and make_loggers([]) == []
    assert isinstance(make_loggers("csv")[0], CsvLogger)
    assert {"rich", "jsonl", "csv"} <= set(registry.loggers.get_available())
    with pytest.raises(ConfigError, match=r"\[train.loggers\].*'wandbb'.*csv, json, jsonl, .*rich"):
        make_loggers(["wandbb"])
    with pytest.raises(ConfigError, match=r"\[train.loggers\] .* 3"):
        make_loggers([3])


def test_the_default_and_none(monkeypatch):
    kinds = [type(logger).__name__ for logger in make_loggers("default")]
    assert kinds == ["RichLogger", "JsonlLogger", "CsvLogger", "PlotLogger"]
    assert make_loggers("none") == [] and make_loggers(["none"]) == []
    kinds = [type(logger).__name__ for logger in make_loggers(["csv", "default", "json", "none"])]
    assert kinds == ["CsvLogger", "RichLogger", "PlotLogger", "JsonlLogger"]


def test_a_default_whose_package_is_missing_is_left_out_and_a_named_one_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    notes: list[str] = []
    kinds = [type(logger).__name__ for logger in make_loggers(["default"], notes.append)]
    assert kinds == ["RichLogger", "JsonlLogger", "CsvLogger"]
    assert len(notes) == 1 and "gliner_pipe[plot]" in notes[0]
    for named in ("plot", [registry.loggers.get("plot")()]):
        with pytest.raises(ConfigError, match=r"loggers.plot.*matplotlib.*gliner_pipe\[plot\]"):
            make_loggers(named)


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_missing_tracker_package_names_its_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"train.loggers.{name}\] needs .*gliner_pipe\[{name}\]"):
        make_loggers(["rich", name])


def test_trackers_of_accelerate_go_by_their_names(monkeypatch):
    monkeypatch.setitem(sys.modules, "aim", None)
    for loggers in ("aim", [registry.loggers.get("tracker")("aim")]):
        with pytest.raises(ConfigError, match=r"train.loggers.aim\] needs .*pip install aim"):
            make_loggers(loggers)
    with pytest.raises(ConfigError, match=r"tracker.name\] is 'sacred'; allowed: aim, .*wandb"):
        make_loggers([registry.loggers.get("tracker")("sacred")])
