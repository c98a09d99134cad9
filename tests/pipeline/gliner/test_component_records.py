"""Relations and records that the model reads as tasks, by a random model that counts two of each."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from allocations import Allocations
from conftest import make_backbone
from spacy.tokens import Doc, Span
from torch import nn

from gliner_pipe.data.records import RECORDS_KEY, Record, get_records, spans_of
from gliner_pipe.errors import ConfigError

TEXT = "Maria Lindqvist from Lima joined Oslo University on 3 March 2019"
LABELS = ["person", "city"]
RELATIONS = ["works for", {"label": "born in", "description": "where a person was born"}]
RECORDS = {
    "event": [
        "name",
        {"field": "places", "list": True, "description": "where it was"},
        {"field": "state", "choices": ["over", "to come"]},
        {"field": "kinds", "choices": ["work", "study", "travel"], "list": True},
    ],
    "thing": ["colour"],
}
CLASSES = {"tone": ["good", "bad"]}


def config(backbone: Path, **changes: Any) -> dict[str, Any]:
    encoder = {
        "@encoders": "schema_encoder",
        "backbone": {
            "@backbones": "transformer",
            "model": str(backbone),
            "window": 160,
            "special_pieces": False,
        },
    }
    model = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": encoder,
        "span_rep": {"@span_reps": "markerV0", "max_width": 3},
        "counter": {"@counters": "count_lstm_v2"},
        "classifier": {"@classifiers": "label_mlp"},
        "relation_finder": {"@relation_finders": "slots"},
        "record_finder": {"@record_finders": "slots"},
    }
    return {"model": model, **changes}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pipeline with all tasks, whose scores lie far apart."""
    backbone = make_backbone(tmp_path_factory.mktemp("records"))
    tasks = {"labels": LABELS, "relations": RELATIONS, "records": RECORDS, "classes": CLASSES}
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config=config(backbone, **tasks))
    torch.manual_seed(1)
    component.model.build()
    model = component.model.eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                std = 1.0 if "embedding" in name else 0.4 if "counter" in name else 0.15
                nn.init.normal_(weight, std=std)
        model.encoder.backbone.encoder.embeddings.position_embeddings.weight.zero_()  # scores depend on the words
        model.counter.number[-1].weight.zero_()
        model.counter.number[-1].bias[2] = 1.0
    return nlp


@pytest.fixture
def nlp(made: Any) -> Iterator[Any]:
    """The pipeline, with its settings put back at the end."""
    component = made.get_pipe("gliner")
    before = component.current_settings()
    yield made
    component.restore_settings(before)


@pytest.fixture
def graded(nlp: Any) -> Iterator[Any]:
    """The pipeline with smaller scores, of which no two are 1."""
    model = component_of(nlp).model
    weight = model.span_rep.out_project[3].weight.data
    before = weight.clone()
    weight.mul_(0.1)
    model.eval()
    yield nlp
    weight.copy_(before)
    model.eval()


def component_of(nlp: Any) -> Any:
    return nlp.get_pipe("gliner")


def shown(record: Record) -> tuple[str, dict[str, Any]]:
    def text(value: Any) -> Any:
        return [text(one) for one in value] if isinstance(value, list) else getattr(value, "text", value)

    return record.name, {field: text(value) for field, value in record.fields.items()}


def relations_of(doc: Doc) -> set[tuple[str, str, str]]:
    return {(one.head.text, one.label, one.tail.text) for one in doc._.relations}


def values_of(doc: Doc, field: str) -> list[str]:
    found = [one.fields[field] for one in doc._.records if field in one.fields]
    several = [one for value in found for one in (value if isinstance(value, list) else [value])]
    return [getattr(one, "text", one) for one in several if one is not None]


def test_all_tasks_in_one_pass(nlp: Any) -> None:
    doc = nlp(TEXT)
    assert len(doc.spans["gliner"]) and set(doc.cats) == {"good", "bad"}
    assert {one.name for one in doc._.records} == {"event", "thing"} and len(doc._.records) <= 4
    for record in doc._.records:
        assert list(record.fields) == [
            one if isinstance(one, str) else one["field"] for one in RECORDS[record.name]
        ]
        values = [one for one in record.scores.values() if one]
        scores = [score for one in values for score in (one if isinstance(one, list) else [one])]
        assert record.score == max(scores) and all(0.5 < score <= 1 for score in scores)
        for span in spans_of(record):
            assert isinstance(span, Span) and span.label_ in record.fields and span.text
    event = next(one for one in doc._.records if one.name == "event")
    assert isinstance(event.fields["places"], list) and isinstance(event.fields["kinds"], list)
    assert event.fields["state"] in ("over", "to come", None)
    assert {"works for", "born in"} >= {one.label for one in doc._.relations} != set()
    for relation in doc._.relations:
        entity = any(span == relation.head for span in doc.spans["gliner"])
        assert entity or relation.head.label_ == "head"


def test_a_batch_finds_what_single_texts_do(nlp: Any) -> None:
    texts = [TEXT, "Oslo!", "", f"{TEXT}. {TEXT}."]
    alone = [nlp(text) for text in texts]
    for one, doc in zip(alone, nlp.pipe(texts), strict=True):
        assert list(map(shown, one._.records)) == list(map(shown, doc._.records))
        assert relations_of(one) == relations_of(doc)
        scores = [[record.score for record in some._.records] for some in (one, doc)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_values_lie_within_the_text(nlp: Any) -> None:
    component_of(nlp).threshold = 0.0
    for text in (TEXT, "Oslo"):
        doc = nlp(text)
        ends = [span for one in doc._.relations for span in (one.head, one.tail)]
        ends += [span for one in doc._.records for span in spans_of(one)]
        assert ends and all(span.text.strip() and span.end_char <= len(text) for span in ends)
    component_of(nlp).threshold = 0.5
    assert nlp("")._.records == [] and RECORDS_KEY in nlp("").user_data


def test_thresholds_of_fields_and_of_described_relations(nlp: Any) -> None:
    component = component_of(nlp)
    before = nlp(TEXT)
    assert values_of(before, "name") and values_of(before, "kinds")
    component.records = {
        "event": [{"field": "name", "threshold": 1.0}, *RECORDS["event"][1:]],
        "thing": ["colour"],
    }
    changed = nlp(TEXT)
    assert not values_of(changed, "name") and values_of(changed, "kinds") == values_of(before, "kinds")
    component.records = {"event": [*RECORDS["event"][:3], {**RECORDS["event"][3], "threshold": 1.0}]}
    assert not values_of(nlp(TEXT), "kinds")
    for label in ("works for", "born in"):
        items = [one if isinstance(one, dict) else {"label": one} for one in RELATIONS]
        component.relations = [{**one, "threshold": 1.0} if one["label"] == label else one for one in items]
        assert {one.label for one in nlp(TEXT)._.relations} == {one.label for one in before._.relations} - {
            label
        }
    component.relations, component.relation_threshold = RELATIONS, 1.0
    assert nlp(TEXT)._.relations == [] and len(nlp(TEXT).spans["gliner"])


def test_values_match_the_pattern_of_their_field(nlp: Any) -> None:
    component = component_of(nlp)
    pattern = "[A-Z][a-z]+"
    component.records = {
        "event": [{"field": name, "pattern": pattern, "list": name != "name"} for name in ("name", "at")]
    }
    component.threshold = 0.05
    doc = nlp(TEXT)
    values = [*values_of(doc, "name"), *values_of(doc, "at")]
    assert values and all(value.isalpha() and value[0].isupper() for value in values)
    assert any("pattern of its field" in reason for reason in component.report)
    component.records = {"event": [{"field": "name", "pattern": "x"}]}
    assert nlp(TEXT)._.records == []


def test_ends_of_typed_relations_are_entities_of_these_types(nlp: Any) -> None:
    component = component_of(nlp)
    before = nlp(TEXT)
    labels = {span.label_ for span in before.spans["gliner"]}
    component.relations = [{"label": "works for", "head": sorted(labels), "tail": sorted(labels)}]
    doc = nlp(TEXT)
    for one in doc._.relations:
        assert one.head in list(doc.spans["gliner"]) and one.tail in list(doc.spans["gliner"])
    component.relations = [{"label": "works for", "head": ["nothing"]}]
    component.report.clear()
    assert nlp(TEXT)._.relations == []
    assert any("types that the relation allows" in reason for reason in component.report)


def test_relations_and_records_need_no_labels(nlp: Any) -> None:
    component_of(nlp).labels = []
    doc = nlp(TEXT)
    assert doc._.records and doc._.relations
    assert {one.head.label_ for one in doc._.relations} == {"head"}


def test_records_of_one_document(nlp: Any) -> None:
    doc, other = nlp.make_doc(TEXT), nlp.make_doc(TEXT)
    doc._.gliner_records, doc._.gliner_relations = {"meal": ["dish", "drink"]}, ["eaten by"]
    first, second = nlp.pipe([doc, other])
    assert {one.name for one in first._.records} == {"meal"}
    assert {one.label for one in first._.relations} <= {"eaten by"}
    assert "meal" not in {one.name for one in second._.records} and second._.records
    none = nlp.make_doc(TEXT)
    none._.gliner_records = {}
    assert RECORDS_KEY not in nlp(none).user_data


def test_results_are_saved_with_the_document_and_settings_with_the_pipeline(nlp: Any, tmp_path: Path) -> None:
    doc = nlp(TEXT)
    expected = list(map(shown, doc._.records))
    for again in (Doc(nlp.vocab).from_bytes(doc.to_bytes()), pickle.loads(pickle.dumps(doc))):
        assert list(map(shown, get_records(again))) == expected
        assert relations_of(again) == relations_of(doc)
    nlp.to_disk(tmp_path / "saved")
    loaded = spacy.load(tmp_path / "saved")(TEXT)
    assert list(map(shown, loaded._.records)) == expected and relations_of(loaded) == relations_of(doc)


def test_long_texts_are_read_to_the_end_in_bounded_memory(graded: Any) -> None:
    nlp, component = graded, component_of(graded)
    component.threshold, component.labels, component.classes = 0.0, [], {}
    component.records = {"trip": [{"field": "city", "pattern": "Lima"}]}
    largest = []
    for n_parts in (6, 24):
        drawn = random.Random(0)
        fillers = ["".join(drawn.choices("aeiknorst", k=4)) for _ in range(100 * n_parts)]
        doc = nlp.make_doc(" Lima ".join(" ".join(fillers[at::n_parts]) for at in range(n_parts)) + " Lima")
        with Allocations() as made:
            nlp(doc)
        largest.append(made.largest)
        cities = [one.fields["city"] for one in doc._.records]
        assert {city.start for city in cities} == {token.i for token in doc if token.text == "Lima"}
        relations = [(one.label, one.head.start, one.tail.start) for one in doc._.relations]
        assert len(relations) == len({*relations}) and max(one[1] for one in relations) > 0.8 * len(doc)
    assert largest[1] <= 1.1 * largest[0]


def test_slots_need_a_counter(backbone: Path) -> None:
    settings = config(backbone)
    del settings["model"]["counter"]
    component: Any = spacy.blank("en").add_pipe("gliner", config=settings)
    with pytest.raises(ConfigError) as caught:
        component.model.build()
    assert caught.value.where == "components.*.model.counter"
