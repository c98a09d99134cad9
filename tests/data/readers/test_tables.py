"""Cells that hold lists, and files that hold tables."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from gliner_pipe.data.files import Place
from gliner_pipe.data.readers.cells import guess_columns, list_cell
from gliner_pipe.data.readers.tables import (
    is_dataset,
    open_tables,
    saved_dataset,
    splits_of,
)
from gliner_pipe.errors import DataError

PLACE = Place("a.csv", 2)


@given(st.lists(st.one_of(st.text(), st.integers())))
def test_lists_come_back_as_they_were_written(value):
    assert list_cell(PLACE, "tokens", repr(value)) == value
    assert list_cell(PLACE, "tokens", json.dumps(value)) == value
    assert list_cell(PLACE, "tokens", value) == value
    assert list_cell(PLACE, "tokens", f" {tuple(value)} ") == value


@pytest.mark.parametrize(
    "text",
    [
        "[''\"'\"]",
        "['a', 'b' 'c']",
        "['a' 'b' ... 'c']",
        "[1 2 ...]",
        "a b",
        "{'a': 1}",
        "'a'",
        "7",
        "['a'",
        "[x]",
        "[f'{1}']",
        "[open('a.csv')]",
        "[" * 100_000,
        "\\",
    ],
)
def test_cells_that_are_no_list(text, fails):
    with fails(DataError, "a.csv:2 (tokens)") as caught:
        list_cell(PLACE, "tokens", text)
    assert len(str(caught.value)) < 300


def test_empty_cells_are_empty_lists():
    assert list_cell(PLACE, "tokens", " ") == []
    assert list_cell(PLACE, "tokens", "[]") == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("['John' 'Smith']", ["John", "Smith"]),
        ("['John'\n 'Smith']", ["John", "Smith"]),
        ("array(['John', 'Smith'], dtype=object)", ["John", "Smith"]),
        ("array(['John' 'Smith'], dtype='<U5')", ["John", "Smith"]),
        ("""['it' "'s" '"' 'a\\\\b']""", ["it", "'s", '"', "a\\b"]),
        ("[ 1 -1 20]", [1, -1, 20]),
        ("['John']", ["John"]),
        ("[7]", [7]),
    ],
)
def test_arrays_as_numpy_prints_them(text, value):
    assert list_cell(PLACE, "tokens", text) == value


def test_arrays_and_missing_cells():
    numpy = pytest.importorskip("numpy")
    assert list_cell(PLACE, "tokens", numpy.array(["a", "b"])) == ["a", "b"]
    assert list_cell(PLACE, "tokens", float("nan")) is None


def test_quotes_within_words():
    assert list_cell(PLACE, "tokens", """["'", '"', "''", 'it', "'s"]""") == ["'", '"', "''", "it", "'s"]


@pytest.mark.parametrize(
    ("columns", "guessed"),
    [
        (["id", "tokens", "pos_tags", "chunk_tags", "ner_tags"], ("tokens", "ner_tags")),
        (["words", "labels", "text"], ("words", "labels")),
        (["tokens", "tags", "ner_tags"], None),
        (["tokens", "words", "tags"], None),
        (["text", "label"], None),
        (["Sentence #", "Word", "POS", "Tag"], ("Word", "Tag")),
        (["id", "data.tokens", "data.tags"], ("data.tokens", "data.tags")),
        (["one.tokens", "two.tags"], None),
        (["text", "meta.tokens", "meta.tags"], None),
        ({"id": 1, "ner": [{"word": "Ann", "tag": "O"}]}, ("ner.word", "ner.tag")),
        ([], None),
    ],
)
def test_guessed_columns(columns, guessed):
    assert guess_columns(columns) == guessed


def test_tables_in_memory():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"tokens": [["Ann"]], "tags": [["O"]]})
    assert is_dataset(frame) and is_dataset({"train": frame}) and is_dataset(Dataset.from_list([{"a": 1}]))
    for other in ({"reader": frame}, {}, {"path": "a"}, "a", [1], None):
        assert not is_dataset(other)


def test_names_of_splits(write, tmp_path):
    for name in ("train-00000-of-00001.parquet", "dev_1.csv", "test/a.jsonl", "validation.csv", "other.csv"):
        write(f"data/{name}", "")
    assert sorted(splits_of(tmp_path / "data")) == ["dev", "test", "train", "validation"]
    assert not saved_dataset(tmp_path / "data")
    assert splits_of(tmp_path / "data" / "dev_1.csv") == []


def test_a_split_of_another_name(write, tmp_path, fails):
    write("data/gold.jsonl", [{"n": 1}])
    write("data/silver.jsonl", [{"n": 2}])
    (table,) = open_tables(tmp_path / "data", "gold")
    assert [row["n"] for _, row in table.rows(("n",))] == [1]
    assert len(open_tables(tmp_path / "data", "train")) == 2  # none of the names says a split
    with fails(DataError, str(tmp_path / "data")):
        open_tables(tmp_path / "data", "bronze")
