"""Consoles whose encoding lacks characters of the output: nothing is lost, and no command fails."""

from __future__ import annotations

import json
import os
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from fuzz.rule import command

from gliner_pipe import evaluate, predict

TEXT = 'Ann "café" … 東京 lives in Łódź 😀'
LABEL = "pérson 東"


@pytest.fixture
def pipeline(nlp: Any, tmp_path: Path) -> str:
    nlp.to_disk(tmp_path / "pipeline")
    return "pipeline"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_predictions(encoding: str, pipeline: str, tmp_path: Path) -> None:
    arguments = [pipeline, "--text", TEXT, "--labels", LABEL, "--threshold", "0"]
    shown = command(predict.main, arguments, tmp_path, encoding).stdout
    assert "lives" in shown and (encoding == "utf-8" or r"\u6771" in shown)
    lines = command(predict.main, [*arguments, "--format", "jsonl"], tmp_path, encoding).stdout
    row = json.loads(lines)
    assert row["text"] == TEXT and {entity["label"] for entity in row["entities"]} == {LABEL}
    page = command(predict.main, [*arguments, "--format", "html"], tmp_path, encoding).stdout
    assert all(json.dumps(text)[1:-1] in page for text in (LABEL, "😀"))


def test_scores_and_errors(pipeline: str, tmp_path: Path) -> None:
    data = tmp_path / "dev.jsonl"
    data.write_text(
        json.dumps({"text": TEXT, "spans": [{"start": 0, "end": 3, "label": LABEL}]}), encoding="utf8"
    )
    finished = command(evaluate.main, [pipeline, "dev.jsonl", "--labels", LABEL], tmp_path, "ascii")
    assert finished.code == 0 and r"p\xe9rson \u6771" in finished.stdout
    finished = command(evaluate.main, [pipeline, "東\x1b[31m.jsonl"], tmp_path, "ascii")
    assert finished.code == 1 and r"\u6771\u241b[31m.jsonl" in finished.stderr


def test_what_a_component_left_out_is_said(nlp: Any, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "pipeline")
    label = '[{"label": "person", "pattern": "[0-9]"}]'
    arguments = ["pipeline", "--text", "Ann lives.", "--labels", label, "--threshold", "0"]
    finished = command(predict.main, arguments, tmp_path)
    assert finished.code == 0 and " x " in finished.stderr and "pattern" in finished.stderr
    assert command(predict.main, [*arguments, "--quiet"], tmp_path).stderr == ""


@pytest.mark.parametrize("format", ["terminal", "jsonl", "html"])
def test_a_reader_that_has_closed_the_pipe_is_no_error(format: str, nlp: Any, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "pipeline")
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf8") as stream, redirect_stdout(stream):
        predict.main([str(tmp_path / "pipeline"), "--text", TEXT, "--format", format])
