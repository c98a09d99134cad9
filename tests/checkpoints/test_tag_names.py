"""Every dialect of tag names is parsed as one of our schemes."""

from __future__ import annotations

import pytest

from gliner_pipe.checkpoints.hf_read import read_tags


@pytest.mark.parametrize(
    ("names", "scheme", "labels", "tags"),
    [
        (["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], "bio", ["PER", "LOC"], ["O", "B-PER", "I-PER"]),
        (["B-PER", "I-PER", "O"], "bio", ["PER"], ["B-PER", "I-PER", "O"]),
        (["O", "I-PER", "I-LOC"], "io", ["PER", "LOC"], ["O", "I-PER", "I-LOC"]),
        (["O", "PER", "LOC"], "io", ["PER", "LOC"], ["O", "I-PER", "I-LOC"]),
        (["O", "B-PER", "I-PER", "MISC"], "bio", ["PER", "MISC"], ["O", "B-PER", "I-PER", "I-MISC"]),
        (["O", "B_PER", "I_PER"], "bio", ["PER"], ["O", "B-PER", "I-PER"]),
        (["O", "PER-B", "PER-I"], "bio", ["PER"], ["O", "B-PER", "I-PER"]),
        (["PER_B", "PER_I", "O"], "bio", ["PER"], ["B-PER", "I-PER", "O"]),
        (["B-A", "I-A", "L-A", "U-A", "O"], "bioul", ["A"], ["B-A", "I-A", "L-A", "U-A", "O"]),
        (["O", "S-A", "B-A", "I-A", "E-A"], "bioul", ["A"], ["O", "U-A", "B-A", "I-A", "L-A"]),
        (["O", "B-A", "M-A", "E-A", "S-A"], "bioul", ["A"], ["O", "B-A", "I-A", "L-A", "U-A"]),
        (["O", "B-A-b", "I-A-b"], "bio", ["A-b"], ["O", "B-A-b", "I-A-b"]),
        (["o", "b-a", "i-a"], "bio", ["a"], ["O", "B-a", "I-a"]),
        (["O", "B:A", "I:A"], "bio", ["A"], ["O", "B-A", "I-A"]),
        (["O", "A.B", "A.I", "A.S", "A.E"], "bioul", ["A"], ["O", "B-A", "I-A", "U-A", "L-A"]),
        (["O", "B-A", "M-A", "E-A", "W-A"], "bioul", ["A"], ["O", "B-A", "I-A", "L-A", "U-A"]),
        (["O", "B_A-b_c", "I_A-b_c"], "bio", ["A-b_c"], ["O", "B-A-b_c", "I-A-b_c"]),
        (["O", "B_CELL", "CELL"], "io", ["B_CELL", "CELL"], ["O", "I-B_CELL", "I-CELL"]),
        (
            ["NOUN", "VERB", "-LRB-", "."],
            "word",
            ["NOUN", "VERB", "-LRB-", "."],
            ["NOUN", "VERB", "-LRB-", "."],
        ),
    ],
)
def test_dialects(names: list[str], scheme: str, labels: list[str], tags: list[str]) -> None:
    found = read_tags(names)
    assert found.scheme == scheme and list(found.labels) == labels
    places = {place: tag for tag, place in found.places.items()}
    assert [places[place] for place in range(len(names))][: len(tags)] == tags
    assert sorted(row for row in found.rows(found.scheme) if row is not None) == list(range(len(names)))


def test_tags_that_a_model_lacks() -> None:
    found = read_tags(["B-A", "I-A", "B-B"])
    assert found.rows("bio") == [None, 0, 1, 2, None]


def test_outputs_for_padding_are_not_used() -> None:
    found = read_tags(["<PAD>", "O", "B-A", "I-A", "[CLS]", "X"])
    assert found.places == {"O": 1, "B-A": 2, "I-A": 3} and found.scheme == "bio"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["O"], "no label"),
        (["O", ""], "no label"),
        (["O", "B-A", "B-A"], "has the tag 'B-A' twice"),
        (["O", "O", "A"], "has the tag 'O' twice"),
        (["O", "I-A", "M-A", "E-A"], "look like tags"),
        (["O", "B=A", "I=A"], "look like tags"),
        (["O", "<PAD>"], "no label"),
    ],
)
def test_names_that_are_not_tags(names: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_tags(names)
