"""The training format of GLiNER2: what is stated, where it is found in the text, and what is unknown."""

from __future__ import annotations

import pytest

from gliner_pipe.data.annotations import gold_spans, supervision, unknown_tokens
from gliner_pipe.data.detect import detect_reader, reader_of_records
from gliner_pipe.data.gold_classes import gold_classes
from gliner_pipe.data.readers import gliner2_json
from gliner_pipe.data.readers.gliner2_json import EMPTY, IN_A_WORD, NOT_THERE, OTHER_TEXT, SEVERAL
from gliner_pipe.data.records import RECORDS_KEY, get_records
from gliner_pipe.data.relations import gold_links
from gliner_pipe.errors import DataError

TEXT = "Ann Lee works for Acme in Paris. Acme sells the Phone X for $999."


def read(nlp, output, text=TEXT):
    reader = gliner2_json([{"input": text, "output": output}])
    (example,) = reader(nlp)
    return example.reference, reader.report


def triples(doc):
    return [(span.text, span.start_char, span.label_) for span in gold_spans(doc)]


def test_entities_are_all_occurrences_whatever_their_case(nlp):
    entities = {
        "person": ["ann  LEE"],
        "company": ["Acme", {"text": "Paris", "start": 26, "end": 31}],
        "date": [],
    }
    doc, report = read(nlp, {"entities": entities, "entity_descriptions": {"city": "a place"}})
    assert triples(doc) == [
        ("Ann Lee", 0, "person"),
        ("Acme", 18, "company"),
        ("Acme", 33, "company"),
        ("Paris", 26, "company"),
    ]
    stated = supervision(doc)
    assert stated["ner_negatives"] == ["city", "date"]
    assert stated["ner_descriptions"] == {"city": "a place"}
    assert report == {SEVERAL: 1}


@pytest.mark.parametrize(
    ("text", "mention", "found", "reason"),
    [
        ("Haus-Boot", "Boot", [5], None),
        ("Bootshaus", "Boot", [], IN_A_WORD),
        ("Bootshaus am Boot", "Boot", [13], None),
        ("May I see May in May", "May", [0, 10, 17], SEVERAL),
        ("at $ 999", "$999", [3], None),
        ("東京タワーへ", "東京", [0], None),
        ("nothing", "Boot", [], NOT_THERE),
        ("one two", {"text": "two", "start": 4, "end": 7}, [4], None),
        ("one two", {"text": "two", "start": 0, "end": 3}, [], OTHER_TEXT),
        ("one two", "", [], EMPTY),
    ],
)
def test_places_of_texts(nlp, text, mention, found, reason):
    doc, report = read(nlp, {"entities": {"thing": [mention]}}, text)
    starts = [start for _, start, _ in triples(doc)]
    assert starts == found
    assert {key: n for key, n in report.items() if "token boundaries" not in key} == (
        {reason: 1} if reason else {}
    )


def test_what_is_not_stated_is_unknown(nlp):
    classes = [{"task": "tone", "labels": ["good", "bad"], "true_label": ["good"]}]
    doc, _ = read(nlp, {"classifications": classes})
    assert unknown_tokens(doc, "gliner").all()
    assert not {"relations", "links", "records", "ner_negatives"} & supervision(doc).keys()
    assert RECORDS_KEY not in doc.user_data
    doc, _ = read(nlp, {"entities": {"person": []}})
    assert unknown_tokens(doc, "gliner") is None
    assert doc.cats == {}


def test_classes(nlp):
    several = {"task": "topic", "labels": ["a", "b", "c"], "true_label": ["a", "c"], "multi_label": True}
    tone = {"task": "tone", "labels": ["good", "bad"], "true_label": ["good"], "prompt": "Is it good?"}
    tone |= {"examples": [["Nice.", "good"]], "label_descriptions": {"bad": "not good"}}
    doc, report = read(nlp, {"classifications": [tone, several, {"task": "x", "labels": ["u"]}]})
    assert doc.cats == {"tone=good": 1, "tone=bad": 0, "topic=a": 1, "topic=b": 0, "topic=c": 1}
    assert supervision(doc)["classes"] == {
        "tone": {
            "labels": ["good", "bad"],
            "description": "Is it good?",
            "descriptions": {"bad": "not good"},
            "examples": [["Nice.", "good"]],
        },
        "topic": {"labels": ["a", "b", "c"], "multi_label": True},
    }
    assert gold_classes(doc)["topic"] == {"a": 1, "b": 0, "c": 1}
    assert report == {"classification without true_label (ignored)": 1}


def test_relations_between_entities_and_other_spans(nlp):
    works = {"works_for": {"head": "Ann Lee", "tail": "Acme"}}
    entities = {"person": ["Ann Lee"], "company": ["Acme"]}
    doc, _ = read(nlp, {"entities": entities, "relations": [works], "relation_descriptions": {"owns": "has"}})
    stated = supervision(doc)
    assert stated["relations"] == [[0, 1, "works_for"]]
    assert stated["rel_negatives"] == ["owns"]
    assert stated["all_occurrences"]
    assert gold_links(doc, "gliner") is None
    sells = {"sells": {"head": "Acme", "tail": "Phone X"}}
    doc, report = read(nlp, {"entities": entities, "relations": [works, sells, {"sells": {"head": "Acme"}}]})
    assert supervision(doc)["relations"] == [[0, 1, "works_for"]]
    links = gold_links(doc, "gliner")
    # of two occurrences the one next to the other end
    assert [(one.head.start_char, one.head.label_, one.tail.text, one.tail.label_) for one in links] == [
        (0, "person", "Acme", "company"),
        (33, "company", "Phone X", "tail"),
    ]
    assert report["relation with an end that is no entity"] == 1
    assert report["relation without head or tail (ignored)"] == 1
    doc, _ = read(nlp, {"relations": [works]})
    assert "relations" not in supervision(doc)
    assert len(supervision(doc)["links"]) == 1


def test_records(nlp):
    text = "The Fox costs $5 and the Owl costs $5; the Owl is used."
    new = {"value": "new", "choices": ["new", "used"]}
    items = [
        {"product": {"name": "Fox", "price": "$5", "state": new, "colors": ""}},
        {"product": {"name": "Owl", "price": "$5", "state": {**new, "value": ""}, "colors": ["used"]}},
        {"product": {"name": "Owl", "price": "$5", "state": {**new, "value": ""}, "colors": ["used"]}},
        {"order": {"number": ""}},
    ]
    descriptions = {"product": {"price": "with its currency"}, "refund": {"reason": "why"}}
    metadata = {"product": {"mode": "natural", "anchor": "name"}}
    output = {"json_structures": items, "json_descriptions": descriptions, "record_metadata": metadata}
    doc, report = read(nlp, output, text)
    fox, owl = get_records(doc)
    assert (fox.fields["name"].text, fox.fields["price"].start_char, fox.fields["state"]) == (
        "Fox",
        14,
        "new",
    )
    # the price next to its name; a field that is a list in one record is one in all
    assert (owl.fields["price"].start_char, owl.fields["state"], fox.fields["colors"]) == (35, None, [])
    assert [span.text for span in owl.fields["colors"]] == ["used"]
    assert supervision(doc)["records"] == {
        "product": {
            "fields": [
                {"field": "name"},
                {"field": "price", "description": "with its currency"},
                {"field": "state", "choices": ["new", "used"]},
                {"field": "colors", "list": True},
            ],
            "mode": "natural",
            "anchor": "name",
        },
        "refund": {"fields": [{"field": "reason", "description": "why"}]},
        "order": {"fields": [{"field": "number"}]},
    }
    assert report["record that is there twice (merged)"] == 1


@pytest.mark.parametrize(
    "record",
    [
        {"input": TEXT, "output": {"entities": {"person": ["Ann Lee"]}}},
        {"text": TEXT, "schema": {"entities": {"person": ["Ann Lee"]}}},
        {"text": TEXT, "entities": {"person": ["Ann Lee"]}},
    ],
)
def test_forms_are_detected(write, nlp, record):
    path = write("train.jsonl", [record])
    assert detect_reader(path)["@readers"] == "gliner2_json"
    for reader in (gliner2_json(path), reader_of_records([record])):
        (example,) = reader(nlp)
        assert triples(example.reference) == [("Ann Lee", 0, "person")]


@pytest.mark.parametrize(
    ("output", "where"),
    [
        ([], "output"),
        ({"entities": ["person"]}, "entities"),
        ({"entities": {"person": [7]}}, "entities.person[0]"),
        ({"entities": {"person": [{"text": "Ann", "start": 0, "end": 999}]}}, "entities.person[0]"),
        ({"classifications": [{"task": "a", "labels": ["b"], "true_label": "b"}] * 2}, "classifications[1]"),
        ({"relations": [{"a": "b"}]}, "relations[0].a"),
        ({"json_structures": [{"a": "b"}]}, "json_structures[0].a"),
        (
            {"json_structures": [{"a": {"b": "Ann"}}], "record_metadata": {"a": {"mode": "odd"}}},
            "record_metadata.mode",
        ),
    ],
)
def test_mistakes(nlp, fails, output, where):
    with fails(DataError, f"({where})"):
        read(nlp, output)


def test_labels_are_renamed_and_unknown_fields_counted(nlp):
    record = {
        "input": TEXT,
        "output": {
            "entities": {"PER": ["Ann"]},
            "odd": 1,
            "relations": [{"r": {"head": "Ann", "tail": "Acme"}}],
        },
    }
    reader = gliner2_json(
        [record, {"input": " ", "output": {}}], label_map={"PER": "person"}, rel_label_map={"r": "likes"}
    )
    (example,) = reader(nlp)
    assert triples(example.reference)[0][2] == "person"
    assert supervision(example.reference)["links"][0][-1] == "likes"
    assert reader.report["unknown field 'odd' (ignored)"] == 1
    assert reader.report["empty text (skipped)"] == 1
