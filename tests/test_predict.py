from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy

from gliner_pipe.errors import DataError
from gliner_pipe.evaluate import evaluate
from gliner_pipe.predict import main, predict, predict_texts

ANN = {"start": 0, "end": 3, "label": "person", "score": None, "text": "Ann"}


@pytest.fixture
def ruler(tmp_path: Path) -> Path:
    """Folder of a pipeline without a model that finds Ann and Ann Arbor."""
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler", config={"spans_key": "found"}).add_patterns(
        [{"label": "person", "pattern": "Ann"}, {"label": "big city", "pattern": "Ann Arbor"}]
    )
    nlp.to_disk(tmp_path / "ruler")
    return tmp_path / "ruler"


def out_of(capsys: pytest.CaptureFixture[str], *argv: Any) -> str:
    main([str(item) for item in argv])
    captured = capsys.readouterr()
    assert captured.err == "" or "--output" in argv
    return captured.out


def error_of(capsys: pytest.CaptureFixture[str], *argv: Any) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(item) for item in argv])
    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_terminal(ruler: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "Ann [red]saw[/red] Ann Arbor -- # ${x}"
    assert out_of(capsys, "--pipeline", ruler, "--text", text) == (
        "[Ann | person] [red]saw[/red] [[Ann | person] Arbor | big city] -- # ${x}\n"
    )


@pytest.mark.parametrize("text", ["1e3", "null", "--output", '"quoted"', "a" * 300])
def test_texts_are_taken_as_they_are(ruler: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert out_of(capsys, "--pipeline", ruler, "--text", text) == f"{text}\n"


def test_colour_on_demand(
    ruler: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[1;" in out_of(capsys, "--pipeline", ruler, "--text", "Ann")
    monkeypatch.setenv("NO_COLOR", "1")
    assert out_of(capsys, "--pipeline", ruler, "--text", "Ann") == "[Ann | person]\n"


def test_jsonl(ruler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "Ann", "id": "x"}\n{"text": "d\u00e9j\u00e0"}\n', encoding="utf-8")
    output = tmp_path / "new" / "out.jsonl"
    arguments = ["--pipeline", ruler, "--input", source, "--format", "jsonl"]
    assert out_of(capsys, *arguments, "--output", output) == ""
    lines = output.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"text": "Ann", "entities": [ANN], "meta": {"id": "x"}},
        {"text": "d\u00e9j\u00e0", "entities": [], "meta": {"line": 2}},
    ]
    assert [path.name for path in output.parent.iterdir()] == ["out.jsonl"]
    assert out_of(capsys, *arguments).splitlines() == lines


def test_jsonl_output_is_annotated_data(ruler: Path, tmp_path: Path) -> None:
    nlp = spacy.load(ruler)
    predict(pipeline=nlp, text="Ann saw Ann Arbor", format="jsonl", output=tmp_path / "out.jsonl")
    scores = evaluate(pipeline=nlp, data=tmp_path / "out.jsonl", show=False)
    assert scores["exact"]["micro"] == {"p": 1.0, "r": 1.0, "f": 1.0, "tp": 3, "support": 3, "positives": 3}


def test_standoff(ruler: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("Ann saw\nAnn Arbor", encoding="utf-8")
    (tmp_path / "texts" / "b.txt").write_text("nobody", encoding="utf-8")
    output = tmp_path / "brat"
    nlp = spacy.load(ruler)
    assert predict(pipeline=nlp, input=tmp_path / "texts", format="standoff", output=output) == 2
    assert (output / "a.txt").read_text(encoding="utf-8") == "Ann saw\nAnn Arbor"
    assert (output / "a.ann").read_text(encoding="utf-8").splitlines() == [
        "T1\tperson 0 3\tAnn",
        "T2\tbig_city 8 17\tAnn Arbor",
        "T3\tperson 8 11\tAnn",
    ]
    assert (output / "b.ann").read_text(encoding="utf-8") == ""
    assert "'big city' to 'big_city'" in caplog.text
    scores = evaluate(pipeline=nlp, data=output, labels=None, show=False)
    assert scores["exact"]["person"]["f"] == 1.0


def test_html(ruler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text("<script>Ann</script>\nAnn Arbor", encoding="utf-8")
    arguments = ["--pipeline", ruler, "--input", tmp_path / "in.txt", "--lines", "--html"]
    page = out_of(capsys, *arguments)
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    assert page.count("<figure>") == 2 and '"label": "person"' in page
    assert "<script>Ann" not in page
    assert out_of(capsys, *arguments, "--output", tmp_path / "page.html") == ""
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    page = out_of(capsys, *arguments, "--html-style", "span")
    assert page.count("<figure") == 2 and 'class="spans"' in page and "<script>" not in page


def test_the_suffix_of_the_output_is_its_format(ruler: Path, tmp_path: Path, capsys: Any) -> None:
    for name in ("found.jsonl", "found.html", "found.txt"):
        main(["--pipeline", str(ruler), "--text", "Ann", "--output", str(tmp_path / name)])
        assert f"1 text written to {tmp_path / name}" in capsys.readouterr().err.replace("\n", "")
    assert json.loads((tmp_path / "found.jsonl").read_text(encoding="utf-8"))["entities"] == [ANN]
    assert (tmp_path / "found.html").read_text(encoding="utf-8").startswith("<!DOCTYPE")
    assert (tmp_path / "found.txt").read_text(encoding="utf-8") == "[Ann | person]\n"
    with pytest.raises(SystemExit):
        main(["--pipeline", str(ruler), "--text", "Ann", "--output", str(tmp_path / "found.parquet")])
    assert "[format]" in capsys.readouterr().err


def test_html_of_nothing(ruler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.txt").write_text("", encoding="utf-8")
    page = out_of(capsys, "--pipeline", ruler, "--input", tmp_path / "in.txt", "--lines", "--html")
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")


def test_texts_stream(ruler: Path) -> None:
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "Ann"

    predictions = predict_texts(spacy.load(ruler), texts(), batch_size=4)
    for _ in range(10):
        item, doc, entities = next(predictions)
        assert (item.text, doc.text, entities) == ("Ann", "Ann", [ANN])
    assert taken <= 16


def test_processes_keep_order(ruler: Path) -> None:
    texts = [f"Ann {number}" for number in range(20)]
    found = list(predict_texts(spacy.load(ruler), texts, batch_size=3, n_process=2))
    assert [item.text for item, _, _ in found] == [doc.text for _, doc, _ in found] == texts
    assert all(entities == [ANN] for _, _, entities in found)


def test_too_long_a_text(ruler: Path) -> None:
    nlp = spacy.load(ruler)
    nlp.max_length = 3
    with pytest.raises(DataError, match=r"^text 2 .* 4 .* 3"):
        list(predict_texts(nlp, ["Ann", "Anna"]))


def test_gliner_labels_and_threshold(nlp: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nlp.to_disk(tmp_path / "model")
    arguments = [
        "--pipeline",
        tmp_path / "model",
        "--text",
        "Ann met Bo",
        "--format",
        "jsonl",
        "--device",
        "cpu",
    ]
    record = json.loads(out_of(capsys, *arguments, "--labels", '["city, state"]', "--threshold", "0.0"))
    assert record["entities"]
    for entity in record["entities"]:
        assert entity["label"] == "city, state"
        assert 0 <= entity["score"] <= 1
        assert entity["text"] == record["text"][entity["start"] : entity["end"]]
    assert json.loads(out_of(capsys, *arguments, "--threshold", "1.0"))["entities"] == []


def test_mistakes_end_in_one_line(ruler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = ["--pipeline", ruler, "--text", "Ann"]
    for section, arguments in [
        ("[text, input]", ["--pipeline", ruler]),
        ("[text, input]", [*good, "--input", "-"]),
        ("[labels]", [*good, "--labels", "person"]),  # the ruler has no gliner component
        ("[threshold]", [*good, "--threshold", "0.5"]),
        ("terminal, jsonl, standoff, html", [*good, "--format", "xml"]),
        ("--output FOLDER", [*good, "--format", "standoff"]),
        ("[format]", [*good, "--format", "jsonl", "--html"]),
        ("[labels]", [*good, "--labels", ","]),
        ("missing.txt", ["--pipeline", ruler, "--input", tmp_path / "missing.txt"]),
        ("missing", ["--pipeline", tmp_path / "missing", "--text", "a"]),
        ("--text", ["--pipeline", ruler, "--text"]),
    ]:
        assert section in error_of(capsys, *arguments)


def test_a_failure_leaves_the_old_output(
    ruler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "Ann"}\n{"text": 3}\n', encoding="utf-8")
    output.write_text("old", encoding="utf-8")
    arguments = ["--pipeline", ruler, "--input", source, "--format", "jsonl", "--output", output]
    assert "in.jsonl:2" in error_of(capsys, *arguments)
    assert output.read_text(encoding="utf-8") == "old"


def test_module_reads_standard_input_and_survives_a_closed_pipe(ruler: Path) -> None:
    command = f"yes Ann | head -20000 | {sys.executable} -m gliner_pipe.predict --pipeline {ruler} --input - "
    result = subprocess.run(
        ["bash", "-c", command + "--format jsonl --batch-size 8 | head -1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout) == {"text": "Ann", "entities": [ANN], "meta": {"line": 1}}
    assert result.stderr == ""
