"""Rules between classes of GLiNER2 checkpoints, beside the `Classifier` of the `gliner2` package."""

from __future__ import annotations

from typing import Any

import pytest
from gliner2_parity import CLOSE, TEXTS, boundary_checkpoint, checkpoint, load, load_peer

peer = pytest.importorskip("gliner2.classification")

INTENTS, EFFECTS, LEVELS = (
    ["read", "write", "delete"],
    ["none", "create", "modify", "remove"],
    ["low", "mid", "high"],
)
CLASSES = {
    "intent": INTENTS,
    "effects": {
        "labels": EFFECTS,
        "multi_label": True,
        "min_labels": 0,
        "threshold": 0.6,
        "temperature": 1.5,
    },
    "risk": {"labels": LEVELS, "ordinal": True},
    "topics": {
        "labels": ["work", "sports", "other"],
        "multi_label": True,
        "default": "other",
        "max_labels": 2,
    },
}
C = peer.constraints
RULES: list[tuple[Any, Any]] = [
    ({"implies": ["intent=delete", "effects=remove"]}, C.implies(("intent", "delete"), ("effects", "remove"))),
    ({"implies": ["intent=read", {"not": "effects=modify"}]}, C.implies(("intent", "read"), C.not_(("effects", "modify")))),
    ({"iff": ["intent=write", {"min_level": "risk=mid"}]}, C.iff(("intent", "write"), C.min_level("risk", "mid"))),
    ({"excludes": ["effects=none", "effects=create"]}, C.excludes(("effects", "none"), ("effects", "create"))),
    ({"implies": ["risk=low", {"at_most": ["effects", 1]}]}, C.implies(("risk", "low"), C.at_most("effects", 1))),
    ({"at_least": ["effects", 2]}, C.at_least("effects", 2)),
    ({"exactly_one_of": ["effects=remove", "topics=work"]}, C.exactly_one_of(("effects", "remove"), ("topics", "work"))),
    ({"implies": ["topics=other", {"max_level": "risk=low"}]}, C.implies(C.is_default("topics"), C.max_level("risk", "low"))),
    ({"any_of": [{"not": "intent=read"}, {"any_selected": "effects"}]}, C.any_of(C.not_(("intent", "read")), C.any_selected("effects"))),
]  # fmt: skip


def their_schema(rules: list[Any]) -> Any:
    return (
        peer.ClassificationSchema()
        .single("intent", INTENTS)
        .multi("effects", EFFECTS, threshold=0.6, temperature=1.5)
        .ordinal("risk", LEVELS)
        .multi("topics", ["work", "sports", "other"], default="other", max_labels=2)
        .constrain(*rules)
    )


@pytest.mark.parametrize("make", [checkpoint, boundary_checkpoint])
def test_choices_and_scores(make: Any) -> None:
    """The package drops labels below a candidate threshold of 0.5 before it searches; without it both are exact."""
    folder = make()
    classifier, nlp = peer.Classifier(load_peer(folder)), load(folder, classes=CLASSES)
    component = nlp.get_pipe("gliner")
    config = peer.ClassificationConfig(candidate_threshold=0.0)
    for rules in ([], RULES[:1], RULES[:3], RULES[3:6], RULES[6:8], RULES[2:5], RULES[8:], RULES[1:9:2]):
        component.class_rules = [ours for ours, _ in rules]
        schema = their_schema([theirs for _, theirs in rules])
        wanted = classifier.batch_classify(TEXTS, schema, config=config)
        for docs in (list(nlp.pipe(TEXTS)), list(map(nlp, TEXTS))):
            for doc, result in zip(docs, wanted, strict=True):
                assert result.feasible
                found = {
                    name: tuple(value) if isinstance(value, list) else (value,)
                    for name, value in doc._.classes.items()
                }
                assert found == {name: result.selected(name) for name in CLASSES}
                scores = {f"{name}={label}": score for name in CLASSES for label, score in result.probabilities(name).items()}  # fmt: skip
                assert doc.cats == pytest.approx(scores, abs=CLOSE)


def test_labels_below_the_threshold_of_candidates_take_part() -> None:
    """By default the package may miss the best choice: what rules forbid can cost it the better label of two."""
    nlp = load(checkpoint(), classes={"intent": INTENTS, "effects": {**CLASSES["effects"], "threshold": 0.5}})
    schema = peer.ClassificationSchema().single("intent", INTENTS).multi("effects", EFFECTS, temperature=1.5)
    logits = {"intent": {"read": 0.1, "write": -0.1, "delete": -9.0}, "effects": dict.fromkeys(EFFECTS, -9.0)}
    logits["effects"]["modify"] = 4.0
    schema.constrain(C.excludes(("intent", "read"), ("effects", "modify")))
    classifier = peer.Classifier(load_peer(checkpoint()))
    compiled = classifier.compile_schema(schema)
    specs = {spec.name: spec for spec in compiled.task_specs}
    scores = peer.ClassificationScores("", logits, compiled.fingerprint, specs)
    theirs = classifier.decode(scores, schema)
    assert (theirs.value("intent"), theirs.value("effects")) == ("read", ())
    component = nlp.get_pipe("gliner")
    component.class_rules = [{"excludes": ["intent=read", "effects=modify"]}]
    choice = component.choice_of(component.class_items)
    import numpy as np

    values = np.array([[*logits["intent"].values(), 0.0], list(logits["effects"].values())])
    assert choice(values) == ["write", ["modify"]]
