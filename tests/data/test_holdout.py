"""Documents and labels that are kept out of training."""

from __future__ import annotations

import random

import pytest

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.holdout import RELATIONS, drop_labels, hold_out
from gliner_pipe.data.label_sampling import LabelSampling, sample_labels
from gliner_pipe.errors import DataError


def test_a_split_is_stable_and_complete(example):
    documents = [example([f"w{i}"]) for i in range(20)]
    rest, held = hold_out(documents, 0.2, 7)
    assert (len(rest), len(held)) == (16, 4)
    assert sorted(map(id, rest + held)) == sorted(map(id, documents))
    assert [documents.index(e) for e in rest] == sorted(documents.index(e) for e in rest)
    assert hold_out(documents, 0.2, 7) == (rest, held)
    assert any(hold_out(documents, 0.2, seed)[1] != held for seed in range(5))


@pytest.mark.parametrize(
    ("number", "share", "held"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.01, 1), (3, 0.99, 2)]
)
def test_each_side_has_at_least_one(example, number, share, held):
    rest, out = hold_out([example(["a"]) for _ in range(number)], share, 0)
    assert (len(rest), len(out)) == (number - held, held)


def test_too_few_documents(example, fails):
    with fails(DataError, "train.train_data"):
        hold_out([example(["a"])], 0.5, 0)


def test_dropped_labels(example):
    kept = example("a b", [(0, 1, "x")], ner_labels=["x"])
    mixed = example(
        "a b c d",
        [(0, 1, "x"), (1, 2, "y"), (0, 3, "y"), (3, 4, "z")],
        relations=[[0, 1, "r"], [3, 0, "s"], [2, 2, "t"], [0, 3, "u"]],
        ner_labels=["x", "y", "z"],
        ner_negatives=["v", "w"],
    )
    named = example("a b", [], ner_negatives=["y", "v"])
    mixed.reference.set_ents([mixed.reference.spans["gliner"][1], mixed.reference.spans["gliner"][3]])
    examples = [kept, mixed, named]
    assert drop_labels(examples, ["y", "w"]) == {"y": 2, RELATIONS: 2}
    assert examples[0] is kept
    doc = examples[1].reference
    assert [(s.start, s.end, s.label_) for s in gold_spans(doc)] == [(0, 1, "x"), (3, 4, "z")]
    assert [ent.label_ for ent in doc.ents] == ["z"]
    assert [token.ent_iob_ for token in doc] == ["O", "O", "O", "B"]
    stored = supervision(doc)
    assert stored["relations"] == [[1, 0, "s"], [0, 1, "u"]]
    assert (stored["ner_labels"], stored["ner_negatives"]) == (["x", "z"], ["v"])
    assert supervision(examples[2].reference)["ner_negatives"] == ["v"]
    # what came in stays as it is
    assert len(gold_spans(mixed.reference)) == 4
    assert supervision(mixed.reference)["ner_labels"] == ["x", "y", "z"]
    assert len(mixed.reference.ents) == 2
    assert drop_labels(examples, ["y", "w"]) == {}


def test_a_dropped_label_is_no_candidate(example):
    """Neither as a positive nor, for whatever else is in the batch, as a negative."""
    examples = [
        example("a b", [(0, 1, "x"), (1, 2, "y")], ner_labels=["x", "y", "z"]),
        example("a b", [(0, 1, "y")]),
        example("a b", [(1, 2, "z")]),
        example("a b", [(1, 2, "z")], ner_labels=["y", "z"]),
    ]
    drop_labels(examples, ["y"])
    references = [e.reference for e in examples]
    for seed in range(20):
        asked = sample_labels(
            [[span.label_ for span in gold_spans(doc)] for doc in references],
            [supervision(doc) for doc in references],
            [],
            LabelSampling(),
            random.Random(seed),
        )
        assert all("y" not in labels for labels in asked)
        assert sorted(asked[0]) == ["x", "z"]
        assert asked[3] == ["z"]
