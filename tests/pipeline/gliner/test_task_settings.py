"""Settings ``classes`` and ``records``: their forms, their errors, and that they are saved."""

from __future__ import annotations

from typing import Any

import pytest
import spacy
from gliner2_parity import LABELS, TEXTS, checkpoint, load

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.tasks import Task, TaskField
from gliner_pipe.pipeline.gliner.task_settings import parse_classes, parse_records

CLASSES = {
    "tone": ["good", {"label": "bad", "description": "complaints"}],
    "topics": {
        "labels": ["a", "b"],
        "description": "of the text",
        "multi_label": True,
        "threshold": 0.4,
        "examples": [["some text", "a"]],
    },
}
RECORDS = {
    "product": ["name", {"field": "price", "threshold": 0.2, "pattern": r"\$\d+", "list": True}],
    "order": {
        "fields": ["id", {"field": "state", "choices": ["open", "paid"], "description": "how far"}],
        "description": "a purchase",
        "mode": "natural",
        "anchor": "id",
    },
}


def test_what_the_model_reads() -> None:
    tone, topics = parse_classes(CLASSES, "x")
    assert tone.task == Task("classes", "tone", (TaskField("good"), TaskField("bad", "complaints")))
    assert topics.task.description == "of the text"
    assert topics.task.examples == (("some text", "a"),)
    product, order = parse_records(RECORDS, "x")
    assert product.task.fields == (TaskField("name"), TaskField("price", is_list=True))
    assert order.task.fields[1] == TaskField("state", "how far", ("open", "paid"))
    assert (order.task.mode, order.task.anchor) == ("natural", "id")


def test_config_form_is_the_shortest() -> None:
    assert {item.name: item.to_config() for item in parse_classes(CLASSES, "x")} == CLASSES
    assert {item.name: item.to_config() for item in parse_records(RECORDS, "x")} == RECORDS


def test_a_list_and_a_mapping_are_the_same() -> None:
    listed = [{"task": "tone", "labels": CLASSES["tone"]}, {"task": "topics", **CLASSES["topics"]}]
    assert parse_classes(listed, "x") == parse_classes(CLASSES, "x")
    described = {"tone": {"labels": {"good": None, "bad": "complaints"}}}
    assert parse_classes(described, "x") == parse_classes(CLASSES, "x")[:1]
    assert parse_classes(parse_classes(CLASSES, "x"), "x") == parse_classes(CLASSES, "x")
    assert parse_classes(None, "x") == parse_records({}, "x") == ()


@pytest.mark.parametrize(
    ("classes", "where"),
    [
        ("tone", "x"),
        (["tone"], r"x\[0\]"),
        ({"tone": "good"}, r"x\.tone"),
        ({"tone": []}, r"x\.tone\.labels"),
        ({"tone": {"label": ["a"]}}, r"x\.tone"),
        ({"tone": ["a", ""]}, r"x\.tone\.labels\[1\]"),
        ({"tone": [{"label": "a", "threshold": 0.3}]}, r"x\.tone\.labels\[0\]"),
        ({"tone": {"labels": ["a"], "threshold": 2}}, r"x\.tone\.threshold"),
        ({"tone": {"labels": ["a"], "multi_label": 1}}, r"x\.tone\.multi_label"),
        ({"tone": {"labels": ["a"], "description": ""}}, r"x\.tone\.description"),
        ({"tone": {"labels": ["a"], "examples": [["text", "b"]]}}, r"x\.tone\.examples"),
        ({"tone": {"labels": ["a"], "examples": ["text"]}}, r"x\.tone\.examples"),
        ({"": ["a"]}, "x"),
        ({1: ["a"]}, "x"),
        ({"\udcff": ["a"]}, "x"),
        ([{"task": "t", "labels": ["a"]}, {"task": "t", "labels": ["b"]}], r"x\[1\]"),
        ({"t": ["\udcff"]}, r"x\.t\.labels\[0\]"),
        ({"t": [{"label": "a", 1: 2, "b": 3}]}, r"x\.t\.labels\[0\]"),
        ({"t": {"labels": {"a": {"label": "b"}}}}, r"x\.t\.labels\[0\]"),
        ({"t": {"labels": ["a"], "examples": 5}}, r"x\.t\.examples"),
        ({"t": {"labels": ["a"], "examples": [["\udcff", "a"]]}}, r"x\.t\.examples"),
        ({"t": {"labels": ["a"], "description": "\udcff"}}, r"x\.t\.description"),
    ],
)
def test_errors_of_classes(classes: Any, where: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\[{where}\]"):
        parse_classes(classes, "x")


@pytest.mark.parametrize(
    ("records", "where"),
    [
        ({"r": []}, r"x\.r\.fields"),
        ({"r": [3]}, r"x\.r\.fields\[0\]"),
        ({"r": ["a", "a"]}, r"x\.r\.fields\[1\]"),
        ({"r": [{"field": "a", "dtype": "list"}]}, r"x\.r\.fields\[0\]"),
        ({"r": [{"field": "a", "choices": "b"}]}, r"x\.r\.fields\[0\]\.choices"),
        ({"r": [{"field": "a", "choices": ["b", "b"]}]}, r"x\.r\.fields\[0\]\.choices"),
        ({"r": [{"field": "a", "pattern": "("}]}, r"x\.r\.fields\[0\]\.pattern"),
        ({"r": [{"field": "a", "threshold": -1}]}, r"x\.r\.fields\[0\]"),
        ({"r": {"fields": ["a"], "mode": "other"}}, r"x\.r\.mode"),
        ({"r": {"fields": ["a"], "mode": "natural", "anchor": "b"}}, r"x\.r\.anchor"),
        ({"r": {"fields": ["a"], "mode": "natural"}}, r"x\.r"),
        ({"r": {"fields": ["a"], "anchor": "a"}}, r"x\.r"),
        ({"r": {"fields": ["a"], "mode": "natural", "anchor": ["a"]}}, r"x\.r\.anchor"),
        ({"r": ["\udcff"]}, r"x\.r\.fields\[0\]"),
        ({"r": [{"field": "a", "choices": ["\udcff"]}]}, r"x\.r\.fields\[0\]\.choices"),
        ({"r": [{"field": "a", "choices": ["b", "c"], "pattern": "b"}]}, r"x\.r\.fields\[0\]\.choices"),
        ([{"task": "r", "fields": ["a"]}, {"task": "r", "fields": ["b"]}], r"x\[1\]"),
    ],
)
def test_errors_of_records(records: Any, where: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\[{where}\]"):
        parse_records(records, "x")


@pytest.mark.parametrize("key", ["U.S. news", "a:b", "a=b", " a", "#a", "[a"])
def test_keys_that_a_config_file_cannot_hold(nlp: Any, key: str) -> None:
    model = nlp.get_pipe_config("gliner")["model"]
    for option, classes in (
        (r"classes", {key: ["a"]}),
        (r"classes\.tone\.labels", {"tone": {"labels": {key: None}}}),
    ):
        with pytest.raises(ConfigError, match=rf"^\[components\.other\.{option}\]"):
            nlp.add_pipe("gliner", name="other", config={"model": model, "classes": classes})


def test_a_model_that_does_not_predict_them(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    for option, tasks in (("classes", CLASSES), ("records", RECORDS)):
        with pytest.raises(ConfigError, match=rf"^\[components\.gliner\.{option}\]"):
            setattr(component, option, tasks)
    doc = nlp.make_doc("A text.")
    doc._.gliner_classes = CLASSES
    with pytest.raises(ConfigError, match=r"^\[doc\._\.gliner_classes\]"):
        nlp(doc)


def test_saved_restored_and_overridden(tmp_path: Any) -> None:
    nlp = load(checkpoint("count_lstm"), labels=LABELS, classes=CLASSES)
    component = nlp.get_pipe("gliner")
    assert nlp.get_pipe_config("gliner")["classes"] == CLASSES
    before = [(doc.cats, doc._.classes) for doc in nlp.pipe(TEXTS)]
    nlp.to_disk(tmp_path / "a")
    loaded = spacy.load(tmp_path / "a")
    assert loaded.get_pipe("gliner").class_data == CLASSES
    assert [(doc.cats, doc._.classes) for doc in loaded.pipe(TEXTS)] == before
    # a change at run time is saved, and what is given while loading goes first
    component.classes = {"tone": ["fine", "poor"]}
    nlp.to_disk(tmp_path / "b")
    assert spacy.load(tmp_path / "b").get_pipe("gliner").classes == ("tone",)
    other = {"components": {"gliner": {"classes": {"size": ["big", "small"]}}}}
    given = spacy.load(tmp_path / "b", config=other)
    assert "size" in given.get_pipe("gliner").classes
    assert "size=big" in given(TEXTS[0]).cats or "big" in given(TEXTS[0]).cats
    copied = spacy.blank("en")
    config = {"model": nlp.get_pipe_config("gliner")["model"]}
    copied.add_pipe("gliner", config={**config, "labels": LABELS, "classes": CLASSES}).from_bytes(
        component.to_bytes()
    )
    assert copied(TEXTS[0]).cats == nlp(TEXTS[0]).cats


def test_results_survive_bytes_and_processes() -> None:
    nlp = load(checkpoint("count_lstm"), classes={"tone": ["good", "bad"]})
    doc = nlp(TEXTS[0])
    copied = spacy.tokens.Doc(nlp.vocab).from_bytes(doc.to_bytes())
    assert copied._.classes == doc._.classes
    assert copied.cats == pytest.approx(doc.cats)
