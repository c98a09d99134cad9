"""Tasks of a component beside those of the data."""

from __future__ import annotations

from typing import Any

import pytest
import spacy

from gliner_pipe.data.readers import jsonl
from gliner_pipe.data.task_sets import task_differences

DATA: list[dict[str, Any]] = [
    {
        "text": "The Fox costs $5.",
        "classes": {"tone": "good", "topics": ["trade"]},
        "records": {"sale": [{"name": [4, 7], "price": [14, 16], "state": None}], "order": []},
    },
    {"text": "It rained.", "classes": {"tone": "Bad"}},
]
#: The tasks of the data.
SAME = {"tone": ["good", "Bad"], "topics": ["trade"]}, {"sale": ["name", "price"], "order": []}


def lines(classes: Any, records: Any) -> list[str]:
    return list(task_differences("components.gliner", list(jsonl(DATA)(spacy.blank("en"))), classes, records))


@pytest.mark.parametrize("tasks", [SAME, ({}, {})])
def test_nothing_to_say(tasks: Any) -> None:
    """A component without tasks takes those of the data."""
    assert lines(*tasks) == []


@pytest.mark.parametrize(
    ("classes", "records", "wanted"),
    [
        ({"tone": SAME[0]["tone"]}, SAME[1], ["[components.gliner.classes] lacks a classification", "topics (1)"]),
        ({**SAME[0], "risk": ["low"]}, SAME[1], ["[components.gliner.classes] has a classification", ": risk"]),
        ({**SAME[0], "tone": ["good", "bad"]}, SAME[1], ["[components.gliner.classes.tone] lacks a label", "Bad (1) (like Bad and bad)", "[components.gliner.classes.tone] has a label", ": bad"]),
        (SAME[0], {"sale": ["name", "price"]}, ["[components.gliner.records] lacks a kind of records", "order (1)"]),
        (SAME[0], {**SAME[1], "bill": ["sum"]}, ["[components.gliner.records] has a kind of records", ": bill"]),
        (SAME[0], {**SAME[1], "sale": ["name", "state"]}, ["[components.gliner.records.sale] lacks a field", "not learned", "price (1)", "[components.gliner.records.sale] has a field", ": state"]),
        (None, SAME[1], ["no classifier", "tone (2), topics (1)"]),
        (SAME[0], None, ["no record_finder", "order (1)", "sale (1)"]),
    ],
)  # fmt: skip
def test_differences(classes: Any, records: Any, wanted: list[str]) -> None:
    found = lines(classes, records)
    assert len(found) == max(1, sum(part.startswith("[") for part in wanted))
    for part in wanted:
        assert part in "\n".join(found)
