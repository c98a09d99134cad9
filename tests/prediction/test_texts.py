from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gliner_pipe.errors import DataError
from gliner_pipe.prediction.texts import read_texts


def test_a_file_is_one_text(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("one\ntwo\n", encoding="utf-8")
    (item,) = read_texts(path)
    assert (item.text, item.name, item.meta) == ("one\ntwo\n", "note", {"file": "note.txt"})


def test_lines_keep_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes("one\r\n\nd\u00e9j\u00e0\u2028vu".encode())
    items = list(read_texts(path, lines=True))
    assert [(item.text, item.meta["line"]) for item in items] == [
        ("one", 1),
        ("", 2),
        ("d\u00e9j\u00e0\u2028vu", 3),
    ]
    assert items[2].where == f"{path}:3"


def test_folder(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "sub/c.txt", "ignored.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name, encoding="utf-8")
    assert [(item.text, item.name) for item in read_texts(tmp_path)] == [
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("sub/c.txt", "sub/c"),
    ]


def test_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    records = [{"text": "one"}, {"text": "two", "id": 7, "meta": {"a": 1}}]
    path.write_text("\n\n".join(json.dumps(record) for record in records), encoding="utf-8")
    assert [(item.text, item.meta) for item in read_texts(path)] == [
        ("one", {"line": 1}),
        ("two", {"a": 1, "id": 7}),
    ]


def test_a_json_array_is_read_as_records(tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    path.write_text('[{"text": "one"}, {"text": "two"}]', encoding="utf-8")
    assert [item.text for item in read_texts(path)] == ["one", "two"]


@pytest.mark.parametrize("line", ['{"text": 1}', '{"body": "a"}', '["text"]', "{", '{"text": "a"} x'])
def test_errors_name_the_line_of_an_invalid_record(tmp_path: Path, line: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "a"}\n' + line, encoding="utf-8")
    texts = read_texts(path)
    assert next(texts).text == "a"
    with pytest.raises(DataError) as error:
        next(texts)
    assert "texts.jsonl:2" in error.value.where


def test_standard_input_is_read_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO("one\r\ntwo\n\xff".encode("latin-1"))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=stream))
    texts = read_texts("-")
    assert next(texts).text == "one"
    assert stream.tell() == 5
    assert next(texts).text == "two"
    with pytest.raises(DataError) as error:
        next(texts)
    assert error.value.where == "<stdin>:3"


def test_a_missing_file_and_a_folder_without_texts(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(DataError) as error:
            list(read_texts(path))
        assert str(path) in error.value.where


@pytest.mark.parametrize(
    "records",
    [
        [["Ann left.", {"entities": [[0, 3, "person"]]}], ["Bob slept.", {}]],
        [
            {"id": 1, "data": {"review": "Ann left."}, "annotations": []},
            {"id": 2, "data": {"review": "Bob slept."}, "annotations": [{"result": []}]},
        ],
        [
            {
                "id": 1,
                "review": "Ann left.",
                "label": [{"start": 0, "end": 3, "text": "Ann", "labels": ["x"]}],
            },
            {"id": 2, "review": "Bob slept."},
        ],
    ],
)
def test_exports_of_annotation_tools(tmp_path: Path, records: list[Any]) -> None:
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    assert [item.text for item in read_texts(path)] == ["Ann left.", "Bob slept."]
