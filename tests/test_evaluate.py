from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from tagging_pipeline import config

from gliner_pipe.data.detect import detect_reader, reader_of_path
from gliner_pipe.errors import DataError
from gliner_pipe.evaluate import evaluate, main, read_examples

RECORDS = [
    {
        "tokenized_text": ["Ann", "met", "Bo", "in", "Rome"],
        "ner": [[0, 0, "person"], [2, 2, "person"], [4, 4, "city"]],
    },
    {"tokenized_text": ["nobody", "slept"], "ner": []},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "dev.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    return path


@pytest.fixture
def ruler(tmp_path: Path) -> Path:
    """Folder of a pipeline without a model that finds Ann."""
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler", config={"spans_key": "found"}).add_patterns(
        [{"label": "person", "pattern": "Ann"}]
    )
    nlp.to_disk(tmp_path / "ruler")
    return tmp_path / "ruler"


def error_of(capsys: pytest.CaptureFixture[str], *argv: Any) -> str:
    with pytest.raises(SystemExit) as stop:
        main([str(item) for item in argv])
    assert stop.value.code == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    return captured.err


def test_table_and_file(ruler: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "new" / "folder" / "scores.json"
    main(["--pipeline", str(ruler), "--data", str(data), "--output", str(output)])
    scores = json.loads(output.read_text(encoding="utf-8"))
    assert scores["exact"]["person"]["r"] == 0.5
    assert scores["labels"] == ["city", "person"]
    assert [path.name for path in output.parent.iterdir()] == ["scores.json"]
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["person", "2", *["100.0", "50.0", "66.7"] * 3] in lines
    assert ["city", "1", *["0.0"] * 9] in lines
    assert ["micro", "3", *["100.0", "33.3", "50.0"] * 3] in lines


def test_python_and_command_line_agree(ruler: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = evaluate(pipeline=spacy.load(ruler), data=data, metrics=["overlap"], show=False)
    assert capsys.readouterr().out == ""
    assert set(scores) & {"exact", "overlap", "token"} == {"overlap"}
    assert scores["overlap"]["micro"]["f"] == 0.5


def test_labels_look_like_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "[bold]a, b[/]", "pattern": "Ann"}])
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps([{"tokenized_text": ["Ann"], "ner": [[0, 0, "[bold]a, b[/]"]]}]), encoding="utf-8"
    )
    evaluate(pipeline=nlp, data=path)
    assert "[bold]a, b[/]" in capsys.readouterr().out


def test_config_file(ruler: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "evaluate.cfg"
    config.write_text(
        f"""
[evaluate]
pipeline = "{ruler}"
output = "{tmp_path / "scores.json"}"

[evaluate.data]
@readers = "gliner_json"
path = "{data}"

[evaluate.metrics.near]
@metrics = "gliner_pipe.ner_overlap"
predicted_getter = "found"
threshold = 0.3
""",
        encoding="utf-8",
    )
    main(["--config", str(config)])
    rows = rows_of(capsys)
    assert ["near"] in rows and ["label", "gold", "P", "R", "F"] in rows
    assert json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["near"]["person"]["r"] == 0.5


def test_labels_and_threshold_of_a_gliner_pipeline(
    nlp: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nlp.to_disk(tmp_path / "model")
    output = tmp_path / "scores.json"
    arguments = ["--pipeline", str(tmp_path / "model"), "--data", str(data), "--output", str(output)]
    main(
        [
            *arguments,
            "--labels",
            "person,animal",
            "--threshold",
            "0.0",
            "--batch-size",
            "1",
            "--device",
            "cpu",
        ]
    )
    scores = json.loads(output.read_text(encoding="utf-8"))
    assert scores["labels"] == ["person", "animal"]
    assert scores["threshold"] == 0.0
    assert scores["left_out"] == {"city": 1}
    assert scores["exact"]["micro"]["positives"] > 0
    assert "left out: city (1)" in capsys.readouterr().out
    main([*arguments, "--labels", '["animal, plant"]', "--threshold", "1.0"])
    scores = json.loads(output.read_text(encoding="utf-8"))
    assert scores["labels"] == ["animal, plant"]
    assert scores["exact"]["micro"]["f"] is None


def test_unasked_labels_are_pointed_out(nlp: Any, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nlp.get_pipe("gliner").labels = ["city"]
    evaluate(pipeline=nlp, data=data)
    assert "all missed: person (2)" in capsys.readouterr().out


def test_gold_goes_where_the_component_reads_it(nlp: Any, data: Path) -> None:
    nlp.get_pipe("gliner").cfg["gold_spans_key"] = "gold"
    scores = evaluate(pipeline=nlp, data=data, threshold=0.0, show=False)
    assert scores["exact"]["micro"]["support"] == 3


def test_mistakes_end_in_one_line(
    ruler: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = ["--pipeline", ruler, "--data", data]
    assert "no gliner component" in error_of(capsys, *good, "--labels", "person")
    assert "no gliner component" in error_of(capsys, *good, "--threshold", "0.5")
    assert "allowed: exact, overlap, token" in error_of(capsys, *good, "--metrics", "bleu")
    assert "names no metric" in error_of(capsys, *good, "--metrics", ",")
    assert "[reader]" in error_of(capsys, *good, "--reader", "nope")
    assert "threshold]" in error_of(capsys, *good, "--overlap-threshold", "0.0")
    assert "does not exist" in error_of(capsys, "--pipeline", ruler, "--data", tmp_path / "nope.jsonl")
    assert "[pipeline]" in error_of(capsys, "--pipeline", tmp_path / "nope", "--data", data)
    assert "has no value" in error_of(capsys, *good, "--output")
    broken = tmp_path / "broken.jsonl"
    broken.write_text(
        '{"tokenized_text": ["a"], "ner": [[0, 0, "x"]]}\n{"tokenized_text": 1}\n', encoding="utf-8"
    )
    assert "broken.jsonl:2" in error_of(capsys, "--pipeline", ruler, "--data", broken)


def test_a_failure_leaves_the_old_scores(
    ruler: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scores.json"
    output.write_text("old", encoding="utf-8")
    error_of(capsys, "--pipeline", ruler, "--data", data, "--output", output, "--threshold", "0.5")
    assert output.read_text(encoding="utf-8") == "old"


def test_words_with_tags_are_told_by_their_columns(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    (tmp_path / "a.csv").write_text(
        "words,ner_tags\n\"['Ann', 'left', 'Oslo']\",\"['B-person', 'O', 'B-city']\"\n", encoding="utf8"
    )
    record = {"tokens": ["Ann", "left"], "tags": ["B-person", "O"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n", encoding="utf8")
    [table] = read_examples(tmp_path / "a.csv", nlp, span_setter="gold")
    [lines] = read_examples(str(tmp_path / "a.jsonl"), nlp)
    assert [(span.text, span.label_) for span in table.reference.spans["gold"]] == [
        ("Ann", "person"),
        ("Oslo", "city"),
    ]
    assert [(span.text, span.label_) for span in lines.reference.spans["gliner"]] == [("Ann", "person")]


def test_the_format_of_data_is_detected(data: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"text": "a", "entities": []}]', encoding="utf-8")
    (tmp_path / "a.conll").write_text("a O\n", encoding="utf-8")
    (tmp_path / "brat").mkdir()
    (tmp_path / "brat" / "a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "brat" / "a.ann").write_text("", encoding="utf-8")
    (tmp_path / "a.spacy").write_bytes(b"")
    found = {
        data: "gliner_json", tmp_path / "a.json": "jsonl", tmp_path / "a.conll": "conll", tmp_path / "brat": "standoff",
        tmp_path / "brat" / "a.txt": "standoff", tmp_path / "a.spacy": "spacy.Corpus.v1",
    }  # fmt: skip
    for path, name in found.items():
        assert detect_reader(path, validation=True)["@readers"] == name
    (tmp_path / "other.json").write_text('{"words": []}', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        detect_reader(tmp_path / "other.json", validation=True)
    assert caught.value.where.endswith("other.json:1")


def test_the_validation_split_of_a_folder_is_read(tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        record = {"tokenized_text": [name], "ner": []}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record), encoding="utf-8")
    nlp = spacy.blank("en")
    assert [example.reference[0].text for example in read_examples(tmp_path, nlp)] == ["dev"]
    (tmp_path / "dev.jsonl").unlink()
    with pytest.raises(DataError) as caught:
        read_examples(tmp_path, nlp)
    assert caught.value.where == str(tmp_path)


def test_data_that_training_detects_is_read(tmp_path: Path) -> None:
    """Column files ending in .txt, and entities by word indices beside ``tokens``."""
    columns, records = tmp_path / "columns", tmp_path / "records.jsonl"
    columns.mkdir()
    (columns / "a.txt").write_text("Ada\tB-person\nleft\tO\n", encoding="utf-8")
    records.write_text('{"tokens": ["Ada", "left"], "ner": [[0, 0, "person"]]}\n', encoding="utf-8")
    nlp = spacy.blank("en")
    for data in (columns, records, f"{columns}/*.txt", f"{tmp_path}/*.jsonl"):
        for examples in (read_examples(data, nlp), list(reader_of_path(data)(nlp))):
            (example,) = examples
            assert [(span.text.strip(), span.label_) for span in example.reference.spans["gliner"]] == [
                ("Ada", "person")
            ]


@pytest.mark.parametrize("kind", ["jsonl", "conll", "standoff", "spacy"])
def test_every_format_gives_the_same_scores(kind: str, ruler: Path, tmp_path: Path) -> None:
    path = tmp_path / f"gold.{kind}"
    if kind == "jsonl":
        record = {"text": "Ann met Bo", "entities": [[0, 3, "person"], [8, 10, "person"]]}
        path.write_text(json.dumps(record), encoding="utf-8")
    elif kind == "conll":
        path.write_text("Ann B-person\nmet O\nBo B-person\n", encoding="utf-8")
    elif kind == "standoff":
        path.mkdir()
        (path / "a.txt").write_text("Ann met Bo", encoding="utf-8")
        (path / "a.ann").write_text("T1\tperson 0 3\tAnn\nT2\tperson 8 10\tBo\n", encoding="utf-8")
    else:
        doc = Doc(spacy.blank("en").vocab, words=["Ann", "met", "Bo"])
        doc.spans["gliner"] = [Span(doc, 0, 1, label="person"), Span(doc, 2, 3, label="person")]
        DocBin(docs=[doc]).to_disk(path)
    scores = evaluate(pipeline=spacy.load(ruler), data=path, show=False)
    assert scores["exact"]["micro"] == {"p": 1.0, "r": 0.5, "f": 2 / 3, "tp": 1, "support": 2, "positives": 1}


def rows_of(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """Cells of the printed tables."""
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_seqeval_is_printed_as_a_report(ruler: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--pipeline", str(ruler), "--data", str(data), "--metrics", "seqeval"])
    rows = rows_of(capsys)
    assert ["person", "100.0", "50.0", "66.7", "2"] in rows
    assert ["city", "0.0", "0.0", "0.0", "1"] in rows
    assert ["micro", "avg", "100.0", "33.3", "50.0", "3"] in rows
    assert ["macro", "avg", "50.0", "25.0", "33.3", "3"] in rows
    assert ["weighted", "avg", "66.7", "33.3", "44.4", "3"] in rows
    assert ["token", "accuracy", "71.4"] in rows  # 5 of 7 words


def test_confusion(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler", config={"spans_key": "found"}).add_patterns(
        [
            {"label": "person", "pattern": "Ann"},
            {"label": "city", "pattern": "Bo"},
            {"label": "city", "pattern": "met"},
        ]
    )
    nlp.to_disk(tmp_path / "confused")
    output = tmp_path / "scores.json"
    main(
        [
            "--pipeline",
            str(tmp_path / "confused"),
            "--data",
            str(data),
            "--confusion",
            "--output",
            str(output),
        ]
    )
    rows = rows_of(capsys)
    assert ["person", "1", "1", "0"] in [[row[0], row[2], row[1], row[3]] for row in rows if len(row) == 4]
    matrix = json.loads(output.read_text(encoding="utf-8"))["confusion"]["matrix"]
    assert matrix == {
        "city": {"city": 0, "person": 0, "none": 1},
        "person": {"city": 1, "person": 1, "none": 0},
        "none": {"city": 1, "person": 0},
    }


def test_unseen_labels_and_sampled_negatives(
    nlp: Any, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nlp.get_pipe("gliner").labels = ["person"]
    scores = evaluate(pipeline=nlp, data=data, unseen="city", negatives=1, metrics="exact")
    assert scores["negatives"] == 1
    assert scores["zero_shot"]["unseen"]["city"] == scores["exact"]["city"]
    out = capsys.readouterr().out
    assert "zero_shot: unseen labels" in out and "zero_shot: seen labels" in out
    assert "its gold labels and 1 sampled others" in out


def test_thresholds_are_found_used_and_saved(
    nlp: Any, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nlp.to_disk(tmp_path / "model")
    output, saved = tmp_path / "scores.json", tmp_path / "tuned"
    arguments = ["--pipeline", tmp_path / "model", "--data", data, "--output", output, "--save", saved]
    main(
        [
            *map(str, arguments),
            "--find_threshold",
            "--threshold_steps",
            "4",
            "--metrics",
            "exact",
            "--device",
            "cpu",
        ]
    )
    scores = json.loads(output.read_text(encoding="utf-8"))
    found = scores["thresholds"]
    assert len(found["curve"]) == 4
    assert scores["threshold"] == found["best"]["threshold"]
    assert {key: scores["exact"]["micro"][key] for key in "prf"} == {key: found["best"][key] for key in "prf"}
    component = spacy.load(saved).get_pipe("gliner")
    assert component.threshold == found["best"]["threshold"]
    assert component.cfg["device"] == "auto"
    rows = rows_of(capsys)
    assert "4 tried" in " ".join(word for row in rows for word in row)
    assert any(row[-1:] == ["best"] for row in rows) and any(row[-1:] == ["before"] for row in rows)


def test_thresholds_of_labels_are_saved(tmp_path: Path, nlp: Any, capsys: pytest.CaptureFixture[str]) -> None:
    component = nlp.get_pipe("gliner")
    doc = nlp.make_doc("Ann met Bo in Rome")
    component.cfg |= {"threshold": 0.0, "flat_ner": False, "multi_label": True, "partial_overlaps": True}
    found = sorted(nlp(doc).spans["gliner"], key=lambda span: -span._.score)
    component.threshold = 0.5
    best = [[one for one in found if one.label_ == label][:3] for label in ("person", "city")]
    entities = [[span.start, span.end - 1, span.label_] for spans in best for span in spans]
    path = tmp_path / "gold.jsonl"
    path.write_text(
        json.dumps({"tokenized_text": [t.text for t in doc], "ner": entities}) + "\n", encoding="utf-8"
    )
    copies = path.read_text(encoding="utf-8") * 5
    path.write_text(copies, encoding="utf-8")
    options = {
        "find_threshold": True,
        "per_label": True,
        "save": tmp_path / "tuned",
        "labels": "person,city,river",
    }
    scores = evaluate(pipeline=nlp, data=path, metrics="exact", **options)
    found = scores["thresholds"]
    assert found["labels"] and "river" in found["kept"] and found["not_stored"] == []
    assert {key: scores["exact"]["micro"][key] for key in "prf"} == found["together"]
    loaded = spacy.load(tmp_path / "tuned").get_pipe("gliner")
    assert loaded.labels == ("person", "city")
    assert {item.label: item.threshold for item in loaded.label_items if item.threshold is not None} == {
        label: row["threshold"] for label, row in found["labels"].items()
    }
    out = capsys.readouterr().out
    assert "Thresholds of labels" in out and "river (0)" in out


def test_a_page_of_errors(
    nlp: Any, data: Path, ruler: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nlp.to_disk(tmp_path / "model")
    page = tmp_path / "new" / "page.html"
    for pipeline, has_curve in ((tmp_path / "model", True), (ruler, False)):
        main(["--pipeline", str(pipeline), "--data", str(data), "--html", str(page), "--metrics", "exact"])
        text = page.read_text(encoding="utf-8")
        assert str(pipeline) in text and "Rome" in text and ("<polyline" in text) is has_curve
        assert capsys.readouterr().out.splitlines()[-1].endswith(f": {page}")
    error = error_of(capsys, "--pipeline", ruler, "--data", data, "--html", page, "--compare", "fp32")
    assert "[html]" in error


@pytest.mark.parametrize("target", ["spans", "tag_"])
def test_a_page_of_a_tagger(backbone: Path, tmp_path: Path, target: str) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe(
        "token_classifier", config=config(backbone, "softmax", target=target, labels=["person", "city"])
    )
    nlp.initialize()
    doc = nlp.make_doc("Ann met Bo in Rome")
    if target == "spans":  # one of the two is missed
        key = nlp.get_pipe("token_classifier").spans_key
        doc.spans[key] = [Span(doc, 0, 1, "person"), Span(doc, 0, 1, "city")]
    else:
        for token, found in zip(doc, nlp(doc.text), strict=True):
            token.tag_ = "city" if found.tag_ == "person" else "person"
    evaluate(pipeline=nlp, data=[Example(nlp.make_doc(doc.text), doc)], html=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert text.count('data-kind="type"') == 5 if target == "tag_" else "data-kind" in text
    assert "<polyline" not in text and ("accuracy 0.0" in text) is (target == "tag_")


def test_options_of_a_search(ruler: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = ["--pipeline", ruler, "--data", data]
    assert "[find_threshold]" in error_of(capsys, *good, "--find_threshold")
    assert "one of the two" in error_of(capsys, *good, "--find_threshold", "--threshold", "0.5")
    assert "[save]" in error_of(capsys, *good, "--save", "x")
    assert "[per_label]" in error_of(capsys, *good, "--per-label")
    assert "[negatives]" in error_of(capsys, *good, "--negatives", "2")


def test_module_runs(ruler: Path, data: Path) -> None:
    command = [sys.executable, "-m", "gliner_pipe.evaluate", "--pipeline", str(ruler), "--data", str(data)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "micro" in result.stdout
    assert result.stderr == ""
