"""Tags: schemes, ids, dialects of tag names, and tags decoded to entities."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_pipe.data.files import Place
from gliner_pipe.data.tag_lists import is_tag_list, tag_list, tags_by_id
from gliner_pipe.data.tags import PREFIXES, find_codec, has_prefixes, split_tag_names
from gliner_pipe.errors import ConfigError, DataError

PLACE = Place("a.csv", 4)


def codec_of(*sequences, scheme="auto", report=None, names=()):
    report = Counter() if report is None else report
    tags = [sequence.split() for sequence in sequences]
    return find_codec(scheme, tags, lambda i, j: (Place("a.csv", 4 + i), f"tags[{j}]"), report, names=names)


def decoded(tags, scheme="auto", report=None):
    report = Counter() if report is None else report
    codec = codec_of(tags, scheme=scheme, report=report)
    return codec.entities(tags.split(), report, lambda position: PLACE)


ENTITIES = [(0, 1, "a"), (1, 3, "a"), (4, 7, "b-c")]
WRITTEN = {
    "BIO": "B-a B-a I-a O B-b-c I-b-c I-b-c",
    "IOB1": "I-a B-a I-a O I-b-c I-b-c I-b-c",
    "BIOUL": "U-a B-a L-a O B-b-c I-b-c L-b-c",
    "BIOES": "S-a B-a E-a O B-b-c I-b-c E-b-c",
    "BMES": "S-a B-a E-a O B-b-c M-b-c E-b-c",
}
#: Other forms of prefix and label.
DIALECTS = {
    "B_label": "{prefix}_{label}",
    "B:label": "{prefix}:{label}",
    "B.label": "{prefix}.{label}",
    "B/label": "{prefix}/{label}",
    "label-B": "{label}-{prefix}",
    "label_B": "{label}_{prefix}",
    "label:B": "{label}:{prefix}",
    "label.B": "{label}.{prefix}",
    "label/B": "{label}/{prefix}",
}


def rewritten(tags, form, lower=False):
    """Write tags such as ``B-person`` in another dialect."""
    new = []
    for tag in tags.split():
        prefix, _, label = tag.partition("-")
        new.append(
            (prefix.lower() if lower else prefix)
            if tag == "O"
            else form.format(prefix=prefix.lower() if lower else prefix, label=label)
        )
    return " ".join(new)


@pytest.mark.parametrize("scheme", WRITTEN)
@pytest.mark.parametrize("dialect", ["B-label", *DIALECTS])
@pytest.mark.parametrize("lower", [False, True])
def test_schemes_and_dialects_are_found_and_decoded(scheme, dialect, lower):
    tags = rewritten(WRITTEN[scheme], DIALECTS.get(dialect, "{prefix}-{label}"), lower)
    report = Counter()
    codec = codec_of(tags, report=report)
    assert (codec.scheme, codec.dialect) == (scheme, dialect)
    assert decoded(tags) == ENTITIES
    usual = (scheme, dialect) == ("BIO", "B-label")
    assert list(report.values()) == ([] if usual else [6])  # said once, for the six tags


@pytest.mark.parametrize("letters", ["W-a B-a L-a", "S-a B-a L-a", "U-a B-a E-a", "W-a B-a E-a"])
def test_single_and_last_words_of_any_scheme(letters):
    tags = f"{letters} O B-b-c I-b-c {letters[-3]}-b-c"
    assert decoded(tags) == ENTITIES


@pytest.mark.parametrize("tags", ["I-a O I-b I-b I-a", "a O b b a", "I_a O I_b I_b I_a", "a-I O b-I b-I a-I"])
def test_io(tags):
    assert codec_of(tags).scheme == "IO"
    assert decoded(tags) == [(0, 1, "a"), (2, 4, "b"), (4, 5, "a")]


@pytest.mark.parametrize(
    ("tags", "labels"),
    [
        ("B-work-of-art I-work-of-art B-GPE_LOC", ["work-of-art", "GPE_LOC"]),
        ("B_GPE_LOC I_GPE_LOC B_work-of-art", ["GPE_LOC", "work-of-art"]),
        ("GPE-LOC-B GPE-LOC-I art.work-B", ["GPE-LOC", "art.work"]),
        ("B-B I-B B-I", ["B", "I"]),
        ("B:a:b I:a:b B:c-d", ["a:b", "c-d"]),
        ("vitamin_B vitamin_B vitamin_C", ["vitamin_B", "vitamin_C"]),
        ("work-of-art work-of-art GPE_LOC", ["work-of-art", "GPE_LOC"]),
    ],
)
def test_labels_with_separators(tags, labels):
    assert decoded(f"{tags} O") == [(0, 2, labels[0]), (2, 3, labels[1])]


@pytest.mark.parametrize("tag", ["<PAD>", "<pad>", "[PAD]", "[CLS]", "X", "PAD", "_", "-", "*"])
def test_padding_is_outside_and_counted(tag):
    report = Counter()
    assert decoded(f"{tag} B-a I-a {tag} O", report=report) == [(1, 3, "a")]
    assert list(report.values()) == [2]
    assert tag in next(iter(report))


def test_outside_in_lower_case():
    report = Counter()
    assert decoded("o b-per o i-per", report=report) == [(1, 2, "per"), (3, 4, "per")]
    assert decoded("o b-per o") == [(1, 2, "per")]
    assert decoded("per o loc") == [(0, 1, "per"), (2, 3, "loc")]


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
def test_invalid_tag_sequences_are_repaired_and_counted(tags, scheme, entities, reason):
    report = Counter()
    assert decoded(tags, scheme, report) == entities
    assert report == {reason: 1}


def test_only_outside_tags():
    assert codec_of("O O").scheme == "BIO"
    assert decoded("O O") == []


def test_all_tags_decide_together():
    assert codec_of("I-a I-a", "B-a I-a").scheme == "BIO"
    assert codec_of("I-a I-a", "I-a B-a").scheme == "IOB1"
    assert codec_of("B_a", "B_b I_b").dialect == "B_label"
    assert codec_of("I-a", names=["O", "B-a", "I-a", "S-a", "E-a"]).scheme == "BIOES"
    assert codec_of("X_B O", names=["O", "X_B", "X_C"]).dialect == ""


@pytest.mark.parametrize(
    ("tags", "wrong"),
    [
        ("B-PER X-PER I-PER", ["X-PER"]),
        ("B-PER I-PER B_LOC", ["B_LOC"]),
        ("B-PER I-PER PER-B LOC", ["PER-B", "LOC"]),
        ("B-PER I-PER B", ["B"]),
        ("B-PER B- I-PER", ["B-"]),
        ("B-PER I-PER 0", ["0"]),
        ("BPER IPER O", ["BPER", "IPER"]),
        ("B=PER I=PER O LOC", ["B=PER", "I=PER"]),
        ("e-mail O", ["e-mail"]),
        ("E-mail B-side O", ["E-mail", "B-side"]),
        ("B I O B", ["B", "I"]),
        ("(PER* *) (LOC) *", ["(PER*", "*)", "(LOC)"]),
        ("1 2 0 O 3", ["1", "2", "0"]),
        ("LABEL_0 LABEL_1 LABEL_0", ["LABEL_0", "LABEL_1"]),
        ("0.98 0.7 1", ["0.98", "0.7", "1"]),
    ],
)
def test_what_looks_like_a_tag_and_is_none(tags, wrong, fails):
    """One line has up to three examples with their places, and plain takes them as labels."""
    with fails(DataError, f"a.csv:4 (tags[{tags.split().index(wrong[0])}])") as caught:
        codec_of(tags)
    message = str(caught.value)
    assert all(repr(tag) in message for tag in wrong) and "\n" not in message
    assert message.count("a.csv:4 (tags[") == len(wrong)
    assert {label for _, _, label in decoded(tags, "plain")} == set(tags.split()) - {"O"}


@pytest.mark.parametrize("tag", ["X-PER", "B", "B-", "I_PER", "-PER", "0", "PER"])
def test_invalid_tags_of_bio(tag, fails):
    with fails(DataError, "a.csv:4 (tags[1])"):
        codec_of(f"B-PER {tag}", scheme="BIO")


def test_a_bare_label_is_a_tag_of_io_only(fails):
    assert decoded("creative-work O", "IO") == [(0, 1, "creative-work")]
    for scheme in ("BIO", "BIOES"):
        with fails(DataError, "a.csv:4 (tags[0])"):
            codec_of("creative-work O", scheme=scheme)


@given(st.data(), st.sampled_from(sorted(PREFIXES)))
def test_any_tags_of_a_scheme_decode_to_entities_apart(data, scheme):
    tag = st.one_of(
        st.just("O"),
        st.tuples(st.sampled_from(sorted(PREFIXES[scheme])), st.sampled_from("ab")).map("-".join),
    )
    tags = data.draw(st.lists(tag, max_size=12))
    entities = decoded(" ".join(tags), scheme)
    covered = [i for start, end, _ in entities for i in range(start, end)]
    assert covered == [i for i, tag in enumerate(tags) if tag != "O"]
    assert all(tags[i].endswith(label) for start, end, label in entities for i in range(start, end))


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
    assert decoded(tags) == expected


def test_plain_labels_may_look_like_tags():
    assert decoded("E-mail E-mail O B-side", "plain") == [(0, 2, "E-mail"), (3, 4, "B-side")]


def test_repairs_are_counted():
    report: Counter[str] = Counter()
    assert decoded("O I-PER B-PER O", "BIO", report) == [(1, 2, "PER"), (2, 3, "PER")]
    assert report == {"I- without B- before it (read as the beginning)": 1}


def test_repeated_b_is_counted_in_data_without_i():
    report: Counter[str] = Counter()
    assert decoded("B-PER B-PER O B-ORG", report=report) == [(0, 1, "PER"), (1, 2, "PER"), (3, 4, "ORG")]
    assert list(report.values()) == [1]
    assert "without any I-" in next(iter(report))
    report.clear()
    assert codec_of("B-PER B-PER", "B-PER I-PER", report=report).scheme == "BIO"
    assert not report


def test_a_tag_of_another_scheme(fails):
    with fails(DataError, "a.csv:4 (tags[1])"):
        decoded("B-PER X", "BIO")


@pytest.mark.parametrize(
    ("tags", "are"),
    [
        (["O", "B-a"], True),
        (["O", "a_B", "a_I"], True),
        (["O"], False),
        (["O", "NN"], False),
        (["Ann", "O"], False),
        ([], False),
    ],
)
def test_columns_with_prefixes(tags, are):
    assert has_prefixes(tags) is are


def test_ids():
    names = tags_by_id(["O", "B-PER", "I-PER"])
    assert tag_list(PLACE, "tags", [1, 2, 0, "1"], 4, "tokens", names) == ["B-PER", "I-PER", "O", "B-PER"]
    assert tags_by_id({"0": "O", "7": "B-PER"}) == {0: "O", 7: "B-PER"}
    assert tags_by_id({-100: "O", 0: "B-PER"}) == {-100: "O", 0: "B-PER"}
    assert tags_by_id(None) is None


@pytest.mark.parametrize(
    "label2id",
    [{"O": 0, "B-PER": 1}, {"O": "0", "B-PER": "1"}, {0: "O", 1: "B-PER"}, {"1": "B-PER", "0": "O"}],
)
def test_mappings_in_either_direction(label2id):
    assert tags_by_id(label2id) == {0: "O", 1: "B-PER"}


def test_tags_without_a_label_are_renamed():
    names = tags_by_id({"B": "B-disease", "I": "I-disease"})
    assert tag_list(PLACE, "tags", ["B", "I", "O"], 3, "tokens", names) == ["B-disease", "I-disease", "O"]


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


@pytest.mark.parametrize("names", [[], "O", [1], {"one": "O"}, {True: "O"}, {0: ""}, {"O": 0, "B-a": 0}])
def test_wrong_tag_names(names, fails):
    with fails(ConfigError, "tag_names"):
        tags_by_id(names)


def test_tags_are_distinguished_from_entities():
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


def test_several_tags_of_a_word():
    """One of each label: the entities of one label are never joined to those of another."""
    report = Counter()
    tags = "B-PER|B-ORG I-PER O|B-ORG I-ORG|U-LOC"
    assert decoded("B-PER|B-ORG I-PER B-ORG|I-PER O", report=report) == [
        (0, 1, "ORG"),
        (0, 3, "PER"),
        (2, 3, "ORG"),
    ]
    assert report == {"word with several tags (each is read)": 2}
    assert decoded("S_a|B_b E_b|S_a O") == [(0, 1, "a"), (0, 2, "b"), (1, 2, "a")]
    report.clear()
    assert decoded("B-a|B-a I-a", report=report) == [(0, 2, "a")]
    assert report["second tag of one label on a word (dropped)"] == 1
    assert decoded("B-a|b I-a|b O") == [(0, 2, "a|b")]  # a label with a bar
    with pytest.raises(DataError):
        decoded(tags + " X-x")
