from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.training.loggers import CsvLogger, JsonlLogger, RichLogger, RunInfo, make_loggers
from gliner_pipe.training.loggers.base import flatten


def step(number: int) -> dict:
    return {
        "step": number,
        "loss": 1.0 / number,
        "grad_norm": 2.0,
        "lr": {"transformer": 5e-5, "task": 1e-4},
        "parts": {"gliner.span": 1.0},
        "words": 100,
        "docs": 4,
        "words_per_second": 1234.5,
    }


def validation(number: int, f: float | None, **scores) -> dict:
    return {
        "step": number,
        "loss": 0.5,
        "lr": {"transformer": 5e-5, "task": 1e-4},
        "words_per_second": 10.0,
        "best": True,
        "scores": {"ner": {"work of art": {"f": 0.0}, "micro": {"p": 0.25, "r": 0.5, "f": f}, **scores}},
    }


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
    assert first.startswith("step,loss,lr.transformer,lr.task,words_per_second,best,scores.ner.work of art.f")
    logger.validation(validation(4, 0.5))
    assert path.read_text("utf8").splitlines()[0] == first
    logger.validation(validation(6, 0.6, city={"f": 0.1}))
    logger.finish()
    rows = list(csv.DictReader(path.read_text("utf8").splitlines()))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [row["scores.ner.micro.f"] for row in rows] == ["", "0.5", "0.6"]
    assert [row["scores.ner.city.f"] for row in rows] == ["", "", "0.1"]
    assert all(None not in row and None not in row.values() for row in rows)


def test_a_second_run_begins_new_files(tmp_path):
    for logger in (CsvLogger("a.csv"), JsonlLogger("a.jsonl")):
        for _ in range(2):
            logger.start(RunInfo(1, tmp_path))
            logger.validation(validation(1, 0.5))
            logger.finish()
    assert len((tmp_path / "a.csv").read_text("utf8").splitlines()) == 2
    assert len((tmp_path / "a.jsonl").read_text("utf8").splitlines()) == 2


def test_rich_prints_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    logger = RichLogger(interval=5)
    logger.start(RunInfo(12, tmp_path))
    for number in range(1, 13):
        logger.step(step(number))
    logger.validation(validation(12, 0.4))
    logger.finish()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["1/12", "5/12", "10/12", "12/12"]
    assert "loss 0.2  lr transformer 5.0e-05  lr task 1.0e-04  1,234 words/s" in lines[1]
    assert lines[-1] == (
        "validation at step 12  ner.micro.p 0.250  ner.micro.r 0.500  ner.micro.f 0.400  (best so far)"
    )
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
    assert "1/2" in out and "ner.work of art.f" in out and "0.000" in out and "micro" not in out


def test_names_and_blocks(tmp_path):
    made = make_loggers(["csv", registry.loggers.get("jsonl")(file_name="x.jsonl")])
    assert isinstance(made[0], CsvLogger) and made[1].file_name == "x.jsonl"
    assert isinstance(make_loggers({"console": RichLogger()})[0], RichLogger)
    assert make_loggers(None) == [] and make_loggers([]) == []
    assert isinstance(make_loggers("csv")[0], CsvLogger)
    assert {"rich", "jsonl", "csv"} <= set(registry.loggers.get_available())
    with pytest.raises(ConfigError, match=r"train.loggers.*'wandbb'.*csv, jsonl, rich"):
        make_loggers(["wandbb"])
    with pytest.raises(ConfigError, match="holds 3"):
        make_loggers([3])
