"""Relations and records of GLiNER2 checkpoints: those that the package finds, with the same scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from gliner2_parity import (
    CLOSE,
    TEXTS,
    Relations,
    checkpoint,
    gap,
    load,
    load_peer,
    our_records,
    our_relations,
    scores_of,
    their_records,
)
from spacy.tokens import Doc, Span

COUNTERS = ("count_lstm", "count_lstm_v2", "count_lstm_moe")
LABELS = ["person", {"label": "big city", "description": "a town of more than a million"}]
RELATIONS = ["works for", {"label": "born in", "description": "where a person was born"}]
RECORDS = {
    "journey": [
        "who",
        {"field": "places", "list": True, "description": "where to"},
        {"field": "state", "choices": ["planned", "over"]},
        {"field": "Reasons", "choices": ["Work", "study", "over"], "list": True},
    ],
    "purchase": {"fields": [{"field": "things", "list": True}, "price"]},
}
CLASSES = {"tone": ["good", "bad"]}
#: Settings of this project, and the schemas of the package that ask for the same.
TASKS = ("relations", "records", "everything")


def settings_of(kind: str) -> dict[str, Any]:
    every = {"labels": LABELS, "relations": RELATIONS, "records": RECORDS, "classes": CLASSES}
    return {name: every[name] if kind in (name, "everything") else type(every[name])() for name in every}


def schema_of(model: Any, settings: dict[str, Any]) -> Any:
    """Return the package's schema for settings of this project."""

    def described(items: Sequence[Any]) -> dict[str, Any]:
        parsed = [one if isinstance(one, dict) else {"label": one} for one in items]
        return {one["label"]: {k: v for k, v in one.items() if k != "label"} for one in parsed}

    schema = model.create_schema()
    for name, about in settings["records"].items():
        builder = schema.structure(name)
        for field in about["fields"] if isinstance(about, dict) else about:
            given = dict(field) if isinstance(field, dict) else {"field": field}
            builder.field(
                given["field"],
                dtype="list" if given.get("list") else "str",
                choices=given.get("choices"),
                description=given.get("description"),
                threshold=given.get("threshold"),
                validators=[validator(given["pattern"])] if "pattern" in given else None,
            )
    if settings["labels"]:
        schema.entities(described(settings["labels"]))
    if settings["relations"]:
        schema.relations(described(settings["relations"]))
    for task, labels in settings["classes"].items():
        schema.classification(task, labels)
    return schema


def validator(pattern: str) -> Any:
    from gliner2 import RegexValidator

    return RegexValidator(pattern, flags=0)


def theirs(
    model: Any, texts: Sequence[str], settings: dict[str, Any], threshold: float, size: int = 8
) -> list[Any]:
    return model.batch_extract(
        list(texts), schema_of(model, settings), size, threshold, include_confidence=True, include_spans=True
    )


def their_relations(result: Any, settings: dict[str, Any]) -> Relations:
    """Return relations with their scores; those with a description stand under another name (a fault of the package)."""
    found: Relations = {}
    for item in settings["relations"]:
        name = item if isinstance(item, str) else item["label"]
        key = name if isinstance(item, str) or "description" not in item else f"{name}: {item['description']}"
        for one in result.get("relation_extraction", {}).get(key, []):
            head, tail = ((one[side]["start"], one[side]["end"]) for side in ("head", "tail"))
            score = min(one[side]["confidence"] for side in ("head", "tail"))
            found[name, head, tail] = max(score, found.get((name, head, tail), 0.0))
    return found


def agree(docs: Sequence[Doc], results: Sequence[Any], settings: dict[str, Any]) -> tuple[int, int]:
    """Check that relations and records are the same; return their numbers."""
    numbers = [0, 0]
    for doc, result in zip(docs, results, strict=True):
        if settings["relations"]:
            expected = their_relations(result, settings)
            assert our_relations(doc) == pytest.approx(expected, abs=CLOSE)
            numbers[0] += len(expected)
        if settings["records"]:
            expected_records = their_records(result, settings)
            assert our_records(doc) == expected_records
            numbers[1] += len(expected_records)
    return numbers[0], numbers[1]


@pytest.mark.parametrize("tasks", TASKS)
@pytest.mark.parametrize("counter", COUNTERS)
def test_relations_and_records(counter: str, tasks: str) -> None:
    folder, settings = checkpoint(counter), settings_of(tasks)
    model, nlp = load_peer(folder), load(folder, **settings, threshold=0.0)
    component: Any = nlp.get_pipe("gliner")
    scores = scores_of(list(nlp.pipe(TEXTS)))
    for low in (0.1, 0.5):
        component.threshold = threshold = gap(scores, low, low + 0.3)
        docs = list(nlp.pipe(TEXTS))
        numbers = agree(docs, theirs(model, TEXTS, settings, threshold), settings)
        assert low > 0.1 or ((numbers[0] or tasks == "records") and (numbers[1] or tasks == "relations"))
    alone = [nlp(text) for text in TEXTS]
    agree(alone, theirs(model, TEXTS, settings, threshold, 1), settings)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_poolings(pooling: str) -> None:
    folder, settings = checkpoint(pooling=pooling), settings_of("everything")
    nlp = load(folder, **settings, threshold=0.4)
    numbers = agree(list(nlp.pipe(TEXTS)), theirs(load_peer(folder), TEXTS, settings, 0.4), settings)
    assert all(numbers)


def test_thresholds_and_patterns() -> None:
    folder = checkpoint()
    settings = {
        **settings_of("everything"),
        "relations": [{"label": "works for", "threshold": 0.7}, "born in"],
        "records": {
            "journey": [
                {"field": "who", "pattern": "[A-Z].*", "threshold": 0.3},
                {"field": "places", "list": True, "pattern": "[A-Za-z ]+"},
                {"field": "state", "choices": ["planned", "over"], "threshold": 0.2},
            ]
        },
    }
    nlp = load(folder, **settings, threshold=0.45)
    docs, results = list(nlp.pipe(TEXTS)), theirs(load_peer(folder), TEXTS, settings, 0.45)
    assert all(agree(docs, results, settings))
    whos = [one.fields["who"] for doc in docs for one in doc._.records if one.fields["who"]]
    assert whos and all(span.text[0].isupper() for span in whos)


def test_the_threshold_of_a_described_relation_is_obeyed() -> None:
    nlp = load(checkpoint(), relations=RELATIONS, threshold=0.3)
    scores = [one.score for doc in nlp.pipe(TEXTS) for one in doc._.relations if one.label == "born in"]
    limit = sorted(scores)[len(scores) // 2]
    nlp.get_pipe("gliner").relations = [RELATIONS[0], {**RELATIONS[1], "threshold": limit + 1e-4}]
    found = [one.score for doc in nlp.pipe(TEXTS) for one in doc._.relations if one.label == "born in"]
    assert sorted(found) == [score for score in sorted(scores) if score > limit + 1e-4]


def test_the_added_full_stop_is_no_argument() -> None:
    text = TEXTS[0].rstrip(".")
    doc = load(checkpoint(), **settings_of("everything"), threshold=0.0)(text)
    spans = [span for one in doc._.relations for span in (one.head, one.tail)]
    values = [value for one in doc._.records for value in one.fields.values()]
    spans += [
        one
        for value in values
        for one in (value if isinstance(value, list) else [value])
        if isinstance(one, Span)
    ]
    assert spans and all(span.end_char <= len(text) and span.text.strip() for span in spans)
