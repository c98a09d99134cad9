"""Broken input raises one DataError that names file, line and field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gliner_pipe.data.readers import conll, gliner_json, jsonl, standoff
from gliner_pipe.errors import ConfigError, DataError

WORDS = ["Ann", "saw", "Bob"]


def words(**fields: Any) -> str:
    return json.dumps({"tokenized_text": WORDS, "ner": []} | fields)


def ner(*item: Any) -> str:
    return words(ner=[[0, 0, "person"], list(item)])


def text(**fields: Any) -> str:
    return json.dumps({"text": "Ann saw Bob", "entities": []} | fields)


def span(*item: Any) -> str:
    return text(entities=[list(item)])


GOOD = words() + "\n"

GLINER = {
    "broken json": ('{"tokenized_text": ["a",}', ""),
    "truncated json": ('{"tokenized_text": ["a"], "ne', ""),
    "top is a list of numbers": ("7", ""),
    "top is a text": ('"text"', ""),
    "no tokenized_text": ('{"tokens": []}', "tokenized_text"),
    "text instead of words": ('{"text": "a b", "entities": []}', "tokenized_text"),
    "words are one text": (words(tokenized_text="Ann saw"), "tokenized_text"),
    "a word is a number": (words(tokenized_text=["a", 7]), "tokenized_text[1]"),
    "a word is null": (words(tokenized_text=[None]), "tokenized_text[0]"),
    "no words": (words(tokenized_text=[]), "tokenized_text"),
    "an empty word": (words(tokenized_text=["a", ""]), "tokenized_text[1]"),
    "half a character": (words(tokenized_text=["a\ud800"]), "tokenized_text"),
    "escaped NUL": (words(tokenized_text=["a\0"]), "tokenized_text"),
    "no ner": ('{"tokenized_text": ["a"]}', "ner"),
    "ner is no list": (words(ner={"a": 1}), "ner"),
    "an entity is no list": (words(ner=["person"]), "ner[0]"),
    "an entity of two": (ner(0, "person"), "ner[1]"),
    "an entity of four": (ner(0, 0, "a", 0.5), "ner[1]"),
    "start beyond the text": (ner(3, 3, "a"), "ner[1][0]"),
    "end beyond the text": (ner(0, 3, "a"), "ner[1][1]"),
    "negative index": (ner(-1, 0, "a"), "ner[1][0]"),
    "start after end": (ner(2, 1, "a"), "ner[1]"),
    "index is a float": (ner(0.0, 1, "a"), "ner[1][0]"),
    "index is a bool": (ner(0, True, "a"), "ner[1][1]"),
    "index is a word": (ner("a", 1, "a"), "ner[1][0]"),
    "label is empty": (ner(0, 0, ""), "ner[1][2]"),
    "whitespace label": (ner(0, 0, " \t"), "ner[1][2]"),
    "label is a number": (ner(0, 0, 3), "ner[1][2]"),
    "label is null": (ner(0, 0, None), "ner[1][2]"),
    "ner_labels is a text": (words(ner_labels="person"), "ner_labels"),
    "ner_labels contains null": (words(ner_labels=["a", None]), "ner_labels[1]"),
    "negative label in use": (
        words(ner=[[0, 0, "person"]], ner_negatives=["city", "person"]),
        "ner_negatives",
    ),
    "relations is an object": (words(relations={}), "relations"),
    "relation without entities": (words(relations=[[0, 1, "a"]]), "relations[0][0]"),
    "relation index out of range": (
        words(ner=[[0, 0, "person"]], relations=[[0, 1, "knows"]]),
        "relations[0][1]",
    ),
    "relation label is a number": (words(ner=[[0, 0, "person"]], relations=[[0, 0, 5]]), "relations[0][2]"),
    "negative relation in use": (
        words(ner=[[0, 0, "person"]], relations=[[0, 0, "is"]], rel_negatives=["is"]),
        "rel_negatives",
    ),
    "id is a list": (words(id=[1]), "id"),
    "latin-1": (words(id="X").replace("X", "\xe9").encode("latin-1"), ""),
    "NUL byte": (b'{"tokenized_text": ["\x00"]}', ""),
}

#: Errors of syntax are found in other lines of an array; see the tests of read_json.
IN_ARRAYS = {name: case for name, case in GLINER.items() if not name.endswith("json")}

JSONL = {
    "no text": ('{"entities": []}', "text"),
    "words instead of a text": (words(), "text"),
    "text is a list": (text(text=["a"]), "text"),
    "text with half a character": (text(text="a\udfff"), "text"),
    "negative offset": (span(-1, 3, "a"), "entities[0][0]"),
    "reversed offsets": (span(5, 2, "a"), "entities[0]"),
    "entity without characters": (span(3, 3, "a"), "entities[0]"),
    "offset beyond the text": (span(0, 12, "a"), "entities[0][1]"),
    "offset is a float": (span(0, 3.0, "a"), "entities[0][1]"),
    "offset is a text": (text(entities=[{"start": "a", "end": 3, "label": "a"}]), "entities[0].start"),
    "negative offset as a text": (span("-1", 3, "a"), "entities[0][0]"),
    "no end": (text(entities=[{"start": 0, "label": "a"}]), "entities[0]"),
    "whitespace label": (span(0, 3, " "), "entities[0][2]"),
    "text of the entity differs": (
        text(entities=[{"start": 0, "end": 3, "label": "a", "text": "Bob"}]),
        "entities[0].text",
    ),
}

CONLL = {
    "no tag of the scheme": ("Bob X-PER", "tag"),
    "a tag of another scheme": ("Bob B", "tag"),
    "too few columns": ("Bob", "columns"),
    "too many columns": ("Bob NN B-PER", "columns"),
    "latin-1": (b"B\xf6b B-PER", ""),
    "NUL byte": (b"B\x00b B-PER", ""),
}

STANDOFF = {
    "entity without text": ("T2\tcity 0 3", "entity"),
    "entity without offsets": ("T2\tcity\tAnn", "entity"),
    "label with blanks": ("T2\tbig city 0 3\tAnn", "entity"),
    "blanks for tabs": ("T2 city 0 3 Ann", "entity"),
    "reversed offsets": ("T2\tcity 3 0\tAnn", "T2"),
    "offset beyond the text": ("T2\tcity 8 12\tBob.", "T2"),
    "another text": ("T2\tcity 8 11\tBib", "T2"),
    "an identifier twice": ("T1\tcity 8 11\tBob", "T1"),
    "unknown kind of line": ("X1\tcity 8 11\tBob", ""),
    "a relation without arguments": ("R1\tknows T1 T2", "relation"),
    "a relation of an unknown entity": ("R1\tknows Arg1:T1 Arg2:T9", "relation"),
    "a broken event": ("E1\tknows", "event"),
    "latin-1": (b"T2\tr\xf4le 8 11\tBob", ""),
}


def assert_error(reader, nlp, where: str) -> None:
    """One error of one line, at the expected place."""
    with pytest.raises(DataError) as caught:
        list(reader(nlp))
    assert caught.value.where.endswith(where)
    assert len(str(caught.value)) < 600
    assert "\n" not in str(caught.value)


def located(line: str, field: str) -> str:
    return f"{line} ({field})" if field else line


def after(first: str, content: str | bytes) -> bytes:
    """Return a file with the broken record after a valid first one."""
    return first.encode() + (
        content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    )


@pytest.mark.parametrize(("content", "field"), GLINER.values(), ids=GLINER)
def test_gliner_json(write, nlp, content, field):
    reader = gliner_json(write("bad.jsonl", after(GOOD, content)))
    assert_error(reader, nlp, located("bad.jsonl:2", field))


@pytest.mark.parametrize(("content", "field"), IN_ARRAYS.values(), ids=IN_ARRAYS)
def test_errors_in_an_array_have_the_line_of_their_record(write, nlp, content, field):
    reader = gliner_json(write("bad.json", after("[" + GOOD.strip() + ",\n", content) + b"]"))
    assert_error(reader, nlp, located("bad.json:2", field))


@pytest.mark.parametrize(("content", "field"), JSONL.values(), ids=JSONL)
def test_jsonl(write, nlp, content, field):
    reader = jsonl(write("bad.jsonl", after(text() + "\n\n", content)))
    assert_error(reader, nlp, located("bad.jsonl:3", field))


@pytest.mark.parametrize(("content", "field"), CONLL.values(), ids=CONLL)
def test_conll(write, nlp, content, field):
    reader = conll(write("bad.conll", after("Ann B-PER\nsaw O\n", content)))
    assert_error(reader, nlp, located("bad.conll:3", field))


@pytest.mark.parametrize(
    ("options", "content", "where"),
    [
        ({"tag_column": 5}, "Ann O\n", ":1 (tag_column)"),
        ({"token_column": -3}, "Ann O\n", ":1 (token_column)"),
        ({"tag_column": 0}, "Ann O\n", ":1 (tag_column)"),
        ({}, "just a text\nwithout tags\n", ":2 (columns)"),
        ({}, "\tO\nAnn\tO\n", ":1 (column 0)"),
        ({}, "-DOCSTART- O\n\n", ""),
    ],
)
def test_options_of_conll(write, nlp, options, content, where):
    assert_error(conll(write("bad.conll", content), **options), nlp, f"bad.conll{where}")


@pytest.mark.parametrize(("content", "field"), STANDOFF.values(), ids=STANDOFF)
def test_standoff(write, nlp, content, field):
    write("bad.ann", after("T1\tperson 0 3\tAnn\n", content))
    assert_error(standoff(write("bad.txt", "Ann saw Bob")), nlp, located("bad.ann:2", field))


def test_standoff_text_in_another_encoding(write, nlp):
    write("bad.ann", "")
    assert_error(standoff(write("bad.txt", b"one\nTh\xe9r\xe8se")), nlp, "bad.txt:2")


@pytest.mark.parametrize("reader", [gliner_json, jsonl, conll])
@pytest.mark.parametrize("content", ["", " \n\n", "\ufeff", GOOD.encode("utf-16")])
def test_empty_files_and_utf_16(write, nlp, reader, content):
    assert_error(reader(write("empty.txt", content)), nlp, "empty.txt")


@pytest.mark.parametrize("reader", [gliner_json, jsonl, conll, standoff])
def test_missing_files_and_empty_folders(nlp, tmp_path, reader):
    for path in (tmp_path / "nowhere", tmp_path):
        assert_error(reader(path), nlp, str(path))
    for nothing in (None, []):
        assert_error(reader(nothing), nlp, "path")
    with pytest.raises(ConfigError) as caught:
        reader(7)(nlp)
    assert caught.value.where == "path"


def test_good_records_before_the_bad_one_are_read(write, nlp):
    examples = gliner_json(write("bad.jsonl", GOOD * 3 + "{}\n"))(nlp)
    for _ in range(3):
        next(examples)
    with pytest.raises(DataError) as caught:
        next(examples)
    assert "bad.jsonl:4" in caught.value.where
