from __future__ import annotations

import pytest
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.checks import check_examples
from gliner_pipe.data.label_sets import label_doubts
from gliner_pipe.errors import DataError


def test_counts_and_reasons(example):
    words = "a b c d e f g h i j"
    examples = [
        example(
            words,
            [(0, 1, "x"), (0, 3, "y"), (4, 5, "x"), (4, 5, "z"), (9, 10, "x"), (5, 9, "y")],
            relations=[[0, 1, "r"]],
        ),
        example("a b"),
    ]
    report = check_examples(examples, max_width=3, labels=["x", "y"], flat_ner=True, max_length=9)
    assert (report.examples, report.words, report.longest, report.without_entities) == (2, 12, 10, 1)
    assert report.relations == 1
    assert report.entities == {"x": 3, "y": 2, "z": 1}
    assert report.dropped == {
        "with a label that is not in labels": 1,
        "beyond the first 9 words": 1,
        "wider than 3 words (max_width)": 1,
        "overlapping a longer entity (flat_ner)": 1,
    }
    assert report.render() == (
        "2 examples (1 without entities), 12 words (the longest has 10), 6 entities of 3 labels, "
        "1 relation\n"
        "  x  3\n"
        "  y  2\n"
        "  z  1\n"
        "not usable: 4 entities\n"
        "  1 with a label that is not in labels\n"
        "  1 beyond the first 9 words\n"
        "  1 wider than 3 words (max_width)\n"
        "  1 overlapping a longer entity (flat_ner)"
    )


def test_nothing_is_dropped_without_limits(example):
    report = check_examples([example("a b c", [(0, 3, "x"), (1, 2, "y")])], flat_ner=False)
    assert not report.dropped
    assert "not usable" not in report.render()


@pytest.mark.parametrize(
    ("spans", "overlapping"),
    [
        ([(0, 3), (2, 5), (4, 7)], 1),
        ([(0, 5), (1, 2), (3, 4)], 2),
        ([(0, 1), (0, 1)], 1),
        ([(0, 2), (2, 4)], 0),
        ([(0, 2), (1, 6), (5, 7)], 2),
    ],
)
def test_flat_ner(example, spans, overlapping):
    entities = [(start, end, f"l{i}") for i, (start, end) in enumerate(spans)]
    report = check_examples([example("a b c d e f g h", [*entities, (7, 8, "ok")])])
    assert report.dropped["overlapping a longer entity (flat_ner)"] == overlapping


def test_gold_spans_that_do_not_align_with_the_predicted_tokens(nlp):
    gold = Doc(nlp.vocab, words=["New", "York-based", "Ann"])
    gold.spans["gliner"] = [
        Span(gold, 0, 1, label="x"),
        Span(gold, 1, 2, label="y"),
        Span(gold, 2, 3, label="z"),
    ]
    same_text = Doc(nlp.vocab, words=["New", "York", "-based", "Ann"], spaces=[True, False, True, True])
    assert same_text.text == gold.text
    assert not check_examples([Example(same_text, gold)]).dropped
    gold.spans["gliner"].append(Span(gold, 0, 3, label="w"))
    joined = Doc(nlp.vocab, words=["NewYork-based", "Ann"])
    report = check_examples([Example(joined, gold)], flat_ner=False)
    assert report.dropped == {"not aligned with token boundaries": 2}


def test_many_labels_are_abbreviated(example):
    words = [f"w{i}" for i in range(30)]
    text = check_examples([example(words, [(i, i + 1, f"label {i:02}") for i in range(30)])]).render()
    assert text.endswith("  label 19  1\n  and 10 more labels")
    assert len(text.splitlines()) == 22


def test_examples_that_cannot_be_learned(example, fails):
    with fails(DataError, "data"):
        check_examples([])
    with fails(DataError, "data"):
        check_examples([example("a b"), example("c")])
    with fails(DataError, "data"):
        check_examples([example("a b", [(0, 2, "x")])], max_width=1)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"person": 3, "Person": 2}, ["labels that may be the same: person (3), Person (2)"]),
        (
            {"work of art": 3, "work_of_art": 2},
            ["labels that may be the same: work of art (3), work_of_art (2)"],
        ),
        ({"location": 3, "loacation": 2}, ["labels that may be the same: location (3), loacation (2)"]),
        ({"stage 1 disease": 3, "stage 2 disease": 2, "city": 4, "country": 4}, []),
        (
            {"7": 2, "B-PER": 3},
            ["labels that look like numbers: 7 (2)", "labels that look like tags: B-PER (3)"],
        ),
        ({"person": 3, "city": 1}, ["labels that occur once: city"]),
    ],
)
def test_suspicious_labels(labels, expected):
    assert list(label_doubts(labels)) == expected
