from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from confit import Config
from confit.errors import ConfitValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import classification_report, sequence_labeling, v1
from seqeval.scheme import BILOU, IOB2, IOBES, IOE2
from spacy.tokens import Doc, Span, SpanGroup
from spacy.training import Example
from spacy.vocab import Vocab

from gliner_pipe.errors import DataError
from gliner_pipe.metrics.seqeval import SCHEMES, SeqevalScorer, from_tags, resolve, score_tags, to_tags
from gliner_pipe.metrics.spans import ExactScorer
from gliner_pipe.registry import registry

VOCAB = Vocab()
THEIRS = {"IOB2": IOB2, "IOE2": IOE2, "IOBES": IOBES, "BILOU": BILOU}
WORDS = [f"w{i}" for i in range(10)]


def make_doc(mentions: Any, scores: Any = None) -> Doc:
    doc = Doc(VOCAB, words=WORDS)
    spans = [Span(doc, start, end, label=label) for label, start, end in mentions]
    doc.spans["gliner"] = SpanGroup(doc, name="gliner", spans=spans)
    if scores is not None:
        doc.spans["gliner"].attrs["scores"] = np.array(scores, dtype=np.float32)
    return doc


def tags_of(scheme: str) -> st.SearchStrategy[list[str]]:
    prefixes = sorted(set(SCHEMES[scheme]))
    tag = st.one_of(st.just("O"), st.tuples(st.sampled_from(prefixes), st.sampled_from("ab")).map("-".join))
    return st.lists(tag, min_size=1, max_size=8)


def paired(scheme: str) -> Any:
    """Documents with equal numbers of gold and predicted tags."""
    both = st.tuples(tags_of(scheme), tags_of(scheme)).map(
        lambda pair: tuple(one[: min(map(len, pair))] for one in pair)
    )
    return st.lists(both, min_size=1, max_size=4)


def check(ours: dict[str, Any], averages: Any, per_class: Any, accuracy: float) -> None:
    """Compare with the result of the package, which has 0 where there is nothing to measure."""
    for name, expected in averages.items():
        found = [ours[name][key] or 0.0 for key in "prf"]
        assert found == pytest.approx(list(expected[:3])), name
    rows = ours["per_class"].values()
    assert np.array([[row[key] for key in "prf"] for row in rows]).reshape(-1, 3) == pytest.approx(
        per_class[:3].T
    )
    assert [row["support"] for row in rows] == list(per_class[3])
    assert ours["accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("scheme", THEIRS)
@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_strict_agrees_with_the_package_on_any_tags(scheme: Any, data: Any) -> None:
    gold, predicted = (list(side) for side in zip(*data.draw(paired(scheme)), strict=True))
    options = {"scheme": THEIRS[scheme], "zero_division": 0}

    def theirs(average: Any) -> Any:
        return v1.precision_recall_fscore_support(gold, predicted, average=average, **options)

    ours = score_tags(gold, predicted, scheme=scheme)
    names = ("micro", "macro", "weighted") if ours["per_class"] else ("micro",)
    accuracy = sequence_labeling.accuracy_score(gold, predicted)
    check(ours, {name: theirs(name) for name in names}, np.array(theirs(None)).reshape(4, -1), accuracy)


@given(documents=paired("IOBES"))
@settings(deadline=None, max_examples=100)
def test_lenient_agrees_with_the_package_on_any_tags(documents: Any) -> None:
    gold, predicted = (list(side) for side in zip(*documents, strict=True))

    def theirs(average: Any) -> Any:
        return sequence_labeling.precision_recall_fscore_support(
            gold, predicted, average=average, zero_division=0
        )

    ours = score_tags(gold, predicted, mode="lenient")
    names = ("micro", "macro", "weighted") if ours["per_class"] else ("micro",)
    accuracy = sequence_labeling.accuracy_score(gold, predicted)
    check(ours, {name: theirs(name) for name in names}, np.array(theirs(None)).reshape(4, -1), accuracy)


flat = st.lists(
    st.tuples(st.sampled_from(["a", "b-c"]), st.integers(0, 9), st.integers(1, 3)), max_size=6
).map(lambda items: resolve([(label, at, min(at + n, 10)) for label, at, n in items], [None] * len(items))[0])


@pytest.mark.parametrize("mode", ["strict", "lenient"])
@pytest.mark.parametrize("scheme", THEIRS)
@given(mentions=flat)
@settings(deadline=None, max_examples=50)
def test_entities_are_recovered_from_their_tags(scheme: Any, mode: Any, mentions: Any) -> None:
    assert from_tags(to_tags(mentions, 10, scheme), scheme, mode) == mentions


@given(documents=st.lists(st.tuples(flat, flat), min_size=1, max_size=4))
@settings(deadline=None, max_examples=100)
def test_documents_get_the_scores_of_their_tags_in_the_package(documents: Any) -> None:
    examples = [Example(make_doc(predicted), make_doc(gold)) for gold, predicted in documents]
    ours = SeqevalScorer()(examples)
    assert ours["overlapping"] == {"gold": 0, "predicted": 0}
    exact = ExactScorer()(examples)
    assert ours["micro"] == exact["micro"]
    assert ours["per_class"] == {key: row for key, row in exact.items() if key not in ("micro", "macro")}
    if ours["per_class"]:
        gold, predicted = ([to_tags(side, 10) for side in sides] for sides in zip(*documents, strict=True))
        report = classification_report(
            gold, predicted, mode="strict", scheme=IOB2, output_dict=True, zero_division=0
        )
        for name in ("micro", "macro", "weighted"):
            theirs = [report[f"{name} avg"][key] for key in ("precision", "recall", "f1-score")]
            assert [ours[name][key] for key in "prf"] == pytest.approx(theirs)


def test_the_mode_decides_how_invalid_tags_are_read() -> None:
    tags = ["I-a", "I-a", "O", "B-a", "I-b"]
    assert from_tags(tags, "IOB2", "strict") == [("a", 3, 4)]
    assert from_tags(tags, "IOB2", "lenient") == [("a", 0, 2), ("a", 3, 4), ("b", 4, 5)]
    assert from_tags(["B-a", "I-a"], "BILOU", "strict") == []
    assert from_tags(["B-a", "I-a", "U-a", "L-a"], "BILOU", "lenient") == [
        ("a", 0, 2),
        ("a", 2, 3),
        ("a", 3, 4),
    ]


def test_unknown_prefixes_and_unequal_lengths_are_errors() -> None:
    for tags, scheme in ((["O", "X-a"], "IOB2"), (["L-a"], "IOBES")):
        with pytest.raises(DataError) as error:
            from_tags(tags, scheme)
        assert error.value.where == "tags:"
    with pytest.raises(DataError) as error:
        score_tags([["O"], ["O", "O"]], [["O"], ["O"]])
    assert error.value.where == "document 1:"


def test_the_best_of_overlapping_spans_is_kept_and_the_others_are_counted() -> None:
    gold = make_doc([("a", 0, 4), ("b", 1, 2), ("c", 6, 7)])
    predicted = make_doc([("a", 0, 4), ("b", 3, 5), ("c", 6, 7), ("c", 6, 7)], [0.5, 0.9, 0.3, 0.4])
    scores = SeqevalScorer()([Example(predicted, gold)])
    assert scores["overlapping"] == {"gold": 1, "predicted": 1}
    assert {
        label: (row["tp"], row["support"], row["positives"]) for label, row in scores["per_class"].items()
    } == {
        "a": (0, 1, 0),
        "b": (0, 0, 1),
        "c": (1, 1, 1),
    }
    # without scores the longest span is kept
    unscored = make_doc([("b", 3, 5), ("a", 0, 4)])
    assert SeqevalScorer()([Example(unscored, gold)])["per_class"]["a"]["f"] == 1.0


def test_overlaps_are_resolved_within_the_fixed_label_set() -> None:
    gold, predicted = make_doc([("a", 0, 1)]), make_doc([("b", 0, 2), ("a", 0, 1)])
    scores = SeqevalScorer(labels=["a", "x"])([Example(predicted, gold)])
    assert (scores["micro"]["f"], scores["accuracy"]) == (1.0, 1.0)
    assert scores["per_class"]["x"]["f"] is None
    assert scores["macro"] == scores["weighted"] == {"p": 1.0, "r": 1.0, "f": 1.0, "labels": 1}


def test_nothing_to_measure() -> None:
    empty = Example(make_doc([]), make_doc([]))
    scores = SeqevalScorer()([empty])
    assert scores["micro"]["f"] is scores["macro"]["f"] is scores["weighted"]["f"] is None
    assert (scores["per_class"], scores["accuracy"]) == ({}, 1.0)
    assert SeqevalScorer()([])["accuracy"] is None


def test_accuracy_counts_words_of_the_gold_document() -> None:
    gold = Doc(VOCAB, words=["New", "York", "is", "bigger"])
    gold.spans["gliner"] = [Span(gold, 0, 2, label="a"), Span(gold, 3, 4, label="b")]
    predicted = Doc(VOCAB, words=["New York", "is", "big", "ger"], spaces=[True, True, False, False])
    predicted.spans["gliner"] = [Span(predicted, 0, 1, label="a"), Span(predicted, 2, 3, label="a")]
    scores = SeqevalScorer()([Example(predicted, gold)])
    assert scores["accuracy"] == 0.75
    assert (scores["per_class"]["a"]["tp"], scores["per_class"]["a"]["positives"]) == (1, 2)


def test_the_scheme_changes_only_accuracy() -> None:
    eg = Example(make_doc([("a", 0, 3)]), make_doc([("a", 0, 2)]))
    by_scheme = {scheme: SeqevalScorer(scheme=scheme)([eg]) for scheme in THEIRS}
    assert by_scheme["IOB2"]["accuracy"] == 0.9
    assert by_scheme["BILOU"]["accuracy"] == by_scheme["IOE2"]["accuracy"] == 0.8
    assert {scores["micro"]["f"] for scores in by_scheme.values()} == {0.0}


def test_resolves_by_name_and_pickles() -> None:
    section = {"scorer": {"@metrics": "gliner_pipe.seqeval", "scheme": "BILOU", "mode": "lenient"}}
    scorer = Config(section).resolve(registry=registry)["scorer"]
    eg = Example(make_doc([("a", 0, 3)]), make_doc([("a", 0, 2)]))
    assert pickle.loads(pickle.dumps(scorer))([eg]) == scorer([eg], threshold=0.5)
    for wrong in ({"mode": "loose"}, {"scheme": "BIO"}):
        with pytest.raises(ConfitValidationError, match=next(iter(wrong))):
            SeqevalScorer(**wrong)
