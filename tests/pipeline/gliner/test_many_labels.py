"""Label sets of thousands: what does not change from one document to the next is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
from allocations import Allocations
from conftest import gliner_config

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.gliner.label_parser import MANY, LabelParser
from gliner_pipe.pipeline.labels import parse_labels

NAMES = [f"label {number}" for number in range(2 * MANY)]
TOWN = {"label": "town", "description": "a small city", "threshold": 0.25, "pattern": "[A-Z].*"}


@pytest.mark.parametrize(
    "label_sets",
    [
        [NAMES, NAMES, list(NAMES)],
        [NAMES, [*NAMES, "one more"], [*NAMES, "another"], NAMES[:-1], NAMES[:3], NAMES],
        [NAMES, [*NAMES, NAMES[0], "one more", "one more"], [*NAMES, "one more"]],
        [[*NAMES, TOWN], [*NAMES, "town"], [*NAMES, TOWN, "one more"], [TOWN, *NAMES], ["town", *NAMES]],
        [
            [*NAMES[:5], TOWN, *NAMES[5:]],
            [*NAMES[:5], "town", *NAMES[5:]],
            [*NAMES[:5], TOWN, *NAMES[5:], TOWN],
        ],
        [NAMES, [*NAMES, {"label": "label 3", "threshold": 0.5}], [*NAMES, *(f"{n}" for n in range(50))]],
        [tuple(NAMES), (name for name in NAMES), NAMES[::-1], NAMES],
    ],
)
def test_parsed_as_if_alone(label_sets: list[Any]) -> None:
    parser = LabelParser()
    for labels in label_sets:
        labels = list(labels)
        items = parser.parse(labels, "labels")
        assert items == parse_labels(labels, "labels")
        parsed = parser.of(items)
        assert parsed.items == items and parsed.texts == tuple(item.text for item in items)
        limits = [0.75 if item.threshold is None else item.threshold for item in items]
        assert parsed.limits(0.75).tolist() == limits
        assert set(parsed.patterns) == {item.label for item in items if item.pattern}


def test_the_place_of_a_wrong_label_is_named() -> None:
    parser = LabelParser()
    parser.parse(NAMES, "labels")
    with pytest.raises(ConfigError) as raised:
        parser.parse([*NAMES, " "], "labels")
    assert raised.value.where == f"labels[{len(NAMES)}]"


def test_a_new_label_beside_many_takes_no_more_memory_than_beside_few(backbone: Path) -> None:
    nlp = spacy.blank("en")
    config = gliner_config(backbone, threshold=0.6)
    config["model"]["encoder"] |= {"@encoders": "bi_encoder", "label_model": str(backbone)}
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    new = iter(range(100))

    def memory(known: list[str], more: int) -> int:
        numbers = []
        for _ in range(3):  # the first ones make room
            doc = nlp.make_doc("Maria met Bob in Lima")
            doc._.gliner_labels = [*known, f"new {next(new)}"] if more else known
            with Allocations() as allocated:
                nlp.get_pipe("gliner")(doc)
            numbers.append(allocated.numbers)
        return numbers[-1]

    cost = []
    for number in (1000, 3000):
        known = [f"label {one}" for one in range(number)]
        memory(known, 1)
        cost.append(memory(known, 1) - memory(known, 0))
    hidden = nlp.get_pipe("gliner").network.encoder.output_size
    assert abs(cost[1] - cost[0]) < 100 * hidden
