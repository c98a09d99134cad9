from __future__ import annotations

import pytest

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
def test_no_path(path):
    with pytest.raises(DataError, match="Set the path"):
        find_files(path, JSON)


def test_missing_file_names_what_is_there(write, tmp_path):
    write("train.jsonl", "x")
    with pytest.raises(DataError, match=r"tran.jsonl does not exist.*The folder holds train.jsonl"):
        find_files(tmp_path / "tran.jsonl", JSON)


def test_pattern_without_match(tmp_path):
    with pytest.raises(DataError, match="matches no file"):
        find_files(str(tmp_path / "*.jsonl"), JSON)


def test_bom_and_line_ends(write):
    path = write("a.txt", "\ufeffeins\r\nzwei\u2028drei\x85vier\n")
    assert list(read_lines(path)) == [(1, "eins"), (2, "zwei\u2028drei\x85vier")]
    assert read_text(path) == "eins\r\nzwei\u2028drei\x85vier\n"
    assert read_text(path, keep_bom=True).startswith("\ufeff")


@pytest.mark.parametrize("reader", [read_text, lambda path: list(read_lines(path))])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("Zür".encode("latin-1"), r"a.txt:1 is not UTF-8: byte 0xfc at byte 2 of the line"),
        (b"a\nb\xffc", r"a.txt:2 is not UTF-8: byte 0xff at byte 2 of the line"),
        ("text".encode("utf-16"), r"a.txt is UTF-16 text"),
        ("text".encode("utf-16-be"), r"a.txt:1 holds a NUL character at byte 1 of the line"),
        (b"ok\nn\x00l", r"a.txt:2 holds a NUL character at byte 2 of the line"),
    ],
)
def test_encodings_refused_with_their_place(write, reader, data, message):
    with pytest.raises(DataError, match=message):
        reader(write("a.txt", data))


def test_json_array_and_lines_give_the_same_records_with_their_lines(write):
    lines = write("a.jsonl", '{"a": 1}\n\n{"a": [2,\t3]}\n')
    array = write("a.json", '\ufeff\n[\n  {"a": 1},\n  {"a":\n   [2, 3]}\n]\n')
    assert [value for _, value in read_json(lines)] == [value for _, value in read_json(array)]
    assert [place.line for place, _ in read_json(lines)] == [1, 3]
    assert [place.line for place, _ in read_json(array)] == [3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        (" \n\t\n", "is empty"),
        ("[]", "is empty"),
        ('{"a": 1', "a.json:1 is not valid JSON"),
        ('{"a": 1}\n{"a": }\n', "a.json:2 is not valid JSON: Expecting value, column 7"),
        ('{"a": 1} {"a": 2}', "a.json:1 goes on after the object"),
        ('[{"a": 1}, {"a": 2}', "a.json:1 is not valid JSON: found the end of the file"),
        ('[{"a": 1}\n {"a": 2}]', "a.json:2 is not valid JSON: found '{\"a\": 2}]'"),
        ('[{"a": 1},\n {"a": }]', "a.json:2 is not valid JSON: Expecting value, column 8"),
        ('[{"a": 1},\n]', "a.json:2 is not valid JSON"),
        ('[{"a": 1}]\n[]', "goes on after the closing"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": 1, "a": 2}', "the field 'a' stands there twice"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "a.json:1 is not valid JSON"),
        ("plain text", "a.json:1 is not valid JSON: Expecting value, column 1"),
    ],
)
def test_broken_json(write, content, message):
    with pytest.raises(DataError) as caught:
        list(read_json(write("a.json", content)))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_places():
    assert str(Place("data/a.txt")) == "data/a.txt"
    assert str(Place("data/a.txt", 3)) == "data/a.txt:3"
    assert Place("data/a.txt", 3).source == "a.txt:3"
    assert str(Place("a", 3).error("ner[0]", "is odd", "even")) == "a:3 (ner[0]) is odd; allowed: even."
