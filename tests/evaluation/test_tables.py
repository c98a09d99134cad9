"""Tables of numbers in consoles of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from gliner_pipe.evaluation.report import confusion_table, score_text
from gliner_pipe.evaluation.tables import NumberTable

NAMES = ["exact", "overlap", "token", "a scorer of a long name"]
LABELS = ["person", "work of art", "a label that has so many words that no column is wide enough for it"]


def table() -> NumberTable:
    made = NumberTable("Title", "label", ["gold", *(f"{name}\n{part}" for name in NAMES for part in "PRF")])
    for number, label in enumerate(LABELS, 1):
        made.add_row(label, str(number), *(f"{number}{place:02}.5" for place in range(12)))
    return made


def shown(made: NumberTable, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(made)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_number_is_cut_at_any_width(width: int) -> None:
    lines = shown(table(), width)
    assert max(map(len, lines)) <= width and not any("…" in line for line in lines)
    words = [word for line in lines for word in line.split()]
    for number in range(1, 4):
        assert [word for word in words if word.startswith(str(number)) and word.endswith(".5")] == [
            f"{number}{place:02}.5" for place in range(12)
        ]
    parts = sum(line.split()[:1] == ["label"] for line in lines)
    assert parts == {60: 3, 80: 2, 100: 2, 200: 1}[width]
    assert [word for word in words if word in "PRF"] == [*"PRF"] * 4


def test_labels_break_between_words() -> None:
    lines = shown(table(), 80)
    assert any(line.startswith("a label that has so many") for line in lines)
    assert not any("wor\n" in line for line in lines)


def test_a_matrix_of_many_labels() -> None:
    labels = [f"label {number}" for number in range(30)]
    matrix = {gold: dict.fromkeys(labels, 7) for gold in labels}
    lines = shown(confusion_table({"matrix": matrix, "near": {}}), 80)
    assert max(map(len, lines)) <= 80
    assert sum(word == "7" for line in lines for word in line.split() if "label" in line) >= 900


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ner.micro.f", 0.8251, "82.5"),
        ("val_loss", 0.5, "0.5"),
        ("x.count", 1, "1"),
        ("x", 12.5, "12.5"),
        ("x", None, "undefined"),
    ],
)
def test_scores_are_in_percent_and_other_numbers_are_not(
    name: str, value: float | None, expected: str
) -> None:
    assert score_text(name, value) == expected
