"""Gold classes of texts, in doc.cats and in the supervision."""

from __future__ import annotations

import pytest
from spacy.tokens import Doc, DocBin
from spacy.training import Example

from gliner_pipe.data.annotations import supervision
from gliner_pipe.data.gold_classes import count_classes, gold_classes, set_gold_classes, stated_classes


@pytest.fixture
def doc(nlp):
    return nlp("A fine day.")


def test_saved_and_loaded(nlp, doc):
    set_gold_classes(doc, {"a=b": {"true": ["c=d"], "labels": ["c=d", "e"], "descriptions": {"e": "f"}}})
    (loaded,) = DocBin(store_user_data=True, docs=[doc]).get_docs(nlp.vocab)
    loaded.cats = doc.cats
    assert supervision(loaded)["classes"] == {"a=b": {"labels": ["c=d", "e"], "descriptions": {"e": "f"}}}
    assert gold_classes(loaded) == {"a=b": {"c=d": 1.0, "e": 0.0}}
    assert stated_classes(loaded)["a=b"]["true"] == ["c=d"]


@pytest.mark.parametrize(
    ("cats", "tasks", "expected"),
    [
        # bare labels belong to a single task; a label that is missing is unknown
        ({"good": 1.0}, {"tone": ["good", "bad"]}, {"tone": {"good": 1.0}}),
        ({"good": 1.0}, {"tone": ["good"], "topic": ["good"]}, {}),
        ({"tone=good": 1.0, "good": 0.0}, {"tone": ["good"], "topic": ["good"]}, {"tone": {"good": 1.0}}),
        ({"tone=good": 1.0}, {}, {}),
    ],
)
def test_cats_of_other_tools(doc, cats, tasks, expected):
    doc.cats = cats
    assert gold_classes(doc, tasks) == expected


def test_a_task_without_stated_labels_has_those_of_the_component(doc):
    set_gold_classes(doc, {"tone": {"true": ["good"]}})
    assert gold_classes(doc) == {"tone": {"good": 1.0}}
    assert gold_classes(doc, {"tone": ["good", "bad"]}) == {"tone": {"good": 1.0, "bad": 0.0}}
    set_gold_classes(doc, {"tone": {"true": ["good"], "labels": ["good", "so so"]}})
    assert gold_classes(doc, {"tone": ["good", "bad"]}) == {"tone": {"good": 1.0, "so so": 0.0}}


def test_counts(nlp, doc):
    set_gold_classes(doc, {"tone": {"true": ["good"], "labels": ["bad", "good"]}})
    assert count_classes([Example(doc, doc), Example(doc, Doc(nlp.vocab))]) == {"tone": {"good": 1, "bad": 0}}
