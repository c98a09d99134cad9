"""Entities and relations of texts as dictionaries: what ``nlp.pipe`` finds, for labels and settings of the call."""

from __future__ import annotations

import gc
import json
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest
import relation_pipeline
import spacy
from spacy.tokens import Doc

from gliner_pipe.errors import ConfigError, NotInitializedError
from gliner_pipe.pipeline.overrides import override

TEXTS = ["Ada Lovelace met Charles Babbage in London.", "", "Grace Hopper lived in New York."]
ALL = {"threshold": 0.0, "flat_ner": False, "multi_label": True}


@pytest.fixture
def component(nlp: Any) -> Any:
    return nlp.get_pipe("gliner")


def spans_of(doc: Doc) -> set[tuple[int, int, str, float]]:
    group = doc.spans["gliner"]
    scores = [round(float(score), 6) for score in group.attrs["scores"]]
    return {
        (span.start_char, span.end_char, span.label_, score)
        for span, score in zip(group, scores, strict=True)
    }


def as_set(found: list[Any]) -> set[tuple[int, int, str, float]]:
    return {(one["start"], one["end"], one["label"], one["score"]) for one in found}


def test_finds_what_the_pipeline_finds_and_changes_nothing(nlp: Any, component: Any) -> None:
    before = (component.label_data, dict(component.cfg))
    found = component.predict_entities(TEXTS[0], ["river", "person"], **ALL)
    with override(nlp, labels=["river", "person"], threshold=0.0):
        component.cfg |= {"flat_ner": False, "multi_label": True}
        doc = nlp(TEXTS[0])
        component.cfg |= {"flat_ner": True, "multi_label": False}
    assert as_set(found) == spans_of(doc) and found
    assert [one["start"] for one in found] == sorted(one["start"] for one in found)
    assert all(TEXTS[0][one["start"] : one["end"]] == one["text"] for one in found)
    assert json.loads(json.dumps(found)) == found
    assert (component.label_data, dict(component.cfg)) == before


def test_several_texts(component: Any) -> None:
    single = [component.predict_entities(text, **ALL) for text in TEXTS]
    several = component.batch_predict_entities(iter(TEXTS), **ALL, batch_size=2)
    assert component.inference(TEXTS, **ALL) == several
    for one, other in zip(single, several, strict=True):
        for entity, again in zip(one, other, strict=True):
            assert {**entity, "score": 0} == {**again, "score": 0}
            assert entity["score"] == pytest.approx(again["score"], abs=2e-6)
    assert [bool(found) for found in single] == [True, False, True]
    with pytest.raises(ConfigError) as error:
        component.inference(TEXTS[0])
    assert error.value.where == "texts"


def test_labels_with_descriptions(component: Any) -> None:
    plain = component.predict_entities(TEXTS[0], ["person"], **ALL)
    described = component.predict_entities(TEXTS[0], {"person": "a town near a river", "city": None}, **ALL)
    assert {one["label"] for one in described} == {"person", "city"}
    persons = [one for one in described if one["label"] == "person"]
    assert as_set(persons) != as_set(plain)
    items = [{"label": "person", "description": "a town near a river"}, "city"]
    assert component.predict_entities(TEXTS[0], items, **ALL) == described
    component.labels = items  # a plain label is read as the component describes it
    assert component.predict_entities(TEXTS[0], ["person", "city"], **ALL) == described
    fields = {"person": {"description": "a town near a river", "threshold": 1.0}, "city": None}
    assert {one["label"] for one in component.predict_entities(TEXTS[0], fields, **ALL)} == {"city"}


def test_settings_of_a_call(component: Any) -> None:
    assert component.predict_entities(TEXTS[0], threshold=1.0) == []
    nested = component.predict_entities(TEXTS[0], threshold=0.0, flat_ner=False)
    flat = component.predict_entities(TEXTS[0], threshold=0.0)
    ends = [one["end"] for one in flat]
    assert all(end <= one["start"] for end, one in zip(ends, flat[1:], strict=False))
    assert len(nested) > len(flat)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"threshold": 2}, "components.gliner.threshold"),
        ({"flat_ner": "no"}, "components.gliner.flat_ner"),
        ({"labels": "person"}, "labels"),
        ({"labels": {"person": {"colour": "red"}}}, "labels[0]"),
    ],
)
def test_wrong_values(component: Any, settings: Any, where: str) -> None:
    with pytest.raises(ConfigError) as error:
        component.predict_entities(TEXTS[0], **settings)
    assert error.value.where == where


def test_relations(backbone: Path, component: Any) -> None:
    nlp = spacy.blank("en")
    wanted = {"labels": ["person", "company"], "relations": ["works for"], "adjacency_threshold": 0.0}
    config = relation_pipeline.config(backbone, threshold=0.0, relation_threshold=0.0, **wanted)
    related: Any = nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    text = "Ada works for Acme ."
    entities, relations = related.predict_relations(text)
    doc = nlp(text)
    assert as_set(entities) == spans_of(doc)
    assert {(one["head"]["text"], one["tail"]["text"], one["relation"]) for one in relations} == {
        (one.head.text, one.tail.text, one.label) for one in doc._.relations
    }
    assert relations and all(one["head"] in entities and one["tail"] in entities for one in relations)
    others = related.predict_relations(text, relations={"founded": "started a company"})[1]
    assert {one["relation"] for one in others} == {"founded"} and related.relations == ("works for",)
    assert related.predict_relations(text, relation_threshold=1.0)[1] == []
    with pytest.raises(ConfigError) as error:
        component.predict_relations(text)
    assert error.value.where == "predict_relations"


def test_without_weights(backbone: Path) -> None:
    component: Any = spacy.blank("en").add_pipe("gliner", config={"labels": ["person"]})
    with pytest.raises(NotInitializedError):
        component.predict_entities(TEXTS[0])


def test_words_are_those_of_the_pipeline(nlp: Any, component: Any) -> None:
    nlp.tokenizer = lambda text: Doc(nlp.vocab, words=text.split())
    found = component.predict_entities(TEXTS[0], **ALL)
    assert "London." in {one["text"] for one in found} and "London" not in {one["text"] for one in found}
    again = pickle.loads(pickle.dumps(component))  # by itself: the words of its language
    assert "London" in {one["text"] for one in again.predict_entities(TEXTS[0], **ALL)}


def test_a_component_does_not_keep_its_pipeline(backbone: Path) -> None:
    nlp = spacy.blank("en")
    component = nlp.add_pipe("gliner", config={"labels": ["person"]})
    pipeline = weakref.ref(nlp)
    del nlp
    gc.collect()
    assert pipeline() is None and component.make_doc("one two").text == "one two"  # type: ignore[attr-defined]
