"""Tags: schemes, ids, dialects of tag names, and tags decoded to entities."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_pipe.data.files import Place
from gliner_pipe.data.tags import (
    PREFIXES,
    decode_tags,
    detect_scheme,
    find_scheme,
    is_tag,
    is_tag_list,
    split_tag_names,
    tag_entities,
    tag_list,
    tags_by_id,
)
from gliner_pipe.errors import ConfigError, DataError

ENTITIES = [(0, 1, "a"), (1, 3, "a"), (4, 7, "b-c")]
WRITTEN = {
    "BIO": "B-a B-a I-a O B-b-c I-b-c I-b-c",
    "IOB1": "I-a B-a I-a O I-b-c I-b-c I-b-c",
    "BIOUL": "U-a B-a L-a O B-b-c I-b-c L-b-c",
    "BIOES": "S-a B-a E-a O B-b-c I-b-c E-b-c",
}


@pytest.mark.parametrize("scheme", WRITTEN)
def test_schemes_are_found_and_decoded(scheme):
    tags = WRITTEN[scheme].split()
    report = Counter()
    assert detect_scheme([tags]) == scheme
    assert decode_tags(tags, scheme, report) == ENTITIES
    assert not report


@pytest.mark.parametrize("tags", ["I-a O I-b I-b I-a", "a O b b a"])
def test_io(tags):
    assert detect_scheme([tags.split()]) == "IO"
    assert decode_tags(tags.split(), "IO", Counter()) == [(0, 1, "a"), (2, 4, "b"), (4, 5, "a")]


@pytest.mark.parametrize(
    ("tags", "scheme", "entities", "reason"),
    [
        ("O I-a I-a", "BIO", [(1, 3, "a")], "I- without B- before it (read as the beginning)"),
        ("B-a I-b", "BIO", [(0, 1, "a"), (1, 2, "b")], "I- without B- before it (read as the beginning)"),
        ("L-a O", "BIOUL", [(0, 1, "a")], "L- without B- before it (read as the beginning)"),
        ("B-a O", "BIOES", [(0, 1, "a")], "entity without its last tag L- or E- (closed)"),
        ("B-a U-a", "BIOUL", [(0, 1, "a"), (1, 2, "a")], "entity without its last tag L- or E- (closed)"),
        ("B-a I-a S-b", "BIOES", [(0, 2, "a"), (2, 3, "b")], "entity without its last tag L- or E- (closed)"),
    ],
)
def test_what_a_scheme_does_not_allow_is_read_and_counted(tags, scheme, entities, reason):
    report = Counter()
    assert decode_tags(tags.split(), scheme, report) == entities
    assert report == {reason: 1}


def test_nothing_but_o():
    assert detect_scheme([["O", "O"]]) == "BIO"
    assert decode_tags(["O", "O"], "BIO", Counter()) == []


@pytest.mark.parametrize("tag", ["X-PER", "B", "B-", "b-PER", "", "I_PER", "-", "0"])
def test_no_tags_of_bio(tag):
    assert not is_tag(tag, "BIO")


def test_a_bare_label_is_a_tag_of_io_only():
    assert is_tag("creative-work", "IO")
    assert not is_tag("creative-work", "BIO")
    assert not is_tag("X-PER", "IO")
    assert not is_tag("B", "IO")


@given(st.data(), st.sampled_from(sorted(PREFIXES)))
def test_any_tags_of_a_scheme_decode_to_entities_apart(data, scheme):
    tag = st.one_of(
        st.just("O"),
        st.tuples(st.sampled_from(sorted(PREFIXES[scheme])), st.sampled_from("ab")).map("-".join),
    )
    tags = data.draw(st.lists(tag, max_size=12))
    entities = decode_tags(tags, scheme, Counter())
    covered = [i for start, end, _ in entities for i in range(start, end)]
    assert covered == [i for i, tag in enumerate(tags) if tag != "O"]
    assert all(tags[i].endswith(label) for start, end, label in entities for i in range(start, end))


PLACE = Place("a.csv", 4)


def decoded(tags, scheme="auto", report=None):
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
def test_schemes_of_one_text(tags, expected):
    assert decoded(tags.split()) == expected


def test_plain_labels_may_look_like_tags():
    assert decoded(["E-mail", "E-mail", "O", "B-side"], "plain") == [(0, 2, "E-mail"), (3, 4, "B-side")]


def test_repairs_are_counted():
    report: Counter[str] = Counter()
    assert decoded(["O", "I-PER", "B-PER", "O"], "BIO", report) == [(1, 2, "PER"), (2, 3, "PER")]
    assert report == {"I- without B- before it (read as the beginning)": 1}


def test_b_behind_b_is_counted_where_there_is_no_i_at_all():
    report: Counter[str] = Counter()
    assert decoded(["B-PER", "B-PER", "O", "B-ORG"], report=report) == [
        (0, 1, "PER"),
        (1, 2, "PER"),
        (3, 4, "ORG"),
    ]
    assert list(report.values()) == [1]
    assert "without any I-" in next(iter(report))
    report.clear()
    assert find_scheme("auto", [["B-PER", "B-PER"], ["B-PER", "I-PER"]], report) == "BIO"
    assert not report


def test_a_tag_of_no_scheme(fails):
    with fails(DataError, "a.csv:4 (tags[1])"):
        decoded(["B-PER", "X"], "BIO")


def test_ids():
    names = tags_by_id(["O", "B-PER", "I-PER"])
    assert tag_list(PLACE, "tags", [1, 2, 0, "1"], 4, "tokens", names) == ["B-PER", "I-PER", "O", "B-PER"]
    assert tags_by_id({"0": "O", "7": "B-PER"}) == {0: "O", 7: "B-PER"}
    assert tags_by_id({-100: "O", 0: "B-PER"}) == {-100: "O", 0: "B-PER"}
    assert tags_by_id(None) is None


@pytest.mark.parametrize(
    ("value", "names", "field"),
    [
        ([0, 1], None, "tags[0]"),
        (["0", "1"], None, "tags[0]"),
        ([0, 2], ["O", "B-PER"], "tags[1]"),
        ([0, -1], ["O", "B-PER"], "tags[1]"),
        ([0, -100], None, "tags[0]"),
        (["O"], None, "tags"),
        (["O", None], None, "tags[1]"),
        (["O", True], None, "tags[1]"),
        ([0.0, 1.0], ["O", "B-PER"], "tags[0]"),
        (["O", " "], None, "tags[1]"),
        ("O O", None, "tags"),
    ],
)
def test_wrong_tag_lists(value, names, field, fails):
    with fails(DataError, f"a.csv:4 ({field})"):
        tag_list(PLACE, "tags", value, 2, "tokens", tags_by_id(names))


@pytest.mark.parametrize("names", [[], "O", [1], {"one": "O"}, {True: "O"}, {0: ""}])
def test_wrong_tag_names(names, fails):
    with fails(ConfigError, "tag_names"):
        tags_by_id(names)


def test_tags_and_entities_are_told_apart():
    assert is_tag_list(["O"])
    assert is_tag_list([0, 1])
    assert not is_tag_list([])
    assert not is_tag_list([[0, 0, "person"]])
    assert not is_tag_list(None)


@pytest.mark.parametrize(
    "names",
    [
        ["O", "B-person", "I-person", "E-person", "S-person"],
        ["O", "B_person", "M_person", "E_person", "S_person"],
        ["O", "person-B", "person-I", "person-L", "person-U"],
        ["O", "person_B", "person_M", "person_L", "person_U"],
    ],
)
def test_dialects_of_tag_names(names):
    assert split_tag_names(names) == [None, *((prefix, "person") for prefix in "BILU")]


def test_tag_names_without_a_dialect():
    assert split_tag_names(["O", "person", "B-city"]) == [None, ("I", "person"), ("B", "city")]
    assert split_tag_names(["person", "city"]) == [("W", "person"), ("W", "city")]
