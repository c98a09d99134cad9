"""Entities and relations of GLiNER2 checkpoints chosen together, beside `JointIE` of the `gliner2` package."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from gliner2_parity import (
    CLOSE,
    TEXTS,
    boundary_checkpoint,
    checkpoint,
    load,
    load_peer,
    our_entities,
    our_relations,
)

from gliner_pipe.errors import ConfigError

peer = pytest.importorskip("gliner2.joint_ie")
from gliner2.joint_ie.engine import JointIEConfig  # noqa: E402

TEXT = "Maria Lindqvist of Oslo met the baker from Lima, who is the boss of John Smith in Berlin!"
LABELS: list[Any] = [{"label": "person", "threshold": 0.4}, "big city", "date"]
ENDS: dict[str, Any] = {
    "lives in": {"head": ["person"], "tail": ["big city"], "threshold": 0.68},
    "knows": {"head": ["person", "date"], "tail": ["person", "date"], "threshold": 0.75},
}
# the package proposes few spans for a label, and silences labels without asking its joint extraction
BUDGETS = {"start_top_k": 64, "end_top_k": 64, "ends_per_start": 64, "starts_per_end": 64, "candidate_budget": 4096, "training_candidate_budget": 4096, "enable_abstention": False}  # fmt: skip


def relations(**rules: Any) -> list[dict[str, Any]]:
    return [
        {"label": name, "allow_self": False, **ends, **(rules if name == "lives in" else {})}
        for name, ends in ENDS.items()
    ]


def schema(**rules: Any) -> Any:
    made = peer.JointSchema().entity("person", threshold=0.4).entity("big city").entity("date")
    for name, ends in ENDS.items():
        made.relation(name, **ends, **(rules if name == "lives in" else {}))
    return made


@pytest.mark.parametrize(
    ("make", "options"),
    [
        # the package adds to each relation how sure it is of their number; 0 leaves the relations alone
        (checkpoint, {"count_top_k": 1, "count_weight": 0.0, "beam_size": 300}),
        (
            partial(boundary_checkpoint, **BUDGETS),
            {"top_k_roles": 32, "top_k_entities": 300, "batch_size": 1, "beam_size": 300},
        ),
    ],
    ids=["span", "boundary"],
)
def test_entities_and_relations(make: Any, options: dict[str, Any]) -> None:
    folder = make()
    engine, config = peer.JointIE(load_peer(folder)), JointIEConfig(**options)
    nlp = load(folder, labels=LABELS, joint=True, relations=relations())
    # the package's beam does not always find the best choice for longer texts of the span checkpoint
    texts = TEXTS[:1] if make is checkpoint else [TEXTS[0], TEXT]
    component, number = nlp.get_pipe("gliner"), 0
    for rules in ({}, {"max_per_head": 1, "max_per_tail": 1}):
        component.relations = relations(**rules)
        theirs = engine.batch_extract(texts, schema(**rules), config=config)
        for doc, wanted in zip(nlp.pipe(texts), theirs, strict=True):
            by_id = {one.id: one for one in wanted.entities}
            entities = {(one.start, one.end, one.type): one.confidence for one in wanted.entities}
            assert our_entities([doc])[0] == pytest.approx(entities, abs=CLOSE)
            ends = {(one.type, by_id[one.head].span, by_id[one.tail].span) for one in wanted.relations}
            assert set(our_relations(doc)) == ends
            number += len(ends)
    assert number or make is not checkpoint


def test_rescued_and_apart() -> None:
    """A relation brings back an entity below its threshold, in batches as alone; entities do not overlap."""
    nlp = load(checkpoint(), labels=LABELS, relations=relations(), joint=True)
    component = nlp.get_pipe("gliner")
    docs = list(nlp.pipe([*TEXTS, TEXT]))
    limits = {"person": 0.4, "big city": 0.5, "date": 0.5}
    spans = [(doc, span) for doc in docs for span in doc.spans["gliner"]]
    below = [(doc, span) for doc, span in spans if span._.score < limits[span.label_]]
    assert below
    for doc, span in below:
        assert any(span in one[:2] for one in doc._.relations)
    for doc in docs:
        covered = [token.i for span in doc.spans["gliner"] for token in span]
        assert len(covered) == len(set(covered))
        for one in doc._.relations:
            assert one.head.label_ in ENDS[one.label]["head"] and one.tail.label_ in ENDS[one.label]["tail"]
        alone = nlp(doc.text)
        assert set(our_relations(alone)) == set(our_relations(doc))
        assert our_entities([alone])[0] == pytest.approx(our_entities([doc])[0], abs=1e-5)
    # a pattern and given spans hold for them, too
    for doc in docs:
        given = nlp.make_doc(doc.text)
        given._.gliner_input_spans = []
        assert not nlp(given).spans["gliner"]
    component.labels = [
        {**one, "pattern": "no such text"} if isinstance(one, dict) else one for one in LABELS
    ]
    assert all(span.label_ != "person" for doc in nlp.pipe([*TEXTS, TEXT]) for span in doc.spans["gliner"])


def test_descriptions_reach_the_model() -> None:
    """The package leaves out descriptions of relations here."""
    folder = checkpoint()
    plain, described = (
        {"label": "lives in", **ENDS["lives in"], **more} for more in ({}, {"description": "home"})
    )
    engine, config = peer.JointIE(load_peer(folder)), JointIEConfig()
    schemas = [
        peer.JointSchema()
        .entity("person")
        .entity("big city")
        .relation("lives in", ["person"], ["big city"], text)
        for text in (None, "home")
    ]
    assert len({str(engine.compile_schema(one).build()) for one in schemas}) == 1 and config
    nlp = load(folder, labels=LABELS, relations=[plain], joint=True)
    component = nlp.get_pipe("gliner")
    prompts = []
    for relation in (plain, described):
        component.relations = [relation]
        prompts.append(component.prepare([nlp.make_doc(TEXT)]).windows[0].prompt.ids)
    assert list(prompts[0]) != list(prompts[1])


@pytest.mark.parametrize(
    ("rules", "mirrored"), [({"symmetric": True}, "knows"), ({"inverse": "known by"}, "known by")]
)
def test_rules_without_a_search_for_entities(rules: dict[str, Any], mirrored: str) -> None:
    """The package returns nothing where a symmetric relation is found, as its own check refuses the other direction."""
    types = {"head": ["person", "date"], "tail": ["person", "date"]}
    given = [{"label": "knows", **types, **rules, "allow_self": False, "threshold": 0.6}]
    if "inverse" in rules:
        given.append({"label": "known by", **types, "threshold": 1.0})
    labels = [{"label": "person", "threshold": 0.3}, {"label": "date", "threshold": 0.3}]
    for joint in (False, True):
        nlp = load(checkpoint(), labels=labels, relations=given, joint=joint)
        found = [set(our_relations(doc)) for doc in nlp.pipe([*TEXTS, TEXT])]
        assert any(found)
        for some in found:
            for name, head, tail in some:
                other = mirrored if name == "knows" else "knows"
                assert (other, tail, head) in some and head != tail


def test_joint_needs_a_finder(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.cfg["joint"] = True
    with pytest.raises(ConfigError, match=r"^\[components\.gliner\.joint\]"):
        nlp("Ada left.")
