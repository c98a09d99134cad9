from __future__ import annotations

import json
import logging
import math

import pytest
from confit.errors import ConfitValidationError

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.readers import gliner_json
from gliner_pipe.errors import ConfigError, DataError

ANN = {"tokenized_text": ["Ann", "lives", "in", "Paris", "."], "ner": [[0, 0, "person"], [3, 3, "city"]]}
BOB = {"tokenized_text": ["Bob", "left"], "ner": [], "id": 7}


def triples(example, key="gliner"):
    return [(span.start, span.end, span.label_) for span in gold_spans(example.reference, key)]


def read(nlp, path, **options):
    return list(gliner_json(path, **options)(nlp))


def test_words_are_tokens_and_both_ends_are_inclusive(write, nlp):
    example, _ = read(nlp, write("a.jsonl", [ANN, BOB]))
    assert [token.text for token in example.predicted] == ANN["tokenized_text"]
    assert [token.text for token in example.reference] == ANN["tokenized_text"]
    assert triples(example) == [(0, 1, "person"), (3, 4, "city")]
    assert not example.predicted.spans
    assert not example.predicted.ents


def test_words_are_not_split_by_the_tokenizer(write, nlp):
    words = ["don't", "e.g.", "New York", "\u3000", "a-b"]
    (example,) = read(nlp, write("a.jsonl", [{"tokenized_text": words, "ner": [[2, 4, "x"]]}]))
    assert [token.text for token in example.reference] == words
    assert triples(example) == [(2, 5, "x")]


def test_array_and_folder_and_list(write, nlp, tmp_path):
    write("a.json", json.dumps([ANN, BOB], indent=1))
    write("b.jsonl", [BOB])
    assert len(read(nlp, tmp_path)) == 3
    assert len(read(nlp, [str(tmp_path / "b.jsonl"), str(tmp_path / "a.json")])) == 3
    assert len(read(nlp, str(tmp_path / "*.jsonl"))) == 1


def test_supervision(write, nlp):
    record = ANN | {
        "ner_labels": ["person", "city", "date"],
        "ner_negatives": ["animal"],
        "relations": [[0, 1, "lives in"]],
        "rel_labels": ["lives in", "born in"],
        "rel_negatives": ["owns"],
        "id": "x",
    }
    (example,) = read(nlp, write("a.jsonl", [record]))
    assert supervision(example.reference) == {
        "id": "x",
        "source": "a.jsonl:1",
        "ner_labels": ["person", "city", "date"],
        "ner_negatives": ["animal"],
        "relations": [[0, 1, "lives in"]],
        "rel_labels": ["lives in", "born in"],
        "rel_negatives": ["owns"],
    }
    assert supervision(example.predicted) == {}


def test_source_and_numeric_id(write, nlp):
    example = read(nlp, write("a.jsonl", [ANN, BOB]))[1]
    assert supervision(example.reference) == {"id": "7", "source": "a.jsonl:2"}


def test_nested_and_multi_label_entities_and_duplicates(write, nlp):
    record = {
        "tokenized_text": ["New", "York", "Times"],
        "ner": [[0, 2, "paper"], [0, 1, "city"], [0, 2, "paper"], [0, 2, "company"]],
        "relations": [[2, 1, "named after"], [0, 1, "named after"], [3, 0, "owns"]],
    }
    reader = gliner_json(write("a.jsonl", [record]))
    (example,) = reader(nlp)
    assert triples(example) == [(0, 3, "paper"), (0, 2, "city"), (0, 3, "company")]
    assert supervision(example.reference)["relations"] == [[0, 1, "named after"], [2, 0, "owns"]]
    assert reader.report == {"duplicate entity (merged)": 1, "duplicate relation (merged)": 1}


def test_relations_count_in_the_first_place_of_the_span_setter(write, nlp):
    record = {
        "tokenized_text": ["New", "York", "Times", "Ann"],
        "ner": [[3, 3, "person"], [0, 1, "city"], [0, 2, "paper"]],
        "relations": [[0, 2, "works for"], [2, 1, "in"]],
    }
    reader = gliner_json(write("a.jsonl", [record]), span_setter="ents")
    (example,) = reader(nlp)
    assert triples(example) == [(0, 3, "paper"), (3, 4, "person")]
    assert supervision(example.reference)["relations"] == [[1, 0, "works for"]]
    assert reader.report["relation without its entity (dropped)"] == 1


def test_label_map_renames_drops_and_reindexes(write, nlp):
    record = ANN | {"relations": [[0, 1, "lives in"]], "ner_labels": ["person", "city"]}
    reader = gliner_json(
        write("a.jsonl", [record]),
        label_map=[["city", "place: town"], ["person", None]],
        rel_label_map={"lives in": "home"},
    )
    (example,) = reader(nlp)
    assert triples(example) == [(3, 4, "place: town")]
    assert supervision(example.reference)["ner_labels"] == ["place: town"]
    assert supervision(example.reference)["relations"] == []
    assert reader.report["label 'person' (dropped by the label map)"] == 1


def test_labels_are_written_on_every_example(write, nlp):
    examples = read(nlp, write("a.jsonl", [ANN, BOB]), labels=["person", "city", "date"])
    assert [supervision(e.reference)["ner_labels"] for e in examples] == [["person", "city", "date"]] * 2


def test_labels_are_closed_after_the_label_map(write, nlp, fails):
    path = write("a.jsonl", [ANN])
    assert read(nlp, path, labels=["person", "town"], label_map={"city": "town"})
    with fails(DataError, "a.jsonl:1 (label)"):
        read(nlp, path, labels=["person", "town"])
    with fails(DataError, "(relation label)"):
        read(nlp, write("b.jsonl", [ANN | {"relations": [[0, 1, "in"]]}]), rel_labels=["near"])


def test_a_label_missing_from_ner_labels_is_added(write, nlp):
    reader = gliner_json(write("a.jsonl", [ANN | {"ner_labels": ["date"]}]))
    (example,) = reader(nlp)
    assert supervision(example.reference)["ner_labels"] == ["date", "person", "city"]
    assert reader.report == {"label in use but not in ner_labels (added)": 2}


def test_limit_and_report_are_per_pass(write, nlp):
    path = write("a.jsonl", [ANN | {"lang": "en"}] * 5)
    reader = gliner_json(path, limit=2)
    for _ in range(2):
        assert len(list(reader(nlp))) == 2
        assert reader.report == {"unknown field 'lang' (ignored)": 2}
    assert len(read(nlp, path, limit=0)) == 5


def test_the_report_is_logged_once(write, nlp, caplog):
    reader = gliner_json(write("a.jsonl", [ANN | {"lang": "en"}] * 3))
    with caplog.at_level(logging.WARNING, logger="gliner_pipe"):
        list(reader(nlp))
        list(reader(nlp))
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "3 x unknown field 'lang' (ignored) (first: a.jsonl:1)"
    ]


def test_missing_files_are_reported_before_the_first_example(nlp, tmp_path, fails):
    reader = gliner_json(tmp_path / "nothing.jsonl")
    with fails(DataError, "nothing.jsonl"):
        reader(nlp)


def test_flat_ner(write, nlp, fails):
    nested = {"tokenized_text": ["New", "York", "Times"], "ner": [[0, 2, "paper"], [0, 1, "city"]]}
    assert read(nlp, write("a.jsonl", [ANN]), flat_ner=True)
    with fails(DataError, "(entities)"):
        read(nlp, write("b.jsonl", [nested]), flat_ner=True)


def test_a_record_without_ner(write, nlp, fails):
    path = write("a.jsonl", [{"tokenized_text": ["Hi"]}])
    with fails(DataError, "a.jsonl:1 (ner)"):
        read(nlp, path)
    assert triples(read(nlp, path, require_gold=False)[0]) == []


def test_labels_are_stripped_and_counted(write, nlp):
    reader = gliner_json(write("a.jsonl", [{"tokenized_text": ["Hi"], "ner": [[0, 0, " greeting\n"]]}]))
    assert triples(next(reader(nlp))) == [(0, 1, "greeting")]
    assert reader.report == {"label with surrounding whitespace (stripped)": 1}


def test_a_text_of_100_000_words(write, nlp):
    words = [f"w{i % 1000}" for i in range(100_000)]
    ner = [[i, i + 1, "x"] for i in range(0, 100_000, 10)]
    (example,) = read(nlp, write("a.jsonl", [{"tokenized_text": words, "ner": ner}]))
    assert len(example.reference) == 100_000
    assert len(triples(example)) == 10_000


@pytest.mark.parametrize(
    "options",
    [
        {"labels": []},
        {"labels": ["a", " "]},
        {"label_map": [["a"]]},
        {"label_map": {"a": ""}},
        {"span_setter": ""},
    ],
)
def test_wrong_options(options, fails):
    with fails(ConfigError, next(iter(options))):
        gliner_json("a.jsonl", **options)


def test_entities_that_are_null_are_counted(write, nlp):
    records = [{"tokenized_text": ["Ann"], "ner": None}, {"tokenized_text": ["Ann"], "ner": [[0, 0, "x"]]}]
    reader = gliner_json(write("a.jsonl", records))
    assert [len(gold_spans(example.reference)) for example in reader(nlp)] == [0, 1]
    assert reader.report == {"record with ner = null (no entities)": 1}


def test_records_with_tuples(nlp):
    (example,) = gliner_json([{"tokenized_text": ("Ann", "left"), "ner": ((0, 0, "person"),)}])(nlp)
    assert [span.text for span in gold_spans(example.reference)] == ["Ann"]


@pytest.mark.parametrize("limit", [-1, True, math.nan])
def test_wrong_limits(limit):
    with pytest.raises(ConfitValidationError) as refused:
        gliner_json("a.jsonl", limit=limit)
    assert refused.value.errors()[0]["loc"] == ("limit",)
