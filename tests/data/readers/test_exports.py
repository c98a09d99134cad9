"""The exports of annotation tools, in the form in which each tool writes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.detect import reader_of_path, reader_of_records
from gliner_pipe.data.readers import jsonl
from gliner_pipe.errors import DataError

TEXT = "Ann Lee lives in Paris."
ANN, PARIS = (0, 7, "person"), (17, 22, "city")
BOTH = [("Ann Lee", "person"), ("Paris", "city")]


def found(examples) -> list[list[tuple[str, str]]]:
    return [[(span.text, span.label_) for span in gold_spans(example.reference)] for example in examples]


def relations(example) -> Any:
    return supervision(example.reference).get("relations")


def prodigy(answer: str | None = "accept", **fields: Any) -> dict[str, Any]:
    spans = [
        {"start": 0, "end": 7, "token_start": 0, "token_end": 1, "label": "person"},
        {"start": 17, "end": 22, "token_start": 4, "token_end": 4, "label": "city"},
    ]
    tokens = [{"text": "Ann", "start": 0, "end": 3, "id": 0, "ws": True}]
    record = {
        "text": TEXT,
        "_input_hash": 1,
        "_task_hash": -2,
        "meta": {"source": "made up"},
        "tokens": tokens,
        "spans": spans,
        "_view_id": "ner_manual",
        "answer": answer,
    }
    return record | fields


def task(
    results: list[dict[str, Any]] | None = None, *, field: str = "text", **fields: Any
) -> dict[str, Any]:
    if results is None:
        results = [region("a", *ANN), region("b", *PARIS)]
    annotation = {
        "id": 7,
        "completed_by": 1,
        "result": results,
        "was_cancelled": False,
        "ground_truth": False,
    }
    record = {"id": 3, "annotations": [annotation], "predictions": [], "data": {field: TEXT}, "project": 1}
    return record | fields


def region(identifier: str, start: Any, end: Any, label: str, **fields: Any) -> dict[str, Any]:
    value = {"start": start, "end": end, "text": TEXT[start:end], "labels": [label]}
    return {
        "value": value,
        "id": identifier,
        "from_name": "label",
        "to_name": "text",
        "type": "labels",
        "origin": "manual",
    } | fields


# -- Prodigy -----------------------------------------------------------------------------------------------------------


def test_prodigy_records_that_were_rejected_or_ignored_are_skipped(write, nlp):
    records = [prodigy("reject"), prodigy(), prodigy("ignore"), prodigy("reject")]
    reader = reader_of_path(write("a.jsonl", records))
    assert found(reader(nlp)) == [BOTH]
    assert reader.report == {
        "record with the answer 'reject' (skipped)": 2,
        "record with the answer 'ignore' (skipped)": 1,
    }


def test_a_prodigy_file_with_nothing_accepted(write, nlp, fails):
    with fails(DataError, "a.jsonl") as caught:
        list(reader_of_path(write("a.jsonl", [prodigy("reject")]))(nlp))
    assert "reject" in caught.value.found


@pytest.mark.parametrize("span", [True, False])
def test_prodigy_relations_are_between_spans(write, nlp, span):
    link = {"head": 1, "child": 4, "label": "lives in", "color": "#fff"}
    if span:
        link |= {
            "head_span": {"start": 0, "end": 7, "token_start": 0, "token_end": 1, "label": "person"},
            "child_span": {"start": 17, "end": 22, "token_start": 4, "token_end": 4, "label": "city"},
        }
    stray = {"head": 2, "child": 4, "label": "stray"}
    reader = reader_of_path(write("a.jsonl", [prodigy(relations=[link, stray], _view_id="relations")]))
    (example,) = reader(nlp)
    assert relations(example) == [[0, 1, "lives in"]]
    assert reader.report == {"relation without its entity (dropped)": 1}


def test_accepted_suggestions_of_prodigy_are_counted(write, nlp):
    reader = reader_of_path(write("a.jsonl", [prodigy(_view_id="ner")]))
    assert found(reader(nlp)) == [BOTH]
    assert len(reader.report) == 1


def test_prodigy_records_without_spans_have_no_entities(write, nlp):
    without = prodigy()
    del without["spans"]
    reader = reader_of_path(write("a.jsonl", [without, prodigy(spans=[]), prodigy(spans=None), prodigy()]))
    assert found(reader(nlp)) == [[], [], [], BOTH]
    assert sum(reader.report.values()) == 2


# -- doccano -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["text", "data"])
@pytest.mark.parametrize("label", ["label", "labels", "entities"])
def test_doccano(write, nlp, text, label):
    record = {"id": 1, text: TEXT, label: [list(ANN), list(PARIS)], "Comments": []}
    reader = reader_of_path(write("all.jsonl", [record, record | {label: []}]))
    assert found(reader(nlp)) == [BOTH, []]
    assert not reader.report


def test_doccano_relations_name_entities_by_id(write, nlp):
    entities = [
        {"id": 31, "label": "person", "start_offset": 0, "end_offset": 7},
        {"id": 29, "label": "city", "start_offset": 17, "end_offset": 22},
    ]
    links = [
        {"id": 5, "from_id": 31, "to_id": 29, "type": "lives in"},
        {"id": 6, "from_id": 31, "to_id": 1, "type": "gone"},
    ]
    reader = reader_of_path(
        write("a.jsonl", [{"id": 1, "text": TEXT, "entities": entities, "relations": links}])
    )
    (example,) = reader(nlp)
    assert found([example]) == [BOTH]
    assert relations(example) == [[0, 1, "lives in"]]
    assert reader.report == {"relation without its entity (dropped)": 1}


@pytest.mark.parametrize(
    "link",
    [
        {"head": 0, "tail": 1, "type": "lives in"},
        {"head": "T1", "tail": "T2", "label": "lives in"},
        {"from_id": "T1", "to_id": "T2", "labels": ["lives in"]},
    ],
)
def test_other_forms_of_relations(write, nlp, link):
    entities = [
        {"id": "T1", "start": 0, "end": 7, "label": "person"},
        {"id": "T2", "start": 17, "end": 22, "label": "city"},
    ]
    reader = reader_of_path(write("a.jsonl", [{"text": TEXT, "entities": entities, "relations": [link]}]))
    assert [relations(example) for example in reader(nlp)] == [[[0, 1, "lives in"]]]


def test_labels_of_whole_texts_are_no_entities(write, nlp, fails):
    with fails(DataError, "a.jsonl:1 (label[0])"):
        list(reader_of_path(write("a.jsonl", [{"id": 1, "text": TEXT, "label": ["positive"]}]))(nlp))
    with fails(DataError, "a.jsonl:1 (entities or spans or ner)"):
        list(reader_of_path(write("a.jsonl", [{"id": 1, "text": TEXT, "label": "positive"}]))(nlp))


# -- Label Studio ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["text", "review"])
def test_label_studio(write, nlp, field):
    reader = reader_of_path(write("a.json", json.dumps([task(field=field), task([], field=field)], indent=1)))
    assert found(reader(nlp)) == [BOTH, []]
    assert not reader.report


def test_the_field_that_the_regions_of_label_studio_name(write, nlp):
    data = {"text": "Another Ann Lee.", "review": TEXT, "id": "7"}
    spans = [region("a", *ANN, to_name="review"), region("b", *PARIS, to_name="review")]
    assert found(reader_of_path(write("a.json", json.dumps([task(spans, data=data)])))(nlp)) == [BOTH]
    for item in spans:
        del item["to_name"]
    reader = jsonl(write("a.json", json.dumps([task(spans, data=data)])), fields={"text": "review"})
    assert found(reader(nlp)) == [BOTH]


def test_a_task_without_a_text(write, nlp, fails):
    with fails(DataError, "a.json:1 (data.text)"):
        list(reader_of_path(write("a.json", json.dumps([task(data={"image": 3})])))(nlp))


def test_label_studio_relations(write, nlp):
    link = {"from_id": "a", "to_id": "b", "type": "relation", "direction": "right", "labels": ["lives in"]}
    left = link | {"direction": "left", "labels": ["home of"]}
    both = link | {"direction": "bi", "labels": ["knows", "likes"]}
    bare = link | {"labels": []}
    spans = [region("a", *ANN), region("b", *PARIS)]
    reader = reader_of_path(write("a.json", json.dumps([task([*spans, link, left, both, bare])])))
    (example,) = reader(nlp)
    assert relations(example) == [
        [0, 1, "lives in"],
        [1, 0, "home of"],
        [0, 1, "knows"],
        [1, 0, "knows"],
        [0, 1, "likes"],
        [1, 0, "likes"],
    ]
    assert reader.report == {"relation without label (dropped)": 1}


def test_label_studio_takes_the_first_annotation_that_was_not_cancelled(write, nlp):
    first, second = task()["annotations"][0], task([region("c", 0, 3, "other")])["annotations"][0]
    cancelled = second | {"was_cancelled": True}
    records = [
        task(annotations=[cancelled, first, second]),
        task(annotations=[cancelled]),
        task(annotations=[], predictions=[{"result": first["result"], "score": 0.9}]),
    ]
    reader = reader_of_path(write("a.json", json.dumps(records)))
    assert found(reader(nlp)) == [BOTH]
    assert reader.report == {
        "cancelled annotation (skipped)": 2,
        "annotation of a further annotator (ignored)": 1,
        "task without annotation (skipped)": 2,
        "prediction of a task (not gold, ignored)": 1,
    }


def test_other_results_of_label_studio_are_counted(write, nlp):
    choice = {"value": {"choices": ["news"]}, "id": "c", "type": "choices", "to_name": "text"}
    title = region("t", 0, 3, "x", to_name="title")
    several = region("d", *ANN)
    several["value"]["labels"] = ["person", "author"]
    none = region("e", *PARIS)
    del none["value"]["labels"]
    data = {"text": TEXT, "title": "Ann"}
    reader = reader_of_path(write("a.json", json.dumps([task([choice, title, several, none], data=data)])))
    assert found(reader(nlp)) == [[("Ann Lee", "person"), ("Ann Lee", "author")]]
    assert reader.report == {
        "annotation of the type 'choices' (ignored)": 1,
        "entity in the field 'title' (ignored)": 1,
        "entity without label (dropped)": 1,
    }


def test_label_studio_writes_line_breaks_as_escapes(write, nlp):
    text = "Ann\nLee left"
    value = {"start": 0, "end": 7, "text": "Ann\\nLee", "labels": ["person"]}
    record = task([{"value": value, "id": "a", "type": "labels", "to_name": "text"}], data={"text": text})
    assert found(reader_of_path(write("a.json", json.dumps([record])))(nlp)) == [[("Ann\nLee", "person")]]


def test_other_fields_of_json_min(write, nlp):
    record = minimal("review", labels=["news"], title="A title", note="A note")
    record["ner"] = record.pop("label")
    reader = reader_of_path(write("a.json", json.dumps([record])))
    assert found(reader(nlp)) == [BOTH]
    assert set(reader.report) == {f"unknown field {name!r} (ignored)" for name in ("labels", "title", "note")}


def minimal(field: str = "text", **fields: Any) -> dict[str, Any]:
    return {
        "id": 1,
        field: TEXT,
        "label": [region("", *span)["value"] for span in (ANN, PARIS)],
        "annotator": 1,
        "annotation_id": 4,
        "created_at": "2024-01-01T10:00:00Z",
        "lead_time": 1.5,
    } | fields


@pytest.mark.parametrize("field", ["text", "review"])
@pytest.mark.parametrize("label", ["label", "ner"])
def test_label_studio_json_min(write, nlp, field, label):
    record = minimal(field)
    record[label] = record.pop("label")
    empty = {name: value for name, value in minimal(field, id=2).items() if name != "label"}
    reader = reader_of_path(write("a.json", json.dumps([empty, record, record | {"annotation_id": 5}])))
    assert found(reader(nlp)) == [[], BOTH]
    assert reader.report == {
        "record without a field of entities (no entities)": 1,
        "annotation of a further annotator (ignored)": 1,
    }


# -- spaCy -------------------------------------------------------------------------------------------------------------

PAIRS = [(TEXT, {"entities": [ANN, PARIS]}), (TEXT, {"entities": []}), (TEXT, {"entities": None}), (TEXT, {})]


def test_pairs_of_spacy(write, nlp):
    paths = [
        write("a.json", json.dumps(PAIRS)),
        write("b.jsonl", [list(pair) for pair in PAIRS]),
    ]
    for reader in (*map(reader_of_path, paths), reader_of_records(PAIRS), jsonl(PAIRS)):
        assert found(reader(nlp)) == [BOTH, [], [], []]
        assert reader.report == {
            "record with entities = null (no entities)": 1,
            "record without a field of entities (no entities)": 1,
        }


@pytest.mark.parametrize("indent", [None, 1])
def test_pairs_in_an_object_with_their_classes(write, nlp, indent):
    content = {"classes": ["person", "city"], "annotations": [PAIRS[0], None, PAIRS[1]]}
    reader = reader_of_path(write("a.json", json.dumps(content, indent=indent)))
    assert found(reader(nlp)) == [BOTH, []]


@pytest.mark.parametrize("name", ["examples", "data", "documents"])
def test_an_object_that_is_a_whole_file(write, nlp, name):
    """As LightTag writes it; a further list is not left out without a word."""
    entity = {"start": 0, "end": 7, "value": "Ann Lee", "tag": "person"}
    content = {name: [{"content": TEXT, "annotations": [entity]}], "relations": []}
    assert found(reader_of_path(write("a.json", json.dumps(content)))(nlp)) == [BOTH[:1]]
    with pytest.raises(DataError):
        list(reader_of_path(write("a.json", json.dumps({**content, "relations": [{"id": 1}]})))(nlp))


def test_span_groups_of_spacy(nlp):
    groups = {"sc": [ANN], "other": [PARIS]}
    reader = reader_of_records([(TEXT, {"spans": groups})])
    assert found(reader(nlp)) == [BOTH]
    assert reader.report == {"span groups read as one: sc, other": 1}


def test_training_and_evaluation_accept_pairs(nlp):
    from gliner_pipe.evaluate import read_examples
    from gliner_pipe.training.data_sections import TrainData

    (section,) = TrainData.validate(PAIRS)
    assert found(section.read(nlp, "train.train_data"))[0] == BOTH
    assert found(read_examples(PAIRS, nlp))[0] == BOTH
    empty = {"id": 1, "review": "It rained.", "annotation_id": 3}  # the first record tells nothing
    (section,) = TrainData.validate([empty, minimal("review", id=2)])
    assert found(section.read(nlp, "train.train_data")) == [[], BOTH]


# -- spans of any tool -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("start", "end", "label"),
        ("start", "end", "labels"),
        ("begin", "end", "tag"),
        ("start", "end", "type"),
        ("start", "end", "entity_group"),
        ("start_offset", "end_offset", "label"),
        ("start_char", "end_char", "entity_type"),
        ("offset", "length", "category"),
    ],
)
def test_names_of_the_parts_of_spans(write, nlp, names):
    def span(start: int, end: int, label: str) -> dict[str, Any]:
        last = end - start if names[1] == "length" else end
        return {names[0]: start, names[1]: last, names[2]: [label] if names[2] == "labels" else label}

    reader = reader_of_path(write("a.jsonl", [{"text": TEXT, "entities": [span(*ANN), span(*PARIS)]}]))
    assert found(reader(nlp)) == [BOTH]
    assert not reader.report


def test_offsets_written_as_texts(write, nlp):
    reader = jsonl(write("a.jsonl", [{"text": TEXT, "entities": [["0", "7", "person"]]}]))
    assert found(reader(nlp)) == [BOTH[:1]]
    assert reader.report == {"number written as a text (read as a number)": 2}


@pytest.mark.parametrize("empty", ["", " \n", None])
def test_an_empty_text_is_skipped_and_reading_goes_on(write, nlp, empty):
    records = [{"text": empty, "entities": []}, {"text": TEXT, "entities": [list(ANN)]}]
    reader = jsonl(write("a.jsonl", records))
    assert found(reader(nlp)) == [BOTH[:1]]
    assert reader.report == {"empty text (skipped)": 1}


def test_missing_and_null_entities_of_single_records_are_counted(write, nlp):
    records = [
        {"text": TEXT},
        {"text": TEXT, "spans": None},
        {"text": TEXT, "label": None},
        {"text": TEXT, "entities": [list(ANN)]},
    ]
    reader = jsonl(write("a.jsonl", records))
    assert found(reader(nlp)) == [[], [], [], BOTH[:1]]
    assert reader.report == {
        "record without a field of entities (no entities)": 1,
        "record with spans = null (no entities)": 1,
        "record with label = null (no entities)": 1,
    }


@pytest.mark.parametrize("label", [3, None, {"name": "x"}, 0.5])
def test_labels_that_are_no_texts(write, nlp, label, fails):
    with fails(DataError, "a.jsonl:1 (entities[0][2])"):
        list(jsonl(write("a.jsonl", [{"text": TEXT, "entities": [[0, 3, label]]}]))(nlp))
