from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from forked import Forked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, Span

from gliner_pipe.data.annotations import gold_spans, set_supervision, supervision
from gliner_pipe.data.classes import set_classes
from gliner_pipe.data.gold_classes import set_gold_classes
from gliner_pipe.data.readers import gliner_json, jsonl, standoff
from gliner_pipe.data.records import Record, get_records, set_records, with_values
from gliner_pipe.data.writers import write_gliner_json, write_jsonl, write_standoff

TEXT = "Ann Lee lives\nin New York City."
FIELDS = {
    "relations": [[0, 1, "lives in"]],
    "ner_labels": ["city", "person"],
    "id": "doc 1/a",
    "adds_labels": False,
}


@pytest.fixture
def doc(nlp):
    doc = nlp.make_doc(TEXT)
    doc.spans["gliner"] = [
        doc.char_span(0, 7, "person"),
        doc.char_span(17, 30, "big city"),
        doc.char_span(17, 25, "state"),
    ]
    doc.spans["gliner"].attrs["scores"] = np.array([0.9, 0.5, 0.25], dtype=np.float32)
    set_supervision(doc, **FIELDS)
    return doc


def chars(doc):
    return [(span.start_char, span.end_char, span.label_) for span in gold_spans(doc)]


def test_gliner_json_round_trip(doc, nlp, tmp_path):
    path = tmp_path / "new" / "a.jsonl"
    report = write_gliner_json([doc], path)
    assert (report.documents, report.entities, report.relations, report.skipped) == (1, 3, 1, 0)
    (example,) = gliner_json(path)(nlp)
    assert [token.text for token in example.reference] == [*TEXT[:-1].split(), "."]
    assert [(s.text, s.label_) for s in gold_spans(example.reference)] == [
        ("Ann Lee", "person"),
        ("New York City", "big city"),
        ("New York", "state"),
    ]
    fields = FIELDS | {"source": "a.jsonl:1", "ner_labels": ["city", "person", "big city", "state"]}
    assert supervision(example.reference) == fields


def test_jsonl_round_trip_with_scores(doc, nlp, tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl([doc], path)
    record = json.loads(path.read_text(encoding="utf8"))
    assert record["entities"][0] == {"start": 0, "end": 7, "label": "person", "text": "Ann Lee", "score": 0.9}
    (example,) = jsonl(path)(nlp)
    assert example.reference.text == TEXT
    assert chars(example.reference) == chars(doc)
    assert supervision(example.reference)["relations"] == FIELDS["relations"]
    write_jsonl([doc], path, scores=False)
    assert "score" not in path.read_text(encoding="utf8")


def test_standoff_round_trip(doc, nlp, tmp_path):
    doc.spans["gliner"] = [*doc.spans["gliner"], doc.char_span(8, 16, "over lines")]
    report = write_standoff([doc, doc], tmp_path)
    assert report.labels == {"big city": "big_city", "over lines": "over_lines", "lives in": "lives_in"}
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "doc_1_a-2.ann",
        "doc_1_a-2.txt",
        "doc_1_a.ann",
        "doc_1_a.txt",
    ]
    assert "T4\tover_lines 8 13;14 16\tlives in\n" in (tmp_path / "doc_1_a.ann").read_text(encoding="utf8")
    back = {new: old for old, new in report.labels.items()}
    reader = standoff(tmp_path, label_map=back, rel_label_map=back)
    for example in reader(nlp):
        assert example.reference.text == TEXT
        assert chars(example.reference) == chars(doc)
        assert supervision(example.reference)["relations"] == FIELDS["relations"]
    assert not reader.report


def test_a_text_is_never_beside_annotations_of_another(nlp, tmp_path, monkeypatch):
    """Whenever writing stops, there is the pair of one save, or none."""
    for stop in range(4):
        write_standoff([nlp.make_doc("Ada sings")], tmp_path)
        done = []

        def replace(path, target, done=done, stop=stop):
            if len(done) == stop:
                raise KeyboardInterrupt
            done.append(path)
            path.rename(target)

        doc = nlp.make_doc("In Rome Ada sings")
        doc.spans["gliner"] = [Span(doc, 1, 2, "city")]
        with monkeypatch.context() as patch:
            patch.setattr(type(tmp_path), "replace", replace)
            with suppress(KeyboardInterrupt):
                write_standoff([doc], tmp_path)
        text = tmp_path / "doc-1.txt"
        if text.exists():
            assert ("city" in (tmp_path / "doc-1.ann").read_text()) == text.read_text().startswith("In Rome")
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp")]


def test_standoff_labels_remain_distinct(nlp, tmp_path):
    doc = nlp.make_doc("a b c")
    doc.spans["gliner"] = [Span(doc, i, i + 1, label=label) for i, label in enumerate(["x y", "x_y", "x  y"])]
    assert write_standoff([doc], tmp_path).labels == {"x y": "x_y", "x_y": "x_y_2", "x  y": "x_y_3"}
    assert (tmp_path / "doc-1.txt").exists()


def test_documents_without_text_are_skipped(nlp, tmp_path):
    docs = [nlp.make_doc(""), nlp.make_doc("ok")]
    for write in (write_gliner_json, write_jsonl, write_standoff):
        report = write(docs, tmp_path / write.__name__)
        assert (report.documents, report.skipped) == (1, 1)


def test_ents(nlp, tmp_path):
    doc = nlp.make_doc("Ann left")
    doc.ents = [Span(doc, 0, 1, label="person")]
    for key in ("ents", "absent"):
        assert write_jsonl([doc], tmp_path / "a.jsonl", spans_key=key).entities == 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_document_survives(nlp, tmp_path, data):
    word = st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp"]),
        min_size=1,
        max_size=4,
    )
    docs = []
    for i in range(data.draw(st.integers(1, 3))):
        words = data.draw(st.lists(word, min_size=1, max_size=8))
        doc = Doc(nlp.vocab, words=words)
        ends = st.integers(0, len(words) - 1)
        spans = data.draw(st.lists(st.tuples(ends, ends, word), max_size=4, unique=True))
        doc.spans["gliner"] = [Span(doc, min(a, b), max(a, b) + 1, label=label) for a, b, label in spans]
        unique = {(s.start, s.end, s.label_): s for s in doc.spans["gliner"]}
        doc.spans["gliner"] = list(unique.values())
        set_supervision(doc, id=f"d{i}")
        docs.append(doc)
    write_gliner_json(docs, tmp_path / "a.jsonl")
    for doc, example in zip(docs, gliner_json(tmp_path / "a.jsonl")(nlp), strict=True):
        assert [t.text for t in example.reference] == [t.text for t in doc]
        assert chars(example.reference) == chars(doc)
    write_jsonl(docs, tmp_path / "b.jsonl")
    write_standoff(docs, tmp_path / "c")
    names = [str(tmp_path / "c" / f"d{i}.txt") for i in range(len(docs))]
    for reader in (jsonl(tmp_path / "b.jsonl"), standoff(names)):
        for doc, example in zip(docs, reader(nlp), strict=True):
            assert example.reference.text == doc.text
            assert supervision(example.reference)["id"] == supervision(doc)["id"]
            found = chars(example.reference)  # widened where the tokenizer has other borders
            for start, end, label in chars(doc):
                assert any(a <= start and end <= b and label == other for a, b, other in found)


def tasks_doc(nlp):
    doc = nlp.make_doc(TEXT)
    doc.spans["gliner"] = []
    set_gold_classes(
        doc,
        {
            "tone": {"true": ["good"], "labels": ["bad", "good"], "description": "How is it?"},
            "topic": {"true": ["a"], "multi_label": True},
        },
    )
    name, city = doc.char_span(0, 7), doc.char_span(17, 30)
    set_records(doc, [Record("home", {"who": name, "where": [city], "kind": "house", "since": None})])
    fields = [{"field": "kind", "choices": ["house", "flat"], "description": "of building"}]
    set_supervision(
        doc,
        records={"home": {"fields": fields, "mode": "natural", "anchor": "who"}, "work": {}},
        links=[[0, 2, 5, 8, "lives in"]],
        rel_descriptions={"lives in": "home"},
        all_occurrences=True,
        entities_annotated=False,
    )
    return doc


@pytest.mark.parametrize(("write", "read"), [(write_gliner_json, gliner_json), (write_jsonl, jsonl)])
def test_classes_records_and_links(nlp, tmp_path, write, read):
    doc = tasks_doc(nlp)
    report = write([doc], tmp_path / "a.jsonl")
    assert (report.classes, report.records, report.entities) == (1, 1, 0)
    reader = read(tmp_path / "a.jsonl")
    (example,) = reader(nlp)
    found = example.reference
    assert not reader.report
    assert found.cats == doc.cats
    moved = read is gliner_json  # without the line break, which is no word
    links = {"links": [[0, 2, 4, 7, "lives in"]]} if moved else {}
    assert supervision(found) == {**supervision(doc), **links, "source": "a.jsonl:1"}
    (record,) = get_records(found)
    assert with_values(record, lambda span: span.text) == {
        "who": "Ann Lee",
        "where": ["New York City"],
        "kind": "house",
        "since": None,
    }
    assert not gold_spans(found)


def test_predicted_classes(nlp, tmp_path):
    doc = nlp.make_doc(TEXT)
    set_classes(doc, {"tone": "good", "topic": ["a", "b"], "x": None})
    write_jsonl([doc], tmp_path / "a.jsonl")
    (example,) = jsonl(tmp_path / "a.jsonl")(nlp)
    assert example.reference.cats == {"tone=good": 1.0, "topic=a": 1.0, "topic=b": 1.0}


def killed(write, docs, path):
    """Write in a fork that is killed while the last document is made."""

    def some():
        yield from docs
        os.kill(os.getpid(), signal.SIGKILL)

    child = Forked(lambda: write(some(), path), [], path.parent / "process")
    child.process.join()
    assert child.process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("write", [write_gliner_json, write_jsonl])
def test_a_killed_writer_leaves_the_earlier_file(nlp, tmp_path, write):
    path = tmp_path / "a.jsonl"
    write([nlp("Ada left.")], path)
    before = path.read_bytes()
    killed(write, [nlp("Bob left."), nlp("Cid left.")], path)
    assert path.read_bytes() == before


def test_a_killed_standoff_writer_leaves_whole_documents(nlp, tmp_path):
    docs = [nlp("Ada left.") for _ in range(3)]
    tmp_path = tmp_path / "out"
    killed(write_standoff, docs, tmp_path)
    assert len(list(standoff(tmp_path)(nlp))) == 3


@pytest.mark.parametrize("write", [write_gliner_json, write_jsonl, write_standoff])
def test_a_file_where_a_folder_should_be(nlp, tmp_path, write):
    (tmp_path / "a").write_text("")

    def docs():
        pytest.fail("a document was asked for")
        yield

    with pytest.raises(OSError, match="a"):
        write(docs(), tmp_path / "a" / "b")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("write", [write_gliner_json, write_jsonl])
def test_a_device_is_written_to_and_not_replaced(nlp, write):
    with pytest.raises(OSError, match="space"):
        write([nlp("Ada left.")], "/dev/full")
    assert Path("/dev/full").is_char_device()


def test_names_of_files_fit_into_file_systems(nlp, tmp_path):
    doc = nlp("Ada left.")
    set_supervision(doc, id="\u6771" * 200)
    write_standoff([doc], tmp_path)
    assert len(list(tmp_path.glob("*.txt"))) == 1
