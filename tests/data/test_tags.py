from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_pipe.data.tags import PREFIXES, decode_tags, detect_scheme, is_tag

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
