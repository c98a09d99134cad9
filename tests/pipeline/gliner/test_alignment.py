"""Entities in words of the model become spans of spaCy's tokens, and conflicts that this makes are resolved."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import spacy
from conftest import gliner_config
from spacy.tokens import Doc, Span

from gliner_pipe.pipeline.annotate import (
    ADJUSTED,
    MERGED,
    NOT_MATCHING,
    RELATION_UNALIGNED,
    SCORE_TAKEN,
    UNALIGNED,
    Entity,
    FoundField,
    FoundRecord,
    FoundValue,
    Link,
    Prediction,
)
from gliner_pipe.pipeline.gliner.restrictions import patterns_of
from gliner_pipe.pipeline.labels import parse_labels
from gliner_pipe.pipeline.word_splitters import Words

#: The model's words are ``x , y z . w``.
TOKENS = ["x,y", "z.", "w"]
WORDS = {"@word_splitters": "whitespace"}


def annotated(backbone: Path, prediction: Prediction, **settings: Any) -> tuple[Any, Doc]:
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe(
        "gliner", config=gliner_config(backbone, **{"word_splitter": WORDS, **settings})
    )
    doc = Doc(nlp.vocab, words=TOKENS)
    assert component.word_splitter.split(doc).texts == ["x", ",", "y", "z", ".", "w"]
    component.set_annotations([doc], [prediction])
    return component, doc


def scored(doc: Doc, key: str = "gliner") -> list[tuple[str, str, float]]:
    group = doc.spans[key]
    assert [span._.score for span in group] == group.attrs["scores"]
    assert all(type(score) is float for score in group.attrs["scores"])
    return [(s.text, s.label_, p) for s, p in zip(group, group.attrs["scores"], strict=True)]


X, Y, Z = Entity(0, 0, "a", 0.6), Entity(2, 2, "a", 0.75), Entity(3, 3, "b", 0.5)


def test_the_text_is_put_together_once(backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Doc joins its tokens at each access; once for each entity takes the square of the length of a text."""
    bounds, texts = Words.bounds, []

    def noted(words: Words, text: str, start: int, end: int) -> tuple[int, int]:
        texts.append(text)
        return bounds(words, text, start, end)

    monkeypatch.setattr(Words, "bounds", noted)
    fields = [FoundField("name", True, None, [FoundValue(0, 0, 0.5), FoundValue(2, 2, 0.5)])]
    annotated(backbone, Prediction([X, Y, Z], below=[X], records=[FoundRecord("thing", fields)] * 2))
    assert len(texts) > 7 and len({id(text) for text in texts}) <= 3


def test_the_default_keeps_every_entity_on_whole_tokens(backbone: Path) -> None:
    component, doc = annotated(backbone, Prediction([Z]))
    assert component.cfg["alignment_mode"] == "expand"
    assert scored(doc) == [("z.", "b", 0.5)] and component.report == {ADJUSTED: 1}


@pytest.mark.parametrize(
    ("settings", "entities", "expected", "merged"),
    [
        ({}, [X, Y, Z], [("x,y", "a", 0.75), ("z.", "b", 0.5)], 1),
        ({"multi_label": True}, [X, Y], [("x,y", "a", 0.75)], 1),
        ({"multi_label": True}, [X, Y._replace(label="b")], [("x,y", "a", 0.6), ("x,y", "b", 0.75)], 0),
        ({}, [X, Y._replace(label="b")], [("x,y", "b", 0.75)], 1),
        ({}, [X, Entity(2, 3, "b", 0.5)], [("x,y", "a", 0.6)], 1),
        ({"flat_ner": False}, [X, Entity(2, 3, "b", 0.5)], [("x,y", "a", 0.6), ("x,y z.", "b", 0.5)], 0),
        ({"prefer": "longest"}, [X, Entity(2, 3, "b", 0.5)], [("x,y z.", "b", 0.5)], 1),
        (
            {"alignment_mode": "contract"},
            [X, Y, Entity(2, 4, "b", 0.5), Entity(3, 4, "b", 0.25)],
            [("z.", "b", 0.5)],
            1,
        ),
        ({"alignment_mode": "strict"}, [X, Y, Entity(3, 4, "b", 0.25)], [("z.", "b", 0.25)], 0),
    ],
)
def test_no_conflicts_after_alignment(
    backbone: Path, settings: Any, entities: list[Entity], expected: Any, merged: int
) -> None:
    component, doc = annotated(backbone, Prediction(entities), **settings)
    assert scored(doc) == expected
    assert component.report[MERGED] == merged
    assert component.report[UNALIGNED] == len(entities) - len(expected) - merged
    if len({text for text, *_ in expected}) == len(expected) and "flat_ner" not in settings:
        assert [(ent.text, ent.label_, ent._.score) for ent in doc.ents] == expected


def test_generated_labels_and_class_scores_stay_with_their_entity(backbone: Path) -> None:
    entities = [X._replace(generated=("one",)), Y._replace(generated=("two",), class_scores={"a": 0.75})]
    _, doc = annotated(backbone, Prediction(entities, has_generated=True), class_scores=True)
    assert doc.spans["gliner"].attrs == {
        "scores": [0.75],
        "generated_labels": [["two"]],
        "class_scores": [{"a": 0.75}],
    }


def test_relations_follow_their_entities(backbone: Path) -> None:
    """``x`` becomes ``y``; ``w`` of ``x,y`` is lost to it; ends that fall together are no relation."""
    lost = Entity(1, 1, "b", 0.5)
    links = [Link(0, 3, "r", 0.5), Link(2, 3, "r", 0.75), Link(1, 3, "r", 0.9), Link(0, 2, "r", 0.9)]
    component, doc = annotated(backbone, Prediction([X, lost, Y, Z], links))
    assert [(one.head.text, one.tail.text, one.score) for one in doc._.relations] == [("x,y", "z.", 0.75)]
    assert component.report[RELATION_UNALIGNED] == 2


def test_patterns_hold_for_whole_tokens(backbone: Path) -> None:
    patterns = patterns_of(parse_labels([{"label": "a", "pattern": "[xw]"}], "labels"))
    component, doc = annotated(backbone, Prediction([X, Entity(5, 5, "a", 0.5)], patterns=patterns))
    assert scored(doc) == [("w", "a", 0.5)] and component.report == {NOT_MATCHING: 1, ADJUSTED: 1}


def test_candidates_are_distinct_and_no_entities(backbone: Path) -> None:
    below = [X._replace(score=0.25), Y._replace(score=0.375), Y._replace(label="b", score=0.25), Z]
    _, doc = annotated(backbone, Prediction([Z._replace(score=0.75)], below=below))
    assert scored(doc, "gliner_candidates") == [("x,y", "a", 0.375), ("x,y", "b", 0.25)]
    assert [ent.text for ent in doc.ents] == ["z."]


def test_alignment_is_told_once(backbone: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "gliner_pipe"):
        component, doc = annotated(backbone, Prediction([Z]))
        component.set_annotations([doc], [Prediction([Z])])
    assert len(caplog.records) == 1 and "word_splitter" in caplog.text
    caplog.clear()
    component, doc = annotated(backbone, Prediction([]))
    component.set_annotations([doc], [Prediction([Entity(5, 5, "a", 0.5)])])
    assert not caplog.records and not component.report


def test_scores_of_an_earlier_prediction_are_removed(backbone: Path) -> None:
    component, doc = annotated(backbone, Prediction([Z]))
    component.set_annotations([doc], [Prediction([Entity(5, 5, "a", 0.5)])])
    assert Span(doc, 1, 2, "b")._.score is None and Span(doc, 2, 3, "a")._.score == 0.5


def test_another_extension_named_score(backbone: Path) -> None:
    before = Span.get_extension("score") if Span.has_extension("score") else None
    Span.set_extension("score", default=None, force=True)
    try:
        component, doc = annotated(backbone, Prediction([Z]))
        assert doc.ents[0]._.score is None and doc.spans["gliner"].attrs["scores"] == [0.5]
        assert component.report[SCORE_TAKEN] == 1
    finally:
        Span.remove_extension("score")
        if before is not None and before[2] is not None:
            Span.set_extension("score", getter=before[2], setter=before[3])
