"""Rules between classes, numbers of labels, defaults and temperatures."""

from __future__ import annotations

import random
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from conftest import gliner_config

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.gliner.class_choice import MOST_COMBINATIONS, VIOLATED, ClassChoice, utilities
from gliner_pipe.pipeline.gliner.class_rules import parse_rules
from gliner_pipe.pipeline.gliner.classification import classified
from gliner_pipe.pipeline.gliner.task_settings import parse_classes

CLASSES = {
    "intent": ["read", "write", "delete"],
    "effects": {"labels": ["none", "create", "modify", "remove"], "multi_label": True, "min_labels": 0},
    "risk": {"labels": ["low", "middle", "high"], "ordinal": True},
    "tags": {"labels": ["x", "y", "z"], "multi_label": True, "default": "z", "threshold": 0.4},
    "mood": {"labels": ["good", "bad"], "threshold": 0.6, "temperature": 2.0},
}
ITEMS = parse_classes(CLASSES, "x")
#: Each rule beside what it says of the chosen labels.
RULES: list[tuple[Any, Any]] = [
    ({"implies": ["intent=delete", "effects=remove"]}, lambda c: "delete" not in c[0] or "remove" in c[1]),
    ({"iff": ["intent=write", "risk=middle"]}, lambda c: ("write" in c[0]) == ("middle" in c[2])),
    ({"excludes": ["effects=none", "effects=modify"]}, lambda c: not {"none", "modify"} <= c[1]),
    (
        {"exactly_one_of": ["intent=read", "effects=create", "tags=x"]},
        lambda c: ("read" in c[0]) + ("create" in c[1]) + ("x" in c[3]) == 1,
    ),
    ({"any_of": ["mood=good", {"not": "risk=high"}]}, lambda c: "good" in c[4] or "high" not in c[2]),
    (
        {"all_of": [{"not": "tags=y"}, {"not": "intent=read"}]},
        lambda c: not c[3] & {"y"} and "read" not in c[0],
    ),
    ({"at_least": ["effects", 2]}, lambda c: len(c[1]) >= 2),
    ({"at_most": ["effects", 1]}, lambda c: len(c[1]) <= 1),
    ({"implies": ["risk=low", {"exactly": ["effects", 0]}]}, lambda c: "low" not in c[2] or not c[1]),
    ({"min_level": "risk=middle"}, lambda c: "low" not in c[2]),
    (
        {"implies": ["intent=read", {"max_level": "risk=middle"}]},
        lambda c: not ("read" in c[0] and "high" in c[2]),
    ),
    ({"iff": [{"any_selected": "mood"}, "tags=z"]}, lambda c: bool(c[4]) == ("z" in c[3])),
]


def allowed(item: Any) -> list[set[str]]:
    """All sets of labels that the settings of a task allow."""
    sizes = range(2) if not item.multi_label else range(len(item.names) + 1)
    some = [set(one) for size in sizes for one in combinations(item.names, size)]
    if item.name == "tags":
        return [one for one in some if one and ("z" not in one or len(one) == 1)]
    least = {"effects": 0, "mood": 0}.get(item.name, 1)
    return [one for one in some if len(one) >= least]


@pytest.mark.parametrize("seed", range(12))
def test_the_best_choice_that_obeys_the_rules(seed: int) -> None:
    rng = random.Random(seed)
    chosen = rng.sample(RULES, rng.choice([1, 2, 3, 4]))
    rules = parse_rules([rule for rule, _ in chosen], ITEMS, "x", all_names=True)
    choice = ClassChoice(ITEMS, rules, "x")
    possible = [one for one in product(*map(allowed, ITEMS)) if all(check(one) for _, check in chosen)]
    assert bool(possible) == (choice.violated == 0)
    if not possible:
        return
    for _ in range(3):
        logits = np.random.default_rng(rng.randrange(1000)).normal(0, 2, (len(ITEMS), 5))
        value = [
            dict(zip(item.names, utilities(item, row[: len(item.names)]), strict=True))
            for item, row in zip(ITEMS, logits, strict=True)
        ]
        wanted = max(
            possible,
            key=lambda one: sum(of[label] for of, some in zip(value, one, strict=True) for label in some),
        )
        found = choice(logits)
        assert [set(one or []) if isinstance(one, list) else {one} - {None} for one in found] == list(wanted)
        assert [isinstance(one, list) for one in found] == [item.multi_label for item in ITEMS]


def test_labels_that_no_rule_names_follow_their_scores() -> None:
    names = [f"l{number}" for number in range(40)]
    limited = {"labels": names, "multi_label": True, "min_labels": 2, "max_labels": 3}
    items = parse_classes({"many": limited, "one": ["a", "b"]}, "x")
    rules = parse_rules([{"implies": ["one=a", "many=l7"]}], items, "x", all_names=True)
    choice = ClassChoice(items, rules, "x")
    logits = np.full((2, 40), -3.0)
    logits[1, 0] = 2
    assert choice(logits)[0] == ["l0", "l7"]  # l7 by the rule, and one more
    logits[0, [1, 2, 5, 9]] = [1, 2, 3, 4]
    assert choice(logits)[0] == ["l5", "l7", "l9"]
    logits[1, :2] = [0, 9]
    assert choice(logits) == [["l2", "l5", "l9"], "b"]


def test_without_rules_the_choice_is_that_of_the_scores() -> None:
    items = parse_classes(
        {
            "a": {"labels": ["x", "y", "z"], "multi_label": True, "threshold": 0.3, "max_labels": 3},
            "b": {"labels": ["x", "y"], "threshold": 0.7},
            "c": {"labels": ["x", "y"], "threshold": 0.7, "default": "y"},
        },
        "x",
    )
    choice = ClassChoice(items, [], "x")
    for seed in range(20):
        logits = np.random.default_rng(seed).normal(0, 1, (3, 3))
        assert choice(logits) == [classified(*pair).chosen for pair in zip(items, logits, strict=True)]


def test_a_temperature_changes_scores() -> None:
    (mood,) = parse_classes({"mood": CLASSES["mood"]}, "x")
    one = classified(mood, np.array([2.0, 0.0]))
    assert one.scores["good"] == pytest.approx(1 / (1 + np.exp(-1)))
    assert one.chosen == "good"
    assert classified(mood, np.array([0.5, 0.0])).chosen is None


DEEP: dict[str, Any] = {}
DEEP["not"] = DEEP


@pytest.mark.parametrize(
    ("rule", "where"),
    [
        ("intent=read", ""),
        ({}, ""),
        ({"if": ["intent=read", "risk=low"]}, ""),
        ({"implies": ["intent=read"]}, r"\.implies"),
        ({"implies": ["intent=read", 3]}, r"\.implies\[1\]"),
        ({"any_of": []}, r"\.any_of"),
        ({"not": "intent=open"}, r"\.not"),
        ({"not": "aim=read"}, r"\.not"),
        ({"not": "read"}, r"\.not"),
        ({"at_least": ["effects"]}, r"\.at_least"),
        ({"at_most": ["effects", 5]}, r"\.at_most"),
        ({"at_most": ["effects", True]}, r"\.at_most"),
        ({"any_selected": "aim"}, r"\.any_selected"),
        ({"any_selected": ["intent"]}, r"\.any_selected"),
        ({"at_most": [{}, 2]}, r"\.at_most"),
        (DEEP, r"(\.not)+"),
        ({"min_level": "intent=read"}, r"\.min_level"),
        ({"iff": ["intent=read", {"max_level": "risk=none"}]}, r"\.iff\[1\]\.max_level"),
    ],
)
def test_errors_of_rules(rule: Any, where: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\[x\[1\]{where}\]"):
        parse_rules([{"not": "intent=read"}, rule], ITEMS, "x", all_names=True)


def test_names_with_equals_signs() -> None:
    items = parse_classes([{"task": "a", "labels": ["b=c", "d"]}, {"task": "a=b", "labels": ["c", "e"]}], "x")
    rules = parse_rules([{"not": "a=b=e"}, {"not": "a=d"}], items, "x", all_names=True)
    assert ClassChoice(items, rules, "x")(np.array([[0.0, 9.0], [0.0, 9.0]])) == ["b=c", "c"]


def test_too_many_labels_together() -> None:
    names = [str(number) for number in range(30)]
    items = parse_classes({"a": {"labels": names, "multi_label": True}}, "x")
    rules = parse_rules([{"at_least": ["a", 2]}], items, "x", all_names=True)
    assert MOST_COMBINATIONS < 2**30
    with pytest.raises(ConfigError, match=r"^\[x\]"):
        ClassChoice(items, rules, "x")


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"min_labels": 1}, "min_labels"),
        ({"multi_label": True, "min_labels": 4}, "min_labels"),
        ({"multi_label": True, "min_labels": 2, "default": "a"}, "min_labels"),
        ({"multi_label": True, "max_labels": 0}, "max_labels"),
        ({"multi_label": True, "min_labels": 2, "max_labels": 1}, "max_labels"),
        ({"default": "a"}, "default"),
        ({"threshold": 0.4, "default": "d"}, "default"),
        ({"multi_label": True, "ordinal": True}, "ordinal"),
        ({"ordinal": 1}, "ordinal"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": 1e-320}, "temperature"),
    ],
)
def test_errors_of_settings(settings: Any, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"^\[x\.t\.{option}\]"):
        parse_classes({"t": {"labels": ["a", "b", "c"], **settings}}, "x")


def test_config_form() -> None:
    assert {item.name: item.to_config() for item in ITEMS} == CLASSES


@pytest.fixture(scope="module")
def config(backbone: Any) -> dict[str, Any]:
    """A ``uni_encoder`` that reads classes."""
    config = gliner_config(backbone, labels=["person"], classes=CLASSES)
    config["model"]["encoder"]["class_token"] = "<<CLASS>>"
    config["model"]["classifier"] = {"@classifiers": "label_mlp"}
    return config


def test_a_component_obeys_its_rules(config: dict[str, Any], tmp_path: Any) -> None:
    import spacy

    nlp = spacy.blank("en")
    rules = [
        {"not": "intent=read"},
        {"implies": ["intent=write", "effects=modify"]},
        {"not": "intent=delete"},
    ]
    component = nlp.add_pipe("gliner", config={**config, "class_rules": rules[:2]})
    nlp.initialize()
    free = nlp.make_doc("Ada came.")
    free._.gliner_classes = {"intent": CLASSES["intent"]}
    texts = ["Ada came.", "It rained in Lima for days.", "No."]
    docs = list(nlp.pipe([*texts, free]))
    for doc in docs:
        assert doc._.classes["intent"] != "read"
    for doc in docs[:3]:
        assert doc._.classes["intent"] == "delete" or "modify" in doc._.classes["effects"]
    component.class_rules = [rules[0], rules[2], *rules[1:2]]
    assert all(doc._.classes["intent"] == "write" for doc in nlp.pipe(texts))
    assert all("modify" in doc._.classes["effects"] for doc in nlp.pipe(texts))
    nlp.to_disk(tmp_path / "saved")
    loaded = spacy.load(tmp_path / "saved")
    assert loaded.get_pipe("gliner").class_rules == component.class_rules
    assert [doc._.classes for doc in loaded.pipe(texts)] == [doc._.classes for doc in nlp.pipe(texts)]
    # a document without a task is free of its rules; one whose labels contradict the rules violates as few as possible
    assert VIOLATED not in component.report
    own = nlp.make_doc("No.")
    own._.gliner_classes = {"intent": {"labels": ["read", "delete"], "description": "purpose"}}
    component.class_rules = [
        rules[0],
        {"not": "intent=delete"},
        {"implies": ["intent=delete", "intent=write"]},
    ]
    assert nlp(own)._.classes["intent"] in ("read", "delete")
    assert component.report[VIOLATED] == 1


@pytest.mark.parametrize(
    ("rules", "where"),
    [
        ([{"not": "intent=open"}], r"class_rules\[0\]\.not"),
        ([{"not": "aim=read"}], r"class_rules\[0\]\.not"),
        ([{"all_of": ["intent=read", "intent=write"]}], "class_rules"),
        ("intent=read", "class_rules"),
        (None, "class_rules"),
        (5, "class_rules"),
    ],
)
def test_errors_of_a_component(config: dict[str, Any], rules: Any, where: str) -> None:
    import spacy

    with pytest.raises(ConfigError, match=rf"^\[components\.gliner\.{where}\]"):
        spacy.blank("en").add_pipe("gliner", config={**config, "class_rules": rules})
    component: Any = spacy.blank("en").add_pipe("gliner", config=config)
    before = component.class_rules
    with pytest.raises(ConfigError, match=rf"^\[components\.gliner\.{where}\]"):
        component.class_rules = rules
    assert component.class_rules == before
    if rules and isinstance(rules, list):
        component.classes = {}
        component.class_rules = rules if "not" in rules[0] else []  # of tasks to come
    with pytest.raises(ConfigError, match=r"^\[components\.gliner\.class_rules\[0\]\]"):
        component.class_rules = [5]
