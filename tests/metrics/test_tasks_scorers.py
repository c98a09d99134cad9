"""Scores of classes and of records, with values computed by hand."""

from __future__ import annotations

import pickle

import pytest
import spacy
from spacy.training import Example

from gliner_pipe.data.annotations import set_supervision
from gliner_pipe.data.classes import set_classes
from gliner_pipe.data.gold_classes import set_gold_classes
from gliner_pipe.data.records import Record, set_records
from gliner_pipe.metrics.classes import ClassScorer
from gliner_pipe.metrics.records import RecordScorer
from gliner_pipe.metrics.spans import ComponentScorer, ExactScorer
from gliner_pipe.registry import registry

NLP = spacy.blank("en")
TEXT = "The Fox costs $5 and the Owl costs $7 or $5 ."


def classes(gold, chosen, labels=("a", "b", "c")):
    """Example of a single-label task ``one`` and a multi-label task ``many``."""
    reference, predicted = NLP(TEXT), NLP(TEXT)
    tasks = {"one": {"true": gold[0], "labels": list(labels)}, "many": {"true": gold[1], "multi_label": True}}
    set_gold_classes(reference, {name: task for name, task in tasks.items() if task["true"] is not None})
    set_classes(predicted, {"one": chosen[0], "many": chosen[1]})
    return Example(predicted, reference)


def test_classes():
    examples = [
        classes((["a"], ["x", "y"]), ("a", ["x", "y"])),
        classes((["a"], ["x"]), ("b", [])),
        classes((["b"], None), ("d", ["x"])),  # a label that is not in the task is wrong
        classes((None, None), ("a", ["x"])),  # nobody looked
    ]
    scores = ClassScorer()(examples)
    one, many = scores["tasks"]["one"], scores["tasks"]["many"]
    assert one["accuracy"] == pytest.approx(1 / 3)
    assert one["labels"]["a"]["r"] == 0.5
    assert one["labels"]["d"] == {"p": 0, "r": 0, "f": 0, "tp": 0, "support": 0, "positives": 1}
    assert one["micro"]["f"] == pytest.approx(1 / 3)
    assert one["macro"]["f"] == pytest.approx((2 / 3 + 0) / 2)
    assert (many["accuracy"], many["micro"]["tp"], many["micro"]["support"]) == (0.5, 2, 3)
    assert (scores["all"]["micro"]["tp"], scores["all"]["micro"]["support"]) == (3, 6)
    assert (scores["examples"], scores["skipped"]) == (3, 1)


def test_labels_that_nobody_annotated_are_not_wrong():
    example = classes((["a"], ["x"]), ("a", ["x", "z"]))
    assert ClassScorer()([example])["tasks"]["many"]["micro"]["p"] == 1
    set_gold_classes(example.reference, {"many": {"true": ["x"], "labels": ["x", "z"], "multi_label": True}})
    assert ClassScorer()([example])["tasks"]["many"]["micro"]["p"] == 0.5


def test_classes_of_spacys_textcat():
    reference, predicted = NLP(TEXT), NLP(TEXT)
    reference.cats, predicted.cats = {"good": 1.0, "bad": 0.0}, {"good": 0.2, "bad": 0.8}
    scorer = ClassScorer({"tone": ["good", "bad"]})
    assert scorer([Example(predicted, reference)])["all"]["accuracy"] == 0
    predicted.cats = {"good": 0.8, "bad": 0.2}
    assert scorer([Example(predicted, reference)])["all"]["accuracy"] == 1


def records(gold, predicted, kinds=("product",)):
    docs = []
    for items in (predicted, gold):
        doc = NLP(TEXT)
        found = []
        for kind, fields in items:
            values = {
                name: doc[value : value + 1] if isinstance(value, int) else value
                for name, value in fields.items()
            }
            found.append(Record(kind, values))
        set_records(doc, found)
        docs.append(doc)
    set_supervision(docs[1], records={kind: {} for kind in kinds})
    return Example(*docs)


FOX = ("product", {"name": 1, "price": 3, "state": "new"})
OWL = ("product", {"name": 7, "price": 10, "state": None})


def row(scores):
    return scores["tp"], scores["support"], scores["positives"]


def test_records():
    wrong = ("product", {"name": 7, "price": 3, "state": None})
    scores = RecordScorer()([records([FOX, OWL], [FOX, wrong, ("order", {"name": 1})])])
    assert row(scores["records"]["product"]) == (1, 2, 2)
    assert row(scores["fields"]["product.name"]) == (2, 2, 2)
    assert row(scores["fields"]["product.price"]) == (1, 2, 2)
    assert row(scores["fields"]["product.state"]) == (1, 1, 1)
    assert row(scores["fields"]["micro"]) == (4, 5, 5)
    assert "order" not in scores["records"]  # nobody looked for orders
    assert (scores["examples"], scores["skipped"]) == (1, 0)


def test_equal_records_count_as_often_as_they_are_there():
    scores = RecordScorer()([records([FOX, FOX], [FOX])])
    assert row(scores["records"]["product"]) == (1, 2, 1)
    assert row(scores["fields"]["product.name"]) == (1, 2, 1)


@pytest.mark.parametrize(("match", "right"), [("text", 1), ("place", 0)])
def test_place_or_text(match, right):
    other = ("product", {**FOX[1], "price": 9})  # the other "$"
    scores = RecordScorer(match)([records([FOX], [other])])
    assert row(scores["records"]["product"])[0] == right


def test_texts_without_gold_records_are_skipped():
    example = records([], [FOX])
    assert RecordScorer()([example])["records"]["product"]["p"] == 0  # none there
    set_records(example.reference, None)
    assert RecordScorer()([example])["skipped"] == 1


def test_entities_that_nobody_looked_for_are_not_scored():
    example = records([], [])
    example.predicted.spans["gliner"] = [example.predicted[1:2]]
    example.reference.spans["gliner"] = []
    assert ExactScorer()([example])["micro"]["p"] == 0
    assert ComponentScorer()([example])["spans_gliner_p"] == 0
    set_supervision(example.reference, entities_annotated=False)
    assert ExactScorer()([example])["micro"]["p"] is None
    assert ComponentScorer()([example])["spans_gliner_p"] is None


def test_names_of_spacy():
    example = classes((["a"], ["x"]), ("a", []))
    set_records(example.reference, [Record("p", {"f": "x"})])
    set_records(example.predicted, [Record("p", {"f": "x"})])
    scores = ComponentScorer()([example])
    assert (scores["cats_micro_p"], scores["cats_micro_r"], scores["cats_accuracy"]) == (1, 0.5, 0.5)
    assert scores["cats_f_per_type"]["one=a"]["f"] == 1
    assert (scores["records_f"], scores["records_fields_f"], scores["records_per_type"]["p"]["f"]) == (
        1,
        1,
        1,
    )


@pytest.mark.parametrize("name", ["gliner_pipe.classes", "gliner_pipe.records"])
def test_registered_and_picklable(name):
    scorer = registry.scorers.get(name)()
    assert type(pickle.loads(pickle.dumps(scorer))) is type(scorer)
    assert spacy.registry.scorers.get(name) is registry.scorers.get(name)
