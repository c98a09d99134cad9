"""Cells that hold lists, and files that hold tables."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_pipe.data.files import Place
from gliner_pipe.data.readers.tables import guess_columns, list_cell, open_tables, saved_dataset, splits_of
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
        ([], None),
    ],
)
def test_guessed_columns(columns, guessed):
    assert guess_columns(columns) == guessed


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
