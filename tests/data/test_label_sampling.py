from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gliner_pipe.data.label_sampling import LAST_RESORT, LabelSampling, sample_labels
from gliner_pipe.errors import ConfigError
from gliner_pipe.util.options import checked

LABELS = st.lists(st.sampled_from("abcdefghij"), max_size=6)
EXAMPLE = st.tuples(LABELS, st.none() | LABELS, st.none() | LABELS)
SAMPLINGS = st.builds(
    LabelSampling,
    max_types=st.none() | st.integers(1, 8),
    negative_ratio=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    negatives_from=st.sampled_from(["batch", "labels", "both", "none"]),
    all_labels=st.booleans(),
    shuffle=st.booleans(),
)


def batch(examples):
    gold, supervision = [], []
    for labels, complete, absent in examples:
        gold.append(labels)
        fields = {}
        if complete is not None:
            fields["ner_labels"] = complete
        if absent is not None:
            fields["ner_negatives"] = [label for label in absent if label not in labels]
        supervision.append(fields)
    return gold, supervision


def sample(gold, sampling=None, supervision=None, labels=(), seed=0, report=None):
    supervision = supervision or [{}] * len(gold)
    return sample_labels(gold, supervision, labels, sampling or LabelSampling(), random.Random(seed), report)


@given(st.lists(EXAMPLE, max_size=6), LABELS, SAMPLINGS, st.integers(0, 5))
def test_invariants(examples, label_set, sampling, seed):
    gold, supervision = batch(examples)
    report = Counter()
    chosen = sample_labels(gold, supervision, label_set, sampling, random.Random(seed), report)
    assert chosen == sample_labels(gold, supervision, label_set, sampling, random.Random(seed))
    assert len(chosen) == len(gold)
    for labels, own, stated in zip(chosen, gold, supervision, strict=True):
        assert labels
        assert len(set(labels)) == len(labels)
        if sampling.all_labels:
            complete = set(stated.get("ner_labels", []))
            asked = complete | set(stated.get("ner_negatives", [])) if complete else set(label_set)
            expected = set(own) | (set(label_set) & asked)
            assert set(labels) == (expected or complete or {LAST_RESORT})
            continue
        limit = sampling.max_types or 1000
        assert len(labels) <= limit
        if len(set(own)) <= limit:
            assert set(own) <= set(labels)
        known = [*stated.get("ner_labels", []), *stated.get("ner_negatives", [])]
        if known:
            assert set(labels) <= set(own) | set(known)
            if len(set(own) | set(known)) <= limit:
                assert set(labels) == set(own) | set(known)
    lost = sum(max(0, len(set(own)) - (sampling.max_types or 1000)) for own in gold)
    assert sum(report.values()) == (0 if sampling.all_labels else lost)


@given(st.lists(LABELS, min_size=1, max_size=6), st.integers(0, 50))
def test_negatives_come_from_the_batch_and_keep_the_ratio(gold, seed):
    chosen = sample(gold, LabelSampling(max_types=None, negative_ratio=2.0), seed=seed)
    everything = {label for labels in gold for label in labels}
    for labels, own in zip(chosen, gold, strict=True):
        negatives = set(labels) - set(own)
        assert negatives <= everything or labels == [LAST_RESORT]
        if own:
            assert len(negatives) <= 2 * len(set(own))
        if everything - set(own):
            assert negatives


def test_examples_are_sampled_independently():
    gold = [["a"], ["b"], ["c"], ["d"], ["e"]] * 8
    drawn = sample(gold, LabelSampling(negative_ratio=1))
    assert len({tuple(sorted(set(labels) - set(own))) for labels, own in zip(drawn, gold, strict=True)}) > 3


def test_negatives_from_the_label_set():
    drawn = sample(
        [["a"]], LabelSampling(negatives_from="labels", negative_ratio=50), labels=["a", "x", "y"], seed=3
    )
    assert set(drawn[0]) <= {"a", "x", "y"}
    assert len(drawn[0]) > 1
    both = {label for seed in range(30) for label in sample([["a"], ["b"]], LabelSampling(
        negatives_from="both", negative_ratio=9), labels=["x"], seed=seed)[0]}  # fmt: skip
    assert both == {"a", "b", "x"}


def test_none_and_ratio_0_give_no_negatives():
    for sampling in (LabelSampling(negatives_from="none"), LabelSampling(negative_ratio=0)):
        assert sample([["a"], ["b"]], sampling, labels=["x"]) == [["a"], ["b"]]


def test_examples_without_entities_have_a_candidate():
    sampling = LabelSampling(negative_ratio=1)
    sizes = Counter()
    for seed in range(200):
        _, empty = sample([["a", "b", "c", "d"], []], sampling, seed=seed)
        assert set(empty) <= set("abcd")
        sizes[len(empty)] += 1
    assert set(sizes) == {1, 2, 3, 4}
    assert sample([[]], labels=["x"]) == [["x"]]
    assert sample([[]]) == [[LAST_RESORT]]


def test_ner_labels_and_ner_negatives_are_united():
    supervision = [{"ner_labels": ["a", "b"], "ner_negatives": ["c"]}, {"ner_negatives": ["z"]}, {}]
    chosen = sample([["a"], ["q"], ["r"]], LabelSampling(negative_ratio=50), supervision)
    assert sorted(chosen[0]) == ["a", "b", "c"]
    assert sorted(chosen[1]) == ["q", "z"]
    assert "r" in chosen[2]


def test_positives_beyond_max_types_are_counted():
    report = Counter()
    (labels,) = sample([list("abcde")], LabelSampling(max_types=3), report=report)
    assert len(labels) == 3
    assert report == {"label beyond max_types (not a candidate)": 2}


def test_order():
    fixed = LabelSampling(shuffle=False, all_labels=True)
    assert sample([["b", "new"], []], fixed, labels=["c", "b", "a"]) == [
        ["c", "b", "a", "new"],
        ["c", "b", "a"],
    ]
    first = Counter(sample([["a", "b", "c"]], seed=seed)[0][0] for seed in range(300))
    assert set(first) == set("abc")
    assert min(first.values()) > 50


def test_the_same_in_every_process(capsys):
    # strings have other hashes here and there
    code = (
        "import random; from gliner_pipe.data.label_sampling import LabelSampling, sample_labels;"
        "gold = [[label] for label in 'person city date animal law'.split()];"
        "sampling = LabelSampling(negatives_from='both', negative_ratio=3);"
        "print(sample_labels(gold, [{}] * 5, ['x', 'y'], sampling, random.Random(1)))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           env={"PYTHONHASHSEED": "1", "PATH": ""}).stdout  # fmt: skip
    exec(code)
    assert capsys.readouterr().out == other
    assert "person" in other


@pytest.mark.parametrize(
    "options",
    [{"max_types": 0}, {"negative_ratio": -1}, {"negative_ratio": float("nan")}, {"negatives_from": "world"}],
)
def test_wrong_settings(options, fails):
    with fails(ConfigError, f"label_sampling.{next(iter(options))}"):
        checked(LabelSampling, options, "label_sampling")
