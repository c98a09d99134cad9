"""Labels: changed at any time, of a document, with descriptions and thresholds, and whatever their text."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import spacy
from confit import Config
from conftest import gliner_config

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.labels import LabelItem, parse_labels
from gliner_pipe.registry import registry

TEXT = "Ada Lovelace met Charles Babbage in London."
ODD = [
    "date: full",
    "a=b",
    "@mention",
    "${x.y}",
    "[list]",
    'quote " here',
    "semi; colon # hash",
    "caf\u00e9",
    "x,y",
    "$5 or $$",
]


@pytest.fixture
def component(nlp: Any) -> Any:
    component = nlp.get_pipe("gliner")
    component.threshold = 0.0
    component.cfg |= {"flat_ner": False, "multi_label": True}
    return component


def found(doc: Any) -> set[str]:
    return {span.label_ for span in doc.spans["gliner"]}


def scores(doc: Any, label: str) -> dict[tuple[int, int], float]:
    group = doc.spans["gliner"]
    pairs = zip(group, group.attrs["scores"], strict=True)
    return {(span.start, span.end): float(score) for span, score in pairs if span.label_ == label}


def test_labels_change_at_any_time(nlp: Any, component: Any) -> None:
    assert found(nlp(TEXT)) == {"person", "city"}
    component.labels = ["date", {"label": "ship"}]
    assert component.labels == ("date", "ship")
    assert found(nlp(TEXT)) == {"date", "ship"}
    assert component.add_label("ship") == 0
    assert component.add_label("tree", description="a plant with a trunk", threshold=0.2) == 1
    assert component.label_items[-1] == LabelItem("tree", "a plant with a trunk", 0.2)
    assert found(nlp(TEXT)) >= {"date", "ship"}
    assert component.label_data == [
        "date",
        "ship",
        {"label": "tree", "description": "a plant with a trunk", "threshold": 0.2},
    ]


def test_labels_of_a_document(nlp: Any, component: Any) -> None:
    docs = [nlp.make_doc(TEXT) for _ in range(5)]
    docs[1]._.gliner_labels = ["ship"]
    docs[2]._.gliner_labels = [
        {"label": "tree", "threshold": 0.999999},
        {"label": "sea", "description": "much water"},
    ]
    docs[3]._.gliner_labels = []
    docs[4]._.gliner_labels = ["c1", "c2", "c3", "c4", "c5"]
    annotated = list(nlp.pipe(docs))
    expected = [{"person", "city"}, {"ship"}, {"sea"}, set(), {"c1", "c2", "c3", "c4", "c5"}]
    assert [found(doc) for doc in annotated] == expected
    alone = nlp(nlp.make_doc(TEXT))
    for label in ("person", "city"):
        left, right = scores(alone, label), scores(annotated[0], label)
        assert left.keys() == right.keys()
        assert all(abs(left[key] - right[key]) < 1e-5 for key in left)


def test_labels_of_a_document_survive_bytes(nlp: Any, component: Any) -> None:
    doc = nlp.make_doc(TEXT)
    doc._.gliner_labels = ["ship"]
    from spacy.tokens import Doc

    assert found(nlp(Doc(nlp.vocab).from_bytes(doc.to_bytes()))) == {"ship"}


def test_of_labels_with_one_name_the_first_counts(nlp: Any, component: Any) -> None:
    component.labels = ["a", {"label": "a", "threshold": 0.9}, "b", "a"]
    assert component.label_data == ["a", "b"]


def test_the_model_reads_the_description(nlp: Any, component: Any) -> None:
    component.labels = ["person"]
    plain = scores(nlp(TEXT), "person")
    component.labels = [{"label": "person", "description": "the name of a city or a town"}]
    described = scores(nlp(TEXT), "person")
    component.labels = ["the name of a city or a town"]
    named = scores(nlp(TEXT), "the name of a city or a town")
    assert max(abs(plain[key] - described[key]) for key in plain.keys() & described.keys()) > 1e-4
    assert named.keys() == described.keys()
    assert all(abs(named[key] - described[key]) < 1e-6 for key in named)


def test_threshold_of_a_label(nlp: Any, component: Any) -> None:
    limit = sorted(scores(nlp(TEXT), "person").values())[-3]
    component.labels = [{"label": "person", "threshold": limit}, "city"]
    doc = nlp(TEXT)
    assert len(scores(doc, "person")) == 2  # scores must be above the threshold
    assert len(scores(doc, "city")) > 2


def test_threshold_of_the_component(nlp: Any, component: Any) -> None:
    component.labels = ["person", {"label": "city", "threshold": 0.0}]
    component.cfg["threshold"] = 1.0
    assert found(nlp(TEXT)) == {"city"}


def test_no_labels_warn_once(nlp: Any, component: Any) -> None:
    component.labels = []
    with pytest.warns(UserWarning, match="'gliner' has no labels, so it finds nothing. Set labels") as caught:
        docs = [*nlp.pipe([TEXT] * 10, batch_size=2), nlp(TEXT)]
    assert len(caught) == 1
    assert [len(doc.spans["gliner"]) for doc in docs] == [0] * 11


def test_documents_with_labels_of_their_own_do_not_warn(nlp: Any, component: Any) -> None:
    component.labels = []
    doc, bare = nlp.make_doc(TEXT), nlp.make_doc(TEXT)
    doc._.gliner_labels, bare._.gliner_labels = ["ship"], []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [found(doc) for doc in nlp.pipe([doc, bare])] == [{"ship"}, set()]


@pytest.mark.parametrize("label", ODD)
def test_any_text_is_a_label(backbone: Path, tmp_path: Path, label: str) -> None:
    labels = [label, {"label": label + "!", "description": label, "threshold": 0.25}]
    nlp = spacy.blank("en")
    if "${" in label:
        with pytest.raises(ConfigError, match=r"^\[components\.gliner\.labels\].*\$\{"):
            nlp.add_pipe("gliner", config=gliner_config(backbone, labels=labels))
        nlp.add_pipe("gliner", config=gliner_config(backbone, threshold=0.0))
        nlp.get_pipe("gliner").labels = labels
    else:
        nlp.add_pipe("gliner", config=gliner_config(backbone, labels=labels, threshold=0.0))
    assert nlp.get_pipe("gliner").label_data == labels
    nlp.initialize()
    nlp.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    assert loaded.get_pipe("gliner").label_data == labels
    assert found(loaded(TEXT)) and found(loaded(TEXT)) == found(nlp(TEXT)) <= {label, label + "!"}


@pytest.mark.parametrize("label", ODD)
def test_any_text_is_a_label_in_a_config_string(label: str) -> None:
    labels = [label, {"label": label + "!", "description": label}]
    text = Config({"components": {"gliner": {"@factory": "gliner", "labels": labels}}}).to_cfg_str()
    read = Config.from_str(text).resolve(registry=registry)["components"]["gliner"]
    assert read == {"factory": "gliner", "labels": labels}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("person", "\\[here\\] found 'person'; allowed: a list of labels. Write \\[\"person\"\\]"),
        (
            {"person": "somebody"},
            r'allowed: a list of labels. Write \[{"label": "person", "description": "somebody"}\]',
        ),
        ([3], r"\[here\[0\]\] found 3; allowed: a string"),
        (["a", " "], r"\[here\[1\]\] found the label ' '"),
        ([{"name": "a"}], r"found the key 'name'; allowed: label, description, threshold"),
        ([{"description": "a"}], r"found the label None"),
        ([{"label": "a", "description": ""}], r"found the description ''"),
        ([{"label": "a", "threshold": 1.5}], r"found the threshold 1.5; allowed: a number from 0 to 1"),
        ([{"label": "a", "threshold": True}], r"found the threshold True"),
        ([{"label": "a", "threshold": float("nan")}], r"found the threshold nan"),
        (3, r"\[here\] found 3; allowed: a list of labels"),
        (None, r"\[here\] found None; allowed: a list of labels"),
    ],
)
def test_labels_that_are_not_allowed(labels: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_labels(labels, "here")
