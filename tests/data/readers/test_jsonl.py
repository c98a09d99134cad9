from __future__ import annotations

import pytest

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.readers import jsonl
from gliner_pipe.data.records import get_records, with_values
from gliner_pipe.errors import DataError

TEXT = "Ann Lee lives in Paris."


def triples(example):
    return [(span.text, span.label_) for span in gold_spans(example.reference)]


def read(nlp, path, **options):
    return list(jsonl(path, **options)(nlp))


@pytest.mark.parametrize("field", ["entities", "spans", "ner"])
@pytest.mark.parametrize(
    "entities",
    [
        [[0, 7, "person"], [17, 22, "city"]],
        [
            {"start": 0, "end": 7, "label": "person", "text": "Ann Lee"},
            {"start": 17, "end": 22, "label": "city"},
        ],
    ],
)
def test_forms_of_entities(write, nlp, field, entities):
    (example,) = read(nlp, write("a.jsonl", [{"text": TEXT, field: entities}]))
    assert example.predicted.text == TEXT
    assert triples(example) == [("Ann Lee", "person"), ("Paris", "city")]


def test_supervision_and_relations(write, nlp):
    record = {
        "text": TEXT,
        "entities": [[0, 7, "person"], [17, 22, "city"]],
        "relations": [[0, 1, "lives in"]],
    }
    (example,) = read(nlp, write("a.jsonl", [record | {"ner_negatives": ["date"], "id": "d1"}]))
    assert supervision(example.reference) == {
        "id": "d1",
        "source": "a.jsonl:1",
        "ner_negatives": ["date"],
        "relations": [[0, 1, "lives in"]],
    }


@pytest.mark.parametrize(
    ("mode", "expected", "reason"),
    [
        (
            "expand",
            [("Ann Lee", "a"), ("Paris", "b")],
            "entity does not align with token boundaries (widened)",
        ),
        ("contract", [("Ann", "a")], "entity does not align with token boundaries (narrowed)"),
        ("strict", [], "entity does not align with token boundaries (dropped)"),
    ],
)
def test_alignment_modes(write, nlp, mode, expected, reason):
    record = {"text": TEXT, "entities": [[0, 6, "a"], [18, 21, "b"]]}
    reader = jsonl(write("a.jsonl", [record]), alignment_mode=mode)
    assert triples(next(reader(nlp))) == expected
    assert reader.report[reason] == (1 if mode == "contract" else 2)
    assert sum(reader.report.values()) == 2


def test_whitespace_around_an_entity_is_trimmed(write, nlp):
    reader = jsonl(
        write("a.jsonl", [{"text": TEXT, "entities": [[7, 14, "x"], [13, 14, "y"]]}]), alignment_mode="strict"
    )
    assert triples(next(reader(nlp))) == [("lives", "x")]
    assert reader.report == {
        "entity with surrounding whitespace (trimmed)": 1,
        "whitespace-only entity (dropped)": 1,
    }


def test_relations_of_dropped_entities_are_counted(write, nlp):
    record = {
        "text": TEXT,
        "entities": [[0, 2, "x"], [0, 7, "person"], [17, 22, "city"]],
        "relations": [[0, 2, "in"], [1, 2, "lives in"]],
    }
    reader = jsonl(write("a.jsonl", [record]), alignment_mode="strict")
    example = next(reader(nlp))
    assert supervision(example.reference)["relations"] == [[0, 1, "lives in"]]
    assert reader.report["relation without its entity (dropped)"] == 1


def test_characters_beyond_the_basic_plane_count_once(write, nlp):
    text = "😀 Zoë 𐐀 in São Paulo"
    start = text.index("São")
    (example,) = read(
        nlp, write("a.jsonl", [{"text": text, "entities": [[start, len(text), "city"], [2, 5, "person"]]}])
    )
    assert triples(example) == [("São Paulo", "city"), ("Zoë", "person")]


def test_other_entity_field(write, nlp, fails):
    path = write("a.jsonl", [{"text": TEXT, "found": [[0, 7, "person"]]}])
    with fails(DataError, "(entities or spans or ner)"):
        read(nlp, path)
    assert triples(read(nlp, path, entity_field="found")[0]) == [("Ann Lee", "person")]
    assert triples(read(nlp, path, require_gold=False)[0]) == []


def test_two_entity_fields(write, nlp, fails):
    path = write("a.jsonl", [{"text": TEXT, "entities": [], "spans": []}])
    with fails(DataError, "(entities and spans)"):
        read(nlp, path)
    assert read(nlp, path, entity_field="spans")


def test_a_tokenizer_that_changes_the_text(write, nlp, fails):
    import spacy
    from spacy.tokens import Doc

    other = spacy.blank("en")
    other.tokenizer = lambda text: Doc(other.vocab, words=text.lower().split())
    with fails(DataError, "(text)"):
        read(other, write("a.jsonl", [{"text": TEXT, "entities": []}]))


def test_a_text_longer_than_max_length_of_the_pipeline(write, nlp):
    text = "word " * 250_000
    (example,) = read(nlp, write("a.jsonl", [{"text": text, "entities": [[0, 4, "x"]]}]))
    assert len(text) > nlp.max_length
    assert triples(example) == [("word", "x")]


def test_classes_and_records(nlp, write):
    records = {"home": [{"who": [0, 7], "where": [[17, 22]], "kind": "house"}], "work": []}
    one = {"text": TEXT, "classes": {"tone": "good", "topic": ["a"], "odd": None}, "records": records}
    two = {"text": TEXT, "entities": [], "classes": {"tone": {"label": "bad", "labels": ["good"]}}}
    reader = jsonl(write("a.jsonl", [one, two, {"text": TEXT, "spans": [], "classes": ["a"]}]))
    first, second, third = (example.reference for example in reader(nlp))
    assert first.cats == {"tone=good": 1.0, "topic=a": 1.0}
    assert supervision(first)["records"] == {"home": {}, "work": {}}
    assert supervision(first)["entities_annotated"] is False
    (home,) = get_records(first)
    assert with_values(home, str) == {"who": "Ann Lee", "where": ["Paris"], "kind": "house"}
    assert second.cats == {"tone=good": 0.0, "tone=bad": 1.0}
    assert "entities_annotated" not in supervision(second)
    assert third.cats == {}
    assert reader.report == {
        "true class that is not among the labels of its task (added)": 1,
        "field 'classes' that is no mapping (ignored)": 1,
    }


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"classes": {"tone": {"labels": ["a"]}}}, "classes.tone"),
        ({"classes": {"tone": 7}}, "classes.tone.label[0]"),
        ({"classes": {"tone": {"label": "a", "examples": ["a"]}}}, "classes.tone.examples[0]"),
        ({"records": {"home": {"items": 7}}}, "records.home"),
        ({"records": {"home": [{"who": [0, 99]}]}}, "records.home[0].who[1]"),
        ({"records": {"home": [{"who": 7}]}}, "records.home[0].who"),
        ({"records": {"home": [{"who": [[[0, 1], [1, 2]]]}]}}, "records.home[0].who"),
        ({"records": {"home": {"items": [], "fields": [{}]}}}, "records.home.fields[0].field"),
        ({"links": [[0, 3, 4]]}, "links[0]"),
        ({"ner_descriptions": ["a"]}, "ner_descriptions"),
        ({"all_occurrences": 1}, "all_occurrences"),
    ],
)
def test_mistakes_in_classes_and_records(nlp, fails, fields, where):
    with fails(DataError, f"({where})"):
        list(jsonl([{"text": TEXT, "entities": [], **fields}])(nlp))


def test_offsets_of_records_are_converted_as_those_of_entities(nlp):
    record = {"text": "\N{GRINNING FACE} Ann left", "records": {"who": [{"name": [3, 6]}]}}
    (example,) = jsonl([record], offsets="utf16")(nlp)
    assert get_records(example.reference)[0].fields["name"].text == "Ann"
