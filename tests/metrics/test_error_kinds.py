"""Kinds of errors, counted by hand and, if it is installed, by nervaluate."""

from __future__ import annotations

import random
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.metrics.error_kinds import KINDS, MEASURES, error_kinds
from gliner_pipe.registry import registry


@pytest.mark.parametrize(
    ("gold", "predicted", "kinds"),
    [
        ([("a", 0, 2)], [("a", 0, 2)], ["correct"]),
        ([("a", 0, 2)], [("b", 0, 2)], ["type"]),
        ([("a", 0, 2)], [("a", 1, 2)], ["boundary"]),
        ([("a", 0, 2)], [("b", 1, 3)], ["both"]),
        ([("a", 0, 2)], [("a", 2, 3)], ["missed", "spurious"]),
        ([("a", 0, 2)], [], ["missed"]),
        ([], [("a", 0, 2)], ["spurious"]),
        # each span is counted once: the same one first, then the largest overlap
        ([("a", 0, 2)], [("a", 0, 2), ("b", 0, 2)], ["correct", "spurious"]),
        ([("a", 0, 4)], [("a", 0, 1), ("a", 1, 4)], ["boundary", "spurious"]),
        ([("a", 0, 4), ("b", 1, 2)], [("b", 0, 4), ("a", 1, 3)], ["type", "both"]),
    ],
)
def test_kinds_by_hand(gold: Any, predicted: Any, kinds: list[str]) -> None:
    row = error_kinds([(set(gold), set(predicted))])["micro"]
    assert {kind: row[kind] for kind in KINDS if row[kind]} == {kind: kinds.count(kind) for kind in kinds}


def test_rows_and_measures_by_hand() -> None:
    """Of five gold and five predicted spans: one correct, one boundary, one type, one both, one missed, one spurious."""
    gold = {("a", 0, 1), ("a", 2, 4), ("b", 5, 6), ("b", 7, 9), ("b", 10, 11)}
    predicted = {("a", 0, 1), ("a", 3, 4), ("a", 5, 6), ("a", 8, 9), ("a", 12, 13)}
    found = error_kinds([(gold, predicted)])
    assert [found["micro"][kind] for kind in KINDS] == [1, 1, 1, 1, 1, 1]
    assert [found["a"][kind] for kind in KINDS] == [1, 1, 0, 0, 0, 1]
    assert [found["b"][kind] for kind in KINDS] == [0, 0, 1, 1, 1, 0]
    wanted = {"strict": 1 / 5, "exact": 2 / 5, "partial": 3 / 5, "type": 2 / 5}
    assert {name: found["micro"][f"{name}_f"] for name in MEASURES} == pytest.approx(wanted)
    assert list(error_kinds([(gold, predicted)], labels=["b"])) == ["b", "micro"]
    assert error_kinds([])["micro"]["strict_f"] is None


def test_scorer() -> None:
    nlp = spacy.blank("en")
    words = ["Ada", "Smith", "lives", "in", "Oslo"]
    gold, found = Doc(nlp.vocab, words), Doc(nlp.vocab, words)
    gold.spans["gliner"] = [Span(gold, 0, 2, "person"), Span(gold, 4, 5, "city")]
    found.spans["gliner"] = [Span(found, 1, 2, "person"), Span(found, 4, 5, "city")]
    scores = registry.scorers.get("gliner_pipe.error_kinds")()([Example(found, gold)])
    assert scores["person"]["boundary"] == 1 and scores["micro"]["partial_f"] == 0.75


def test_measures_are_those_of_nervaluate() -> None:
    nervaluate = pytest.importorskip("nervaluate")
    rng = random.Random(3)
    documents = []
    for _ in range(200):
        sides: list[set[tuple[str, int, int]]] = []
        for _ in range(2):  # spans that do not overlap, with a gap, so that few have several partners
            starts = range(0, 40, 5)
            sides.append({(rng.choice("ab"), s, s + rng.randint(1, 3)) for s in starts if rng.random() < 0.6})
        documents.append((sides[0], sides[1]))
    rows = [
        [[{"label": label, "start": start, "end": end - 1} for label, start, end in side] for side in sides]
        for sides in zip(*documents, strict=True)
    ]
    theirs = nervaluate.Evaluator(rows[0], rows[1], tags=["a", "b"], loader="dict").evaluate()["overall"]
    ours = error_kinds(documents)["micro"]
    names = {"strict": "strict", "exact": "exact", "partial": "partial", "type": "ent_type"}
    for name, other in names.items():
        assert ours[f"{name}_f"] == pytest.approx(theirs[other].f1)
    assert ours["missed"] == theirs["strict"].missed and ours["spurious"] == theirs["strict"].spurious
