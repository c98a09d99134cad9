"""Relations and records of GLiNER2.5 checkpoints (architecture ``boundary``), beside the `gliner2` package."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gliner2_parity import (
    CLOSE,
    TEXTS,
    Relations,
    boundary_checkpoint,
    gap,
    load,
    load_peer,
    our_records,
    our_relations,
    scores_of,
    their_records,
)

SURE = {"enable_abstention": False}
POOL = {"candidate_pool": "shared", **SURE}
CONTENT = {
    "relation_biaffine_content": True,
    "directional_relation_states": True,
    "relation_temperature": 2.0,
}
FEW = {"relation_heads_per_type": 5, "relation_tails_per_type": 4, "relation_pair_cap": 9}


def schema_of(model: Any, settings: dict[str, Any], **of_fields: Any) -> Any:
    """Return the package's schema for settings of this project."""
    schema = model.create_schema()
    for name, about in settings.get("records", {}).items():
        builder = schema.structure(name, mode=about.get("mode"), anchor=about.get("anchor"))
        for field in about["fields"]:
            given = field if isinstance(field, dict) else {"field": field}
            is_anchor = given["field"] == about.get("anchor")
            builder.field(
                given["field"],
                dtype="list" if given.get("list") else "str",
                choices=given.get("choices"),
                threshold=given.get("threshold"),
                exclusive=given.get("exclusive", False),
                **({} if given.get("list") or is_anchor else of_fields),
            )
    if settings.get("labels"):
        schema.entities(settings["labels"])
    if settings.get("relations"):
        named = [one if isinstance(one, dict) else {"label": one} for one in settings["relations"]]
        schema.relations({one["label"]: {k: v for k, v in one.items() if k != "label"} for one in named})
    return schema


def theirs(model: Any, settings: dict[str, Any], threshold: float, **of_fields: Any) -> list[Any]:
    """Results of texts one by one: in batches, scores of the package depend on the longest text."""
    schema = schema_of(model, settings, **of_fields)
    return [
        model.extract(text, schema, threshold, include_confidence=True, include_spans=True) for text in TEXTS
    ]


def their_relations(result: Any) -> Relations:
    return {
        (name, *((one[side]["start"], one[side]["end"]) for side in ("head", "tail"))): one["confidence"]
        for name, found in result.get("relation_extraction", {}).items()
        for one in found
    }


def without_scores_of_records(result: Any) -> Any:
    return {
        name: [{key: value for key, value in one.items() if key != "confidence"} for one in found]
        for name, found in result.items()
        if isinstance(found, list)
    }


def agree(docs: Any, results: Any, settings: dict[str, Any]) -> int:
    """Check that relations and records are the same; return their number."""
    number = 0
    for doc, result in zip(docs, results, strict=True):
        if settings.get("relations"):
            assert our_relations(doc) == pytest.approx(their_relations(result), abs=CLOSE)
        if settings.get("records"):
            assert our_records(doc) == their_records(without_scores_of_records(result), settings)
        number += len(doc._.relations) + len(doc._.records)
    return number


@pytest.mark.parametrize(
    "head", [SURE, POOL, {**CONTENT, **SURE}, {**FEW, **SURE}, {**FEW, **POOL}], ids=range(5)
)
def test_relations(head: dict[str, Any]) -> None:
    folder = boundary_checkpoint(**head)
    settings = {"relations": ["works for", {"label": "born in", "description": "where a person was born"}]}
    model, nlp = load_peer(folder), load(folder, **settings, threshold=0.0)
    every = scores_of(list(nlp.pipe(TEXTS)))
    for threshold in (0.0, gap(every, 0.2, 0.5)):
        nlp.get_pipe("gliner").threshold = threshold
        assert agree(nlp.pipe(TEXTS), theirs(model, settings, threshold), settings)


def test_the_ends_of_relations_have_a_threshold_of_their_own() -> None:
    folder = boundary_checkpoint(relation_argument_proposal_threshold=0.45, **SURE)
    settings = {"relations": ["works for", {"label": "born in", "threshold": 0.6}]}
    nlp = load(folder, **settings, threshold=0.3)
    assert agree(map(nlp, TEXTS), theirs(load_peer(folder), settings, 0.3), settings)


@pytest.mark.parametrize("head", [SURE, POOL], ids=range(2))
def test_everything_in_one_pass(head: dict[str, Any]) -> None:
    """Entities, relations, and records without a mode, of which a text has one."""
    folder = boundary_checkpoint(**head)
    fields = ["who", {"field": "places", "list": True}, {"field": "state", "choices": ["planned", "over"]}]
    settings = {
        "labels": ["person"],
        "relations": ["works for", "born in"],
        "records": {"journey": {"fields": fields}, "purchase": {"fields": ["price", "thing"]}},
    }
    model, nlp = load_peer(folder), load(folder, **settings, threshold=0.3)
    for threshold in (0.3, gap(scores_of(list(nlp.pipe(TEXTS))), 0.3, 0.7)):
        nlp.get_pipe("gliner").threshold = threshold
        assert agree(nlp.pipe(TEXTS), theirs(model, settings, threshold), settings)


FIELDS = [
    "who",
    {"field": "places", "list": True},
    {"field": "price", "exclusive": True},
    {"field": "things", "list": True, "exclusive": True},
]


@pytest.mark.parametrize("mode", ["natural", "latent", "anchorless"])
@pytest.mark.parametrize(
    "head", [SURE, {"record_temperature": 0.5, "record_instance_queries": 5, **POOL}], ids=range(2)
)
@pytest.mark.parametrize("single", ["each", "one"])
def test_records_of_every_mode(head: dict[str, Any], mode: str, single: str) -> None:
    folder = boundary_checkpoint(**head)
    about = {"mode": mode, "fields": FIELDS} | ({"anchor": "who"} if mode == "natural" else {})
    settings = {"records": {"journey": about}}
    model, nlp = load_peer(folder), load(folder, **settings, threshold=0.3)
    nlp.get_pipe("gliner").gliner.record_finder.single_values = single
    of_fields = {"cardinality": "optional_one"} if single == "one" else {}
    threshold = 0.4 if single == "one" else gap(scores_of(list(nlp.pipe(TEXTS))), 0.85, 0.98)
    for limit in (threshold, 0.5):
        nlp.get_pipe("gliner").threshold = limit
        found = agree(nlp.pipe(TEXTS), theirs(model, settings, limit, **of_fields), settings)
        assert found or limit == 0.5


def test_choices_of_records_with_a_mode_have_scores() -> None:
    fields = ["who", {"field": "state", "choices": ["planned", "over"]}]
    records = {"journey": {"mode": "natural", "anchor": "who", "fields": fields}}
    docs = list(load(boundary_checkpoint(**SURE), records=records, threshold=0.0).pipe(TEXTS))
    found = [one for doc in docs for one in doc._.records]
    assert found
    assert all(one.fields["state"] in ("planned", "over") and 0 < one.scores["state"] < 1 for one in found)


# -- faults of the package that are not copied -----------------------------------------------------------------------


def test_relations_do_not_depend_on_other_texts_of_the_batch() -> None:
    """The package divides the distance of the two ends by the longest text of the batch."""
    folder = boundary_checkpoint(**SURE)
    settings = {"relations": ["works for"]}
    model, nlp = load_peer(folder), load(folder, **settings, threshold=0.0)
    gliner = nlp.get_pipe("gliner").gliner
    with torch.no_grad():
        for layer in (model.relation_scorer.mlp[0], gliner.relation_finder.scorer.mlp[0]):
            layer.weight[:, -1] *= 20
        gliner.eval()
    schema = schema_of(model, settings)
    batch = model.batch_extract(TEXTS, schema, 8, 0.0, include_confidence=True, include_spans=True)
    alone = theirs(model, settings, 0.0)
    assert their_relations(batch[0]) != pytest.approx(their_relations(alone[0]), abs=CLOSE)
    assert agree(nlp.pipe(TEXTS), alone, settings)


def test_the_added_full_stop_is_no_end_and_no_value() -> None:
    text = TEXTS[0].rstrip(".")
    records = {"journey": {"mode": "latent", "fields": FIELDS}}
    doc = load(boundary_checkpoint(**SURE), relations=["works for"], records=records, threshold=0.0)(text)
    spans = [span for one in doc._.relations for span in (one.head, one.tail)]
    values = [value for one in doc._.records for value in one.fields.values()]
    spans += [
        span for one in values for span in (one if isinstance(one, list) else [one]) if span is not None
    ]
    assert spans
    assert all(0 <= span.start_char < span.end_char <= len(text) for span in spans)


def test_relations_of_a_long_text_are_found_to_the_end() -> None:
    nlp = load(boundary_checkpoint(relation_pair_cap=4, **SURE), relations=["works for"], threshold=0.0)
    nlp.get_pipe("gliner").gliner.relation_finder.joins_mentions = False
    text = " ".join(TEXTS * 40)
    places = sorted(one.head.start_char for one in nlp(text)._.relations)
    assert places[-1] > len(text) * 0.8
    assert len(places) > 10
