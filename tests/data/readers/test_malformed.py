"""Broken input ends in one DataError that names the place, what was found and what is allowed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gliner_pipe.data.readers import conll, gliner_json, jsonl, standoff
from gliner_pipe.errors import DataError

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
    "broken json": ('{"tokenized_text": ["a",}', ":2 is not valid JSON", "one JSON object a line"),
    "truncated json": ('{"tokenized_text": ["a"], "ne', ":2 is not valid JSON", "one JSON object a line"),
    "top is a list of numbers": ("7", ":2 is 7 (int)", "a JSON object for each example"),
    "top is a text": ('"text"', ":2 is 'text'", "a JSON object for each example"),
    "no tokenized_text": (
        '{"tokens": []}',
        ":2 (tokenized_text) is missing (fields: tokens)",
        "a list of words",
    ),
    "text instead of words": (
        '{"text": "a b", "entities": []}',
        "(tokenized_text) is missing",
        '@readers = "jsonl"',
    ),
    "words are one text": (
        words(tokenized_text="Ann saw"),
        "(tokenized_text) is 'Ann saw'",
        "a list of words",
    ),
    "a word is a number": (words(tokenized_text=["a", 7]), "(tokenized_text[1]) is 7 (int)", "a text"),
    "a word is null": (words(tokenized_text=[None]), "(tokenized_text[0]) is None", "a text"),
    "no words": (words(tokenized_text=[]), "(tokenized_text) is an empty list", "at least one word"),
    "an empty word": (words(tokenized_text=["a", ""]), "(tokenized_text[1]) is an empty text", "a word"),
    "half a character": (words(tokenized_text=["a\ud800"]), "holds half a character ('\\ud800')", "Unicode"),
    "escaped NUL": (words(tokenized_text=["a\0"]), "(tokenized_text) holds a NUL character", "text"),
    "no ner": ('{"tokenized_text": ["a"]}', "(ner) is missing", "[] for none"),
    "ner is no list": (words(ner={"a": 1}), "(ner) is {'a': 1}", "a list"),
    "an entity is no list": (words(ner=["person"]), "(ner[0]) is 'person'", "[first word, last word, label]"),
    "an entity of two": (ner(0, "person"), "(ner[1]) is [0, 'person']", "[first word, last word, label]"),
    "an entity of four": (
        ner(0, 0, "a", 0.5),
        "(ner[1]) is [0, 0, 'a', 0.5]",
        "[first word, last word, label]",
    ),
    "start beyond the text": (
        ner(3, 3, "a"),
        "(ner[1][0]) is 3, out of range",
        "0 to 2 (the text has 3 words)",
    ),
    "end beyond the text": (
        ner(0, 3, "a"),
        "(ner[1][1]) is 3, out of range",
        "0 to 2 (the text has 3 words)",
    ),
    "negative index": (ner(-1, 0, "a"), "(ner[1][0]) is -1, out of range", "a whole number from 0 to 2"),
    "start behind end": (ner(2, 1, "a"), "(ner[1]) starts at word 2, behind its end 1", "start <= end"),
    "index is a float": (ner(0.0, 1, "a"), "(ner[1][0]) is 0.0 (float)", "a whole number from 0 to 2"),
    "index is a bool": (ner(0, True, "a"), "(ner[1][1]) is True (bool)", "a whole number from 0 to 2"),
    "index is a text": (ner("0", 1, "a"), "(ner[1][0]) is '0'", "a whole number from 0 to 2"),
    "label is empty": (ner(0, 0, ""), "(ner[1][2]) is the empty label ''", "a label such as"),
    "label of blanks": (ner(0, 0, " \t"), "(ner[1][2]) is the empty label", "a label such as"),
    "label is a number": (ner(0, 0, 3), "(ner[1][2]) is 3 (int)", "a label in quotes"),
    "label is null": (ner(0, 0, None), "(ner[1][2]) is None", "a label in quotes"),
    "ner_labels is a text": (words(ner_labels="person"), "(ner_labels) is 'person'", "a list of labels"),
    "ner_labels holds null": (words(ner_labels=["a", None]), "(ner_labels[1]) is None", "a label in quotes"),
    "negative label in use": (
        words(ner=[[0, 0, "person"]], ner_negatives=["city", "person"]),
        "(ner_negatives) names 'person', which stands in the example",
        "labels that the example does not have",
    ),
    "relations is an object": (words(relations={}), "(relations) is {}", "a list"),
    "relation without entities": (
        words(relations=[[0, 1, "a"]]),
        "(relations[0][0]) is 0, out of range",
        "nothing",
    ),
    "relation index out of range": (
        words(ner=[[0, 0, "person"]], relations=[[0, 1, "knows"]]),
        "(relations[0][1]) is 1, out of range",
        "positions in a list of 1 entities",
    ),
    "relation label is a number": (
        words(ner=[[0, 0, "person"]], relations=[[0, 0, 5]]),
        "(relations[0][2]) is 5 (int)",
        "a label in quotes",
    ),
    "negative relation in use": (
        words(ner=[[0, 0, "person"]], relations=[[0, 0, "is"]], rel_negatives=["is"]),
        "(rel_negatives) names 'is'",
        "labels that the example does not have",
    ),
    "id is a list": (words(id=[1]), "(id) is [1]", "a text or a whole number"),
    "latin-1": (words(id="X").replace("X", "\xe9").encode("latin-1"), ":2 is not UTF-8: byte 0xe9", "UTF-8"),
    "NUL byte": (b'{"tokenized_text": ["\x00"]}', ":2 holds a NUL character at byte 22", "UTF-8"),
}

#: Mistakes of syntax have other texts in an array; see the tests of read_json.
IN_ARRAYS = {name: case for name, case in GLINER.items() if not name.endswith("json")}

JSONL = {
    "no text": ('{"entities": []}', "(text) is missing (fields: entities)", "a text"),
    "words instead of a text": (words(), "(text) is missing", '@readers = "gliner_json"'),
    "text is a list": (text(text=["a"]), "(text) is ['a']", "a text"),
    "text is empty": (text(text=""), "(text) is empty", "at least one character"),
    "text with half a character": (text(text="a\udfff"), "(text) holds half a character", "Unicode"),
    "entities is null": (text(entities=None), "(entities) is None", "a list"),
    "negative offset": (
        span(-1, 3, "a"),
        "(entities[0][0]) is -1, out of range",
        "0 to 11 (the text has 11 char",
    ),
    "reversed offsets": (span(5, 2, "a"), "(entities[0]) goes from 5 to 2", "start < end"),
    "entity without characters": (span(3, 3, "a"), "(entities[0]) goes from 3 to 3", "start < end"),
    "offset beyond the text": (span(0, 12, "a"), "(entities[0][1]) is 12, out of range", "0 to 11"),
    "offset is a float": (span(0, 3.0, "a"), "(entities[0][1]) is 3.0 (float)", "a whole number"),
    "offset is a text": (
        text(entities=[{"start": "0", "end": 3, "label": "a"}]),
        "(entities[0].start) is '0'",
        "whole",
    ),
    "no end": (
        text(entities=[{"start": 0, "label": "a"}]),
        "(entities[0]) lacks end",
        '{"start": 0, "end": 4',
    ),
    "label of blanks": (span(0, 3, " "), "(entities[0][2]) is the empty label ' '", "a label such as"),
    "text of the entity differs": (
        text(entities=[{"start": 0, "end": 3, "label": "a", "text": "Bob"}]),
        "(entities[0].text) is 'Bob' where the text has 'Ann'",
        "the same text in both",
    ),
}

CONLL = {
    "no tag of the scheme": ("Bob X-PER", ":3 (tag) is 'X-PER'", "O, B-label, I-label (scheme BIO)"),
    "a tag of another scheme": ("Bob B", ":3 (tag) is 'B'", "O, B-label, I-label (scheme BIO)"),
    "too few columns": ("Bob", ":3 (columns) has 1 columns, line 1 has 2", "the same number in each line"),
    "too many columns": (
        "Bob NN B-PER",
        ":3 (columns) has 3 columns, line 1 has 2",
        "the same number in each line",
    ),
    "latin-1": (b"B\xf6b B-PER", ":3 is not UTF-8: byte 0xf6 at byte 2", "UTF-8"),
    "NUL byte": (b"B\x00b B-PER", ":3 holds a NUL character", "UTF-8"),
}

STANDOFF = {
    "entity without text": (
        "T2\tcity 0 3",
        ":2 (entity) is 'T2\\tcity 0 3'",
        "T1<tab>label start end<tab>text",
    ),
    "entity without offsets": ("T2\tcity\tAnn", ":2 (entity)", "T1<tab>label start end<tab>text"),
    "label with blanks": ("T2\tbig city 0 3\tAnn", ":2 (entity)", "Labels hold no blanks"),
    "blanks for tabs": ("T2 city 0 3 Ann", ":2 (entity)", "two tabs a line"),
    "reversed offsets": ("T2\tcity 3 0\tAnn", ":2 (T2) goes from 3 to 0", "start < end"),
    "offset beyond the text": (
        "T2\tcity 8 12\tBob.",
        ":2 (T2) ends at character 12, beyond the text",
        "at most 11",
    ),
    "another text": (
        "T2\tcity 8 11\tBib",
        ":2 (T2) is 'Bib' where the text has 'Bob'",
        "the same text in both",
    ),
    "an identifier twice": ("T1\tcity 8 11\tBob", ":2 (T1) stands there twice", "each identifier once"),
    "unknown kind of line": (
        "X1\tcity 8 11\tBob",
        ":2 is 'X1\\tcity 8 11\\tBob'",
        "lines that begin with T, R, E",
    ),
    "a relation without arguments": ("R1\tknows T1 T2", ":2 (relation)", "R1<tab>label Arg1:T1 Arg2:T2"),
    "a relation of an unknown entity": (
        "R1\tknows Arg1:T1 Arg2:T9",
        ":2 (relation) names T9",
        "the T of an entity",
    ),
    "a broken event": ("E1\tknows", ":2 (event)", "E1<tab>label:T1"),
    "latin-1": (b"T2\tr\xf4le 8 11\tBob", ":2 is not UTF-8: byte 0xf4 at byte 5", "UTF-8"),
}


def assert_one_clear_error(nlp, reader, found: str, allowed: str) -> None:
    with pytest.raises(DataError) as caught:
        list(reader(nlp))
    message = str(caught.value)
    assert found in message
    assert allowed in message
    assert len(message) < 600
    assert "\n" not in message


def with_prefix(prefix: str, content: str | bytes) -> bytes:
    return prefix.encode() + (
        content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    )


@pytest.mark.parametrize(("content", "found", "allowed"), GLINER.values(), ids=GLINER)
def test_gliner_json(write, nlp, content, found, allowed):
    path = write("bad.jsonl", with_prefix(GOOD, content))
    assert_one_clear_error(nlp, gliner_json(path), f"bad.jsonl{found}" if found[0] == ":" else found, allowed)


@pytest.mark.parametrize(("content", "found", "allowed"), IN_ARRAYS.values(), ids=IN_ARRAYS)
def test_gliner_json_array(write, nlp, content, found, allowed):
    """The same mistakes in one JSON array are found in the same line."""
    body = with_prefix("[" + GOOD.strip() + ",\n", content) + b"]"
    path = write("bad.json", body)
    assert_one_clear_error(nlp, gliner_json(path), f"bad.json{found}" if found[0] == ":" else found, allowed)


@pytest.mark.parametrize(("content", "found", "allowed"), JSONL.values(), ids=JSONL)
def test_jsonl(write, nlp, content, found, allowed):
    path = write("bad.jsonl", with_prefix(text() + "\n\n", content))
    assert_one_clear_error(nlp, jsonl(path), f"bad.jsonl:3 {found}", allowed)


@pytest.mark.parametrize(("content", "found", "allowed"), CONLL.values(), ids=CONLL)
def test_conll(write, nlp, content, found, allowed):
    path = write("bad.conll", with_prefix("Ann B-PER\nsaw O\n", content))
    assert_one_clear_error(nlp, conll(path), f"bad.conll{found}", allowed)


@pytest.mark.parametrize(
    ("options", "content", "found"),
    [
        ({"tag_column": 5}, "Ann O\n", "bad.conll:1 (tag_column) is 5, the line has 2 columns"),
        ({"token_column": -3}, "Ann O\n", "bad.conll:1 (token_column) is -3, the line has 2 columns"),
        ({"tag_column": 0}, "Ann O\n", "bad.conll:1 (tag_column) is column 0, the same as token_column"),
        ({}, "just a text\nwithout tags\n", "bad.conll:2 (columns) has 2 columns, line 1 has 3"),
        ({}, "\tO\nAnn\tO\n", "bad.conll:1 (column 0) is an empty word"),
        ({}, "\n\n", "bad.conll is empty"),
        ({}, "-DOCSTART- O\n\n", "bad.conll is empty"),
    ],
)
def test_conll_files(write, nlp, options, content, found):
    assert_one_clear_error(nlp, conll(write("bad.conll", content), **options), found, "")


@pytest.mark.parametrize(("content", "found", "allowed"), STANDOFF.values(), ids=STANDOFF)
def test_standoff(write, nlp, content, found, allowed):
    write("bad.ann", with_prefix("T1\tperson 0 3\tAnn\n", content))
    path = write("bad.txt", "Ann saw Bob")
    assert_one_clear_error(nlp, standoff(path), f"bad.ann{found}", allowed)


def test_standoff_text_in_another_encoding(write, nlp):
    write("bad.ann", "")
    path = write("bad.txt", b"one\nTh\xe9r\xe8se")
    assert_one_clear_error(nlp, standoff(path), "bad.txt:2 is not UTF-8: byte 0xe9 at byte 3", "UTF-8")


@pytest.mark.parametrize("reader", [gliner_json, jsonl, conll])
@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("empty.txt", "", "empty.txt is empty"),
        ("blank.txt", " \n\n", "blank.txt is empty"),
        ("bom.txt", "\ufeff", "bom.txt is empty"),
        ("utf16.txt", GOOD.encode("utf-16"), "utf16.txt is UTF-16 text"),
    ],
)
def test_files(write, nlp, reader, name, content, found):
    assert_one_clear_error(nlp, reader(write(name, content)), found, "")


@pytest.mark.parametrize("reader", [gliner_json, jsonl, conll, standoff])
def test_missing_and_empty_folders(nlp, tmp_path, reader):
    assert_one_clear_error(
        nlp, reader(tmp_path / "nowhere"), "does not exist", "a file, a folder or a pattern"
    )
    assert_one_clear_error(nlp, reader(tmp_path), "is a folder without usable files", "files that end in")
    assert_one_clear_error(nlp, reader(None), "path is None", "a file, a folder")
    assert_one_clear_error(nlp, reader([]), "path is []", "a file, a folder")


def test_good_records_before_the_bad_one_are_read(write, nlp):
    examples = gliner_json(write("bad.jsonl", GOOD * 3 + "{}\n"))(nlp)
    for _ in range(3):
        next(examples)
    with pytest.raises(DataError, match=r"bad\.jsonl:4"):
        next(examples)
