"""Lists of tags: ids to tags, schemes found over many texts, entities."""

from __future__ import annotations

from collections import Counter

import pytest

from gliner_pipe.data.files import Place
from gliner_pipe.data.tags import find_scheme, is_tag_list, tag_entities, tag_list, tags_by_id
from gliner_pipe.errors import ConfigError, DataError

PLACE = Place("a.csv", 4)


def entities(tags, scheme="auto", report=None):
    report = Counter() if report is None else report
    return tag_entities(PLACE, "tags", tags, find_scheme(scheme, [tags], report), report)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-PER", [(0, 2, "PER"), (3, 4, "PER")]),
        ("B-PER B-PER O I-LOC", [(0, 1, "PER"), (1, 2, "PER"), (3, 4, "LOC")]),
        ("I-PER I-PER O I-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("I-PER B-PER O I-LOC", [(0, 1, "PER"), (1, 2, "PER"), (3, 4, "LOC")]),
        ("B-PER L-PER O U-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("B-PER E-PER O S-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("PER PER O LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("O O O O", []),
    ],
)
def test_schemes(tags, expected):
    assert entities(tags.split()) == expected


def test_plain_labels_may_look_like_tags():
    assert entities(["E-mail", "E-mail", "O", "B-side"], "plain") == [(0, 2, "E-mail"), (3, 4, "B-side")]


def test_repairs_are_counted():
    report: Counter[str] = Counter()
    assert entities(["O", "I-PER", "B-PER", "O"], "BIO", report) == [(1, 2, "PER"), (2, 3, "PER")]
    assert report == {"I- without B- before it (read as the beginning)": 1}


def test_b_behind_b_is_counted_where_there_is_no_i_at_all():
    report: Counter[str] = Counter()
    assert entities(["B-PER", "B-PER", "O", "B-ORG"], report=report) == [
        (0, 1, "PER"),
        (1, 2, "PER"),
        (3, 4, "ORG"),
    ]
    assert list(report.values()) == [1]
    assert "without any I-" in next(iter(report))
    report.clear()
    assert find_scheme("auto", [["B-PER", "B-PER"], ["B-PER", "I-PER"]], report) == "BIO"
    assert not report


def test_a_tag_of_no_scheme():
    with pytest.raises(DataError, match=r"a.csv:4 \(tags\[1\]\) is 'X'; allowed: O, B-label, I-label.*plain"):
        entities(["B-PER", "X"], "BIO")


def test_ids():
    names = tags_by_id(["O", "B-PER", "I-PER"])
    assert tag_list(PLACE, "tags", [1, 2, 0, "1"], 4, "tokens", names) == ["B-PER", "I-PER", "O", "B-PER"]
    assert tags_by_id({"0": "O", "7": "B-PER"}) == {0: "O", 7: "B-PER"}
    assert tags_by_id({-100: "O", 0: "B-PER"}) == {-100: "O", 0: "B-PER"}
    assert tags_by_id(None) is None


@pytest.mark.parametrize(
    ("value", "names", "message"),
    [
        ([0, 1], None, r"tags\[0\]\) is 0, an id whose tag is not known.*tag_names = \["),
        (["0", "1"], None, r"tags\[0\]\) is 0, an id whose tag is not known"),
        ([0, 2], ["O", "B-PER"], r"tags\[1\]\) is 2, an id without a tag; allowed: 0 \(O\), 1 \(B-PER\)"),
        ([0, -1], ["O", "B-PER"], r"tags\[1\]\) is -1, an id without a tag"),
        ([0, -100], None, r"tags\[0\]\) is 0"),
        (["O"], None, r"\(tags\) has 1 tags, tokens has 2 words"),
        (["O", None], None, r"tags\[1\]\) is None; allowed: a tag, or the id of one"),
        (["O", True], None, r"tags\[1\]\) is True"),
        ([0.0, 1.0], ["O", "B-PER"], r"tags\[0\]\) is 0.0 \(float\)"),
        (["O", " "], None, r"tags\[1\]\) is the empty tag"),
        ("O O", None, r"\(tags\) is 'O O'; allowed: a list of tags"),
    ],
)
def test_mistakes(value, names, message):
    with pytest.raises(DataError, match=message):
        tag_list(PLACE, "tags", value, 2, "tokens", tags_by_id(names))


@pytest.mark.parametrize("names", [[], "O", [1], {"one": "O"}, {True: "O"}, {0: ""}])
def test_wrong_tag_names(names):
    with pytest.raises(ConfigError, match=r"\[tag_names\]"):
        tags_by_id(names)


def test_tags_and_entities_are_told_apart():
    assert is_tag_list(["O"])
    assert is_tag_list([0, 1])
    assert not is_tag_list([])
    assert not is_tag_list([[0, 0, "person"]])
    assert not is_tag_list(None)
