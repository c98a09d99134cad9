from __future__ import annotations

import json

import pytest

from gliner_pipe.data import files
from gliner_pipe.data.files import Place, find_files, read_json, read_lines, read_text
from gliner_pipe.errors import DataError

JSON = [".json", ".jsonl"]


def test_find_files_in_a_folder_sorted_with_subfolders_without_hidden(write, tmp_path):
    for name in ("b.jsonl", "a.json", "sub/c.jsonl", ".hidden.jsonl", ".git/d.jsonl", "e.txt", "F.JSONL"):
        write(name, "x")
    names = [file.relative_to(tmp_path).as_posix() for file in find_files(str(tmp_path), JSON)]
    assert names == ["F.JSONL", "a.json", "b.jsonl", "sub/c.jsonl"]


def test_find_files_takes_a_named_file_of_any_ending(write):
    path = write("data.annotated", "x")
    assert find_files(path, JSON) == [path]


def test_find_files_patterns_and_lists_without_duplicates(write, tmp_path):
    a, b = write("a.jsonl", "x"), write("deep/b.jsonl", "x")
    assert find_files(str(tmp_path / "**" / "*.jsonl"), JSON) == [a, b]
    assert find_files([str(b), str(tmp_path)], JSON) == [b, a]


def test_a_file_whose_name_looks_like_a_pattern(write):
    path = write("part[1].jsonl", "x")
    assert find_files(str(path), JSON) == [path]


def test_find_files_home(write, monkeypatch, tmp_path):
    path = write("a.jsonl", "x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_files("~/a.jsonl", JSON) == [path]


@pytest.mark.parametrize("path", [None, "", []])
def test_no_path(path, fails):
    with fails(DataError, "path"):
        find_files(path, JSON)


def test_missing_file_names_what_is_there(write, tmp_path, fails):
    write("train.jsonl", "x")
    with fails(DataError, "tran.jsonl"):
        find_files(tmp_path / "tran.jsonl", JSON)


def test_pattern_without_match(tmp_path, fails):
    with fails(DataError, "*.jsonl"):
        find_files(str(tmp_path / "*.jsonl"), JSON)


def test_bom_and_line_ends(write):
    path = write("a.txt", "\ufeffeins\r\nzwei\u2028drei\x85vier\n")
    assert list(read_lines(path)) == [(1, "eins"), (2, "zwei\u2028drei\x85vier")]
    assert read_text(path) == "eins\r\nzwei\u2028drei\x85vier\n"
    assert read_text(path, keep_bom=True).startswith("\ufeff")


@pytest.mark.parametrize("reader", [read_text, lambda path: list(read_lines(path))])
@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("Zür".encode("latin-1"), ":1"),
        (b"a\nb\xffc", ":2"),
        ("text".encode("utf-16"), ""),
        ("text".encode("utf-16-be"), ":1"),
        (b"ok\nn\x00l", ":2"),
    ],
)
def test_other_encodings_are_refused_with_their_line(write, reader, data, line, fails):
    path = write("a.txt", data)
    with fails(DataError, f"a.txt{line}"):
        reader(path)


def test_json_array_and_lines_give_the_same_records_with_their_lines(write):
    lines = write("a.jsonl", '{"a": 1}\n\n{"a": [2,\t3]}\n')
    array = write("a.json", '\ufeff\n[\n  {"a": 1},\n  {"a":\n   [2, 3]}\n]\n')
    assert [value for _, value in read_json(lines)] == [value for _, value in read_json(array)]
    assert [place.line for place, _ in read_json(lines)] == [1, 3]
    assert [place.line for place, _ in read_json(array)] == [3, 4]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("", ""),
        (" \n\t\n", ""),
        ("[]", ""),
        ('{"a": 1', ":1"),
        ('{"a": 1}\n{"a": }\n', ":2"),
        ('{"a": 1} {"a": 2}', ":1"),
        ('[{"a": 1}, {"a": 2}', ":1"),
        ('[{"a": 1}\n {"a": 2}]', ":2"),
        ('[{"a": 1},\n {"a": }]', ":2"),
        ('[{"a": 1},\n]', ":2"),
        ('[{"a": 1}]\n[]', ":1"),
        ('{"a": NaN}', ":1"),
        ('{"a": 1, "a": 2}', ":1"),
        ('{"a": ' + "[" * 100_000, ":1"),
        ('{"a": ' + "1" * 5000 + "}", ":1"),
        ("plain text", ":1"),
    ],
)
def test_broken_json(write, content, line, fails):
    path = write("a.json", content)
    with fails(DataError, f"a.json{line}"):
        list(read_json(path))


def test_places():
    assert str(Place("data/a.txt")) == "data/a.txt"
    assert str(Place("data/a.txt", 3)) == "data/a.txt:3"
    assert Place("data/a.txt", 3).source == "a.txt:3"
    assert str(Place("a", 3).error("ner[0]", "is odd", "even")) == "a:3 (ner[0]) is odd; allowed: even."


def test_objects_of_several_lines(write, fails):
    path = write("a.json", '{\n "a": 1\n}\n\n{\n "a": 2}\n')
    assert [(place.line, value) for place, value in read_json(path)] == [(1, {"a": 1}), (5, {"a": 2})]
    with fails(DataError, "b.json:5"):
        list(read_json(write("b.json", '{\n "a": 1\n}\n{"a":\n}')))


def test_lines_that_are_lists(write):
    path = write("a.jsonl", '["Ann", {"entities": []}]\n["Bob", {}]\n')
    assert [value for _, value in read_json(path)] == [["Ann", {"entities": []}], ["Bob", {}]]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_arrays_and_objects_are_read_in_pieces(write, indent, size, monkeypatch):
    monkeypatch.setattr(files, "_READ_AT_ONCE", size)
    records = [
        {"text": "é😀\u2028\\n ]" * number, "n": [number, -1.5e300, True, None, {}]} for number in range(9)
    ]
    text = json.dumps(records, indent=indent, ensure_ascii=False)
    found = list(files._json_array(write("a.json", f"\ufeff\n{text}\n")))
    assert [value for _, value in found] == records
    lines = text.split("\n")
    assert [place.line for place, _ in found] == [
        2 + i for i, line in enumerate(lines) if line.strip() == "{"
    ] or indent is None
    objects = "\n".join(json.dumps(record, indent=1) for record in records)
    found = list(files._json_objects(write("b.json", objects)))
    assert [value for _, value in found] == records
    assert [place.line for place, _ in found] == [
        1 + i for i, line in enumerate(objects.split("\n")) if line == "{"
    ]


@pytest.mark.parametrize("size", [1, 64])
def test_an_error_in_the_middle_of_an_array_stops_the_reading(write, size, monkeypatch, fails):
    monkeypatch.setattr(files, "_READ_AT_ONCE", size)
    good = '{"a": 1},\n' * 5
    path = write("a.json", f'[{good}{{"a" 1}},\n{good * 1000}{{"a": 2}}]')
    read: list[int] = []
    with fails(DataError, "a.json:6"):
        for _ in files._json_array(path):
            read.append(1)
    assert len(read) == 5
    with fails(DataError, "b.json:3"):
        list(files._json_array(write("b.json", '[\n{"a": 1},\n{"b": "never ends}]')))
    with fails(DataError, "c.json:2") as caught:
        list(files._json_array(write("c.json", '\n[{"a": 1}, {"a": 2}, {"b" 3}]')))
    assert "column 27" in str(caught.value)
