"""Classes, records and relations of spans that are no entities, in the formats of predictions."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc, Span

from gliner_pipe.data.classes import Classified, get_classes, write_classes
from gliner_pipe.data.readers.json import jsonl
from gliner_pipe.data.records import Record, get_records, set_records
from gliner_pipe.data.relations import Relation, set_relations
from gliner_pipe.errors import DataError
from gliner_pipe.pipeline.records import TASK_FIELDS, entities_of, relation_dicts
from gliner_pipe.prediction.chunks import Found
from gliner_pipe.prediction.outputs import write
from gliner_pipe.prediction.rendering import HtmlStyle, task_lines
from gliner_pipe.prediction.shard_writers import Schema, refuse_task_names
from gliner_pipe.prediction.texts import TextItem

TEXT = "Ana sells a red <lamp> and a chair to Bo."


def make_doc() -> Doc:
    doc = spacy.blank("en")(TEXT)

    def span(text: str, label: str) -> Span:
        start = TEXT.index(text)
        found = doc.char_span(start, start + len(text), label=label, alignment_mode="expand")
        assert found is not None
        return found

    doc.spans["gliner"] = [span("Ana", "person")]
    doc.spans["gliner"].attrs["scores"] = [0.9]
    set_relations(doc, [Relation(span("Ana", "person"), span("Bo", "tail"), "sells to", 0.75)])
    write_classes(
        doc,
        [
            Classified("tone", {"good": 0.75, "bad": 0.25}, "good"),
            Classified("topics", {"trade": 0.9, "sport": 0.1}, ["trade"]),
            Classified("language", {"fr": 0.1}, None),
        ],
    )
    values = {
        "name": span("lamp", "name"),
        "colours": [span("red", "colours")],
        "state": "new",
        "price": None,
    }
    scores = {"name": 0.5, "colours": [0.9], "state": 0.75, "price": None}
    chair = {"name": span("chair", "name"), "colours": [], "state": None, "price": None}
    set_records(doc, [Record("product", values, 0.9, scores), Record("product", chair, 0.5)])
    return doc


def written(doc: Doc, format: str, path: Path, html_style: HtmlStyle = "auto") -> str:
    item = TextItem.of(TEXT, 1)
    write([(item, doc, entities_of(doc, "gliner"))], format, path, html_style)
    return path.read_text(encoding="utf8") if path.is_file() else ""


def test_jsonl_is_read_back(tmp_path: Path) -> None:
    doc = make_doc()
    record = json.loads(written(doc, "jsonl", tmp_path / "found.jsonl"))
    assert record["relations"] == [] and {*TASK_FIELDS} <= record.keys()
    assert record["links"] == [[0, 3, TEXT.index("Bo"), TEXT.index("Bo") + 2, "sells to"]]
    assert record["link_scores"] == [0.75] and record["record_scores"] == {"product": [0.9, 0.5]}
    assert record["classes"] == {"tone": "good", "topics": ["trade"]} and record["cats"]["tone=good"] == 0.75
    (example,) = jsonl(str(tmp_path / "found.jsonl"))(spacy.blank("en"))
    again = example.reference
    assert [one.fields for one in get_records(again)] != [] and again.cats["tone=good"] == 1.0
    shown = [[str(value) for value in one.fields.values()] for one in get_records(again)]
    assert shown == [[str(value) for value in one.fields.values()] for one in get_records(doc)]


def test_relations_with_other_ends_as_dictionaries() -> None:
    doc = make_doc()
    entities = entities_of(doc, "gliner")
    (found,) = relation_dicts(doc, entities)
    start = TEXT.index("Bo")
    assert found["head"] is entities[0] and (found["relation"], found["score"]) == ("sells to", 0.75)
    assert found["tail"] == {"start": start, "end": start + 2, "label": "tail", "score": None, "text": "Bo"}


def test_documents_without_tasks_have_no_further_fields(tmp_path: Path) -> None:
    doc = spacy.blank("en")(TEXT)
    doc.spans["gliner"] = []
    assert json.loads(written(doc, "jsonl", tmp_path / "found.jsonl")) == {
        "text": TEXT,
        "entities": [],
        "meta": {},
    }


def test_terminal_and_html(tmp_path: Path) -> None:
    doc = make_doc()
    expected = [
        "Ana --[sells to 0.75]-> Bo",
        "tone: good 0.75",
        "topics: trade 0.90",
        "language: -",
        "product: name = lamp 0.50, colours = red 0.90, state = new 0.75",
        "product: name = chair",
    ]
    assert task_lines(doc, entities_of(doc, "gliner")) == expected
    assert [line.strip() for line in written(doc, "terminal", tmp_path / "found.txt").splitlines()][
        1:
    ] == expected
    doc.user_data.pop("gliner_pipe.relations")
    set_records(doc, [Record("<b>", {"name": "a & b"})])
    assert "<li>&lt;b&gt;: name = a &amp; b</li>" in written(doc, "html", tmp_path / "found.html", "span")


def test_standoff_counts_what_it_cannot_hold(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        written(make_doc(), "standoff", tmp_path / "found")
    (message,) = caplog.messages
    assert all(count in message for count in ("1 relations", "3 classifications", "2 records"))


def test_columns_of_a_table() -> None:
    pa = pytest.importorskip("pyarrow")
    doc = make_doc()
    found: Any = Found.of(doc, entities_of(doc, "gliner"))
    table = Schema(relations=True, tasks=TASK_FIELDS).extend(
        pa.RecordBatch.from_pydict({"id": ["a"]}), [found]
    )
    (row,) = table.to_pylist()
    assert row["id"] == "a" and row["relations"] == []
    assert {name: json.loads(row[name]) for name in TASK_FIELDS} == found.tasks
    with pytest.raises(DataError):
        refuse_task_names(TASK_FIELDS, ["id", "records"])


def test_classes_stay_in_saved_documents() -> None:
    doc = Doc(spacy.blank("en").vocab).from_bytes(make_doc().to_bytes())
    assert get_classes(doc)["tone"] == "good"
    assert task_lines(doc, entities_of(doc, "gliner"))[2] == "topics: trade 0.90"
