"""The option `fields` of the JSON readers, and tags in place of entities."""

from __future__ import annotations

import pytest

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.readers import gliner_json, jsonl
from gliner_pipe.errors import ConfigError, DataError

WORDS = ["Ann", "Lee", "left", "Paris"]


def triples(reader, nlp):
    return [[(s.start, s.end, s.label_) for s in gold_spans(e.reference)] for e in reader(nlp)]


EXPECTED = [[(0, 2, "person"), (3, 4, "city")]]


def test_names_of_fields(write, nlp):
    record = {
        "words": WORDS,
        "mentions": [[0, 1, "person"], [3, 3, "city"]],
        "links": [[0, 1, "left"]],
        "types": ["person", "city", "date"],
        "doc": "d1",
    }
    fields = {"tokens": "words", "ner": "mentions", "relations": "links", "ner_labels": "types", "id": "doc"}
    reader = gliner_json(write("a.jsonl", [record]), fields=fields)
    assert triples(reader, nlp) == EXPECTED
    (example,) = reader(nlp)
    stored = supervision(example.reference)
    assert stored["relations"] == [[0, 1, "left"]]
    assert (stored["ner_labels"], stored["id"]) == (["person", "city", "date"], "d1")
    assert not reader.report


def test_entities_and_tags_in_one_file(write, nlp):
    """Words, entities or tags, and no relations in the data."""
    fields = {"tokens": "tokens", "ner": "ner_tags", "relations": "relations"}
    spans = {"tokens": WORDS, "ner_tags": [[0, 1, "person"], [3, 3, "city"]]}
    tags = {"tokens": WORDS, "ner_tags": ["B-person", "I-person", "O", "B-city"]}
    none = {"tokens": WORDS, "ner_tags": []}
    reader = gliner_json(write("a.jsonl", [spans, tags, none]), fields=fields)
    assert triples(reader, nlp) == [*EXPECTED, *EXPECTED, []]
    assert not reader.report


def test_tags_by_their_ids(write, nlp, fails):
    path = write("a.jsonl", [{"tokens": WORDS, "ner_tags": [1, 2, 0, 3]}])
    fields = {"tokens": "tokens", "ner": "ner_tags"}
    names = ["O", "B-person", "I-person", "B-city"]
    assert triples(gliner_json(path, fields=fields, tag_names=names), nlp) == EXPECTED
    with fails(DataError, "a.jsonl:1 (ner_tags[0])"):
        list(gliner_json(path, fields=fields)(nlp))


def test_the_scheme_is_inferred_from_the_file(write, nlp):
    rows = [
        {"tokenized_text": ["Ann", "Lee"], "ner": ["I-x", "I-x"]},
        {"tokenized_text": ["Bo", "Cy"], "ner": ["I-x", "B-x"]},
    ]
    reader = gliner_json(write("a.jsonl", rows))
    assert triples(reader, nlp) == [[(0, 2, "x")], [(0, 1, "x"), (1, 2, "x")]]
    assert list(reader.report.values()) == [4]  # the scheme IOB1 is said
    assert triples(gliner_json(rows), nlp) == triples(reader, nlp)
    mixed = gliner_json([*rows, {"tokenized_text": ["a", "b"], "ner": ["B-x", "I-x"]}])
    assert triples(mixed, nlp)[0] == [(0, 2, "x")]
    assert mixed.report == {"I- without B- before it (read as the beginning)": 2}


def test_relations_count_in_the_entities_of_tags(nlp):
    record = {"tokens": WORDS, "ner": ["B-person", "I-person", "O", "B-city"], "relations": [[0, 1, "left"]]}
    (example,) = gliner_json([record], fields={"tokens": "tokens"})(nlp)
    assert supervision(example.reference)["relations"] == [[0, 1, "left"]]


def test_texts(write, nlp, fails):
    record = {"body": "Ann Lee left Paris", "mentions": [[0, 7, "person"], [13, 18, "city"]]}
    fields = {"text": "body", "entities": "mentions"}
    path = write("a.jsonl", [record])
    assert triples(jsonl(path, fields=fields), nlp) == EXPECTED
    assert triples(jsonl(path, fields={"text": "body"}, entity_field="mentions"), nlp) == EXPECTED
    with fails(ConfigError, "entity_field"):
        jsonl(path, fields=fields, entity_field="spans")
    with fails(DataError, "(content)"):
        list(jsonl(path, fields={"text": "content"})(nlp))


def test_a_renamed_field_is_not_read_twice(nlp):
    """`ner_labels` holds the entities here, and is no list of labels any more."""
    record = {"tokens": WORDS, "ner_labels": [[0, 1, "person"], [3, 3, "city"]]}
    reader = gliner_json([record], fields={"tokens": "tokens", "ner": "ner_labels"})
    assert triples(reader, nlp) == EXPECTED
    assert "ner_labels" not in supervision(next(iter(reader(nlp))).reference)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"labels": "x"}, "fields.labels"),
        ({"ner": ""}, "fields.ner"),
        ({"tokens": "a", "tokenized_text": "b"}, "fields.tokenized_text"),
        ({"tokens": "a", "ner": "a"}, "fields"),
    ],
)
def test_wrong_fields(fields, where, fails):
    with fails(ConfigError, where):
        gliner_json([], fields=fields)


@pytest.mark.parametrize(
    ("record", "fields", "field"),
    [
        ({"tokens": WORDS, "tags": []}, {}, "tokenized_text"),
        ({"tokens": WORDS, "x": ["O"]}, {"tokens": "tokens", "ner": "x"}, "x"),
        ({"tokens": WORDS}, {"tokens": "tokens", "ner": "x"}, "x"),
        ({"tokenized_text": WORDS, "ner": ["O", "O", "O", "B"]}, {}, "ner[3]"),
    ],
)
def test_wrong_records(nlp, record, fields, field, fails):
    with fails(DataError, f"record 0 ({field})"):
        list(gliner_json([record], fields=fields)(nlp))


def test_an_empty_list_of_records(nlp, fails):
    with fails(DataError, "path"):
        gliner_json([])(nlp)
