from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from conftest import gliner_config
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.evaluation.candidates import DocCandidates, scores_ignore_threshold
from gliner_pipe.evaluation.evaluate import evaluate_pipeline
from gliner_pipe.evaluation.report import shown_thresholds
from gliner_pipe.evaluation.sweeps import CandidateSweep, between, spaced
from gliner_pipe.evaluation.thresholds import (
    EVEN,
    ThresholdSearch,
    _search,
    apply_thresholds,
    find_threshold,
)
from gliner_pipe.metrics.counts import count_exact
from gliner_pipe.modeling.decoders.span import Candidate, SpanDecoder
from gliner_pipe.pipeline.labels import parse_labels
from gliner_pipe.pipeline.overrides import override

LABELS = ["person", "city", "animal"]


def make_nlp(backbone: Path, span_rep: dict[str, Any] | None = None, **settings: Any) -> Any:
    torch.manual_seed(0)
    nlp = spacy.blank("en")
    config = gliner_config(backbone, **{"labels": LABELS, **settings})
    config["model"] |= {
        "span_rep": {"@span_reps": "markerV0", "max_width": 3} if span_rep is None else span_rep
    }
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    with torch.no_grad():
        for weights in nlp.get_pipe("gliner").gliner.span_rep.parameters():
            weights.mul_(3.0)  # untrained scores are all alike
    return nlp


def examples_of(nlp: Language, n_docs: int = 3) -> list[Example]:
    """Gold spans are two of three spans that the model finds at threshold 0, and one that is too wide to find."""
    words = ["Ann", "met", "Bo", "in", "Rome/Oslo", "while", "a", "cat", "slept"]
    docs = [Doc(nlp.vocab, words=[*words[number:], *words[:number]]) for number in range(n_docs)]
    examples = []
    with override(nlp, labels=LABELS, threshold=0.0):
        for doc in nlp.pipe(Doc(nlp.vocab, words=[token.text for token in doc]) for doc in docs):
            reference = Doc(nlp.vocab, words=[token.text for token in doc])
            found = [Span(reference, span.start, span.end, span.label_) for span in doc.spans["gliner"]]
            found = [span for number, span in enumerate(found) if number % 3]
            reference.spans["gliner"] = [*found, Span(reference, 0, len(reference), label="city")]
            examples.append(Example(Doc(nlp.vocab, words=[token.text for token in reference]), reference))
    nothing = Doc(nlp.vocab, words=[])
    nothing.spans["gliner"] = []
    return [*examples, Example(Doc(nlp.vocab, words=[]), nothing)]


TOKENS = {"@span_reps": "token_level"}
TWICE = {"@span_reps": "token_level", "represent_spans": True}


@pytest.mark.parametrize("metric", ["exact", "overlap", "token"])
@pytest.mark.parametrize(
    ("span_rep", "settings"),
    [
        (None, {}),
        (None, {"flat_ner": False, "multi_label": True}),
        (None, {"labels": [{"label": "person", "threshold": 0.9}, "city", "animal"]}),
        (None, {"labels": [{"label": "animal", "pattern": "[a-z ]+"}, "city", "person"]}),
        (None, {"word_splitter": {"@word_splitters": "whitespace"}, "partial_overlaps": True}),
        (TOKENS, {}),
        (TWICE, {}),
    ],
    ids=["flat", "nested", "own threshold", "pattern", "other words", "tokens", "tokens twice"],
)
def test_the_curve_equals_predictions_with_each_threshold(
    backbone: Path, span_rep: Any, settings: dict[str, Any], metric: Any
) -> None:
    nlp = make_nlp(backbone, span_rep, **settings)
    examples = examples_of(nlp)
    once = scores_ignore_threshold(nlp.get_pipe("gliner"))
    assert once is (span_rep is not TWICE)
    found = find_threshold(nlp, examples, metric, steps=None if once else 5, floor=0.0)
    assert found.runs == (1 if once else 6)
    assert len({row["f"] for row in found.curve}) > 1
    assert [row["threshold"] for row in found.even] == (list(EVEN) if once else [0.2, 0.4, 0.6, 0.8])
    rows = [found.before, found.best, *found.even[::6], *found.curve[:: max(1, len(found.curve) // 5)]]
    for row in rows:
        again = evaluate_pipeline(nlp, examples, metrics=[metric], threshold=row["threshold"])[metric][
            "micro"
        ]
        assert {key: row[key] for key in "prf"} == {key: again[key] for key in "prf"}


def test_every_threshold_that_makes_a_difference_is_tried(backbone: Path) -> None:
    nlp = make_nlp(backbone)
    examples = examples_of(nlp, 2)
    found = find_threshold(nlp, examples, floor=0.0)
    nlp.get_pipe("gliner").threshold = 0.0
    scores = {
        float(score)
        for doc in nlp.pipe(Doc(nlp.vocab, words=[t.text for t in eg.reference]) for eg in examples)
        for score in doc.spans["gliner"].attrs["scores"]
    }
    # a threshold separates every two consecutive scores
    thresholds = [row["threshold"] for row in found.curve]
    assert thresholds == sorted(thresholds)
    for low, high in zip(sorted(scores), sorted(scores)[1:], strict=False):
        assert any(low <= threshold < high for threshold in thresholds)
    best = max(row["f"] for row in found.curve)
    assert found.best["f"] == best >= found.before["f"]
    assert found.best in found.curve


candidates = st.lists(
    st.builds(
        lambda start, width, label, score: Candidate(start, start + width, label, score),
        st.integers(0, 6),
        st.integers(0, 2),
        st.integers(0, 2),
        st.sampled_from([round(0.05 * step, 2) for step in range(1, 20)]),
    ),
    max_size=12,
    unique_by=lambda item: item[:3],
).map(sorted)


@given(items=candidates, threshold=st.floats(0, 1), flat=st.booleans(), multi_label=st.booleans())
@settings(deadline=None, max_examples=100)
def test_decoding_above_a_threshold_gives_a_subset_of_decoding_all(
    items: Any, threshold: float, flat: bool, multi_label: bool
) -> None:
    """Why a common threshold could also be applied to a single prediction."""
    decoder = SpanDecoder()
    whole = decoder.decode(items, flat=flat, multi_label=multi_label)
    part = decoder.decode(
        [item for item in items if item.score > threshold], flat=flat, multi_label=multi_label
    )
    assert set(part) == {item for item in whole if item.score > threshold}


def test_a_higher_threshold_of_one_label_can_reveal_a_span_of_another() -> None:
    """Why candidates are stored and not predictions: with thresholds of labels, decoding gives no subset."""
    strong, weak = Candidate(0, 1, 0, 0.6), Candidate(0, 0, 1, 0.55)
    decoder = SpanDecoder()
    assert decoder.decode([weak, strong], flat=True, multi_label=False) == [strong]
    assert decoder.decode([weak], flat=True, multi_label=False) == [weak]  # label 0 has a threshold above 0.6


@given(
    items=candidates,
    varied=st.lists(st.integers(0, 2), min_size=1, unique=True),
    others=st.floats(0, 1),
    options=st.fixed_dictionaries(
        {
            "flat": st.booleans(),
            "multi_label": st.booleans(),
            "partial_overlaps": st.booleans(),
            "prefer": st.sampled_from(["score", "longest"]),
        }
    ),
)
@settings(deadline=None, max_examples=200)
def test_a_sweep_counts_what_decoding_at_each_threshold_gives(
    items: Any, varied: list[int], others: float, options: dict[str, Any]
) -> None:
    component = SimpleNamespace(gliner=SimpleNamespace(decoder=SpanDecoder()), decoding=options)
    items = [item._replace(score=float(np.float32(item.score))) for item in items]  # as a model gives them
    mentions = {item[:3]: (LABELS[item.label], item.start, item.end + 1) for item in items}
    gold = {mention for number, mention in enumerate(mentions.values()) if number % 2}
    sweep = CandidateSweep(
        parse_labels(LABELS, "labels"),
        0.0,
        component,
        [DocCandidates(gold, items, mentions)],
        count_exact,
        None,
    )
    limits = sweep.limits(others)
    thresholds = [0.0, *sorted({item.score for item in items})]
    for threshold, counts in sweep.over(varied, limits, thresholds):
        now = limits.copy()
        now[varied] = threshold
        found = {label: row for label, row in sweep.at(now, others).items() if any(row)}
        assert {label: row for label, row in counts.items() if any(row)} == found


def test_each_candidate_that_is_kept_is_one_step_of_a_sweep(nlp: Any) -> None:
    """A model that scores every span of every label near 0.5 has as many steps as it has entities."""
    items = sorted(
        Candidate(start, end, label, 0.5 + (start * 7 + end * 3 + label) % 97 / 1000)
        for start in range(20)
        for end in range(start, min(20, start + 6))
        for label in range(3)
    )
    mentions = {item[:3]: (LABELS[item.label], item.start, item.end + 1) for item in items}
    found = search(nlp.get_pipe("gliner"), [DocCandidates({("city", 3, 4)}, items, mentions)], min_support=1)
    assert 1 < len(found["curve"]) <= 21


@pytest.mark.parametrize("span_rep", [None, TOKENS, TWICE], ids=["markerV0", "tokens", "tokens twice"])
def test_thresholds_of_labels_give_the_same_scores_once_applied(backbone: Path, span_rep: Any) -> None:
    nlp = make_nlp(backbone, span_rep)
    examples = examples_of(nlp)
    steps = 6 if span_rep is TWICE else None
    found = find_threshold(nlp, examples, per_label=True, min_support=1, steps=steps, floor=0.0)
    component = nlp.get_pipe("gliner")
    assert component.label_data == LABELS and component.threshold == 0.5  # unchanged
    assert found.labels and {*found.labels, *found.kept} == set(LABELS)
    assert found.together["f"] >= found.best["f"] > 0
    assert apply_thresholds(nlp, found) == []
    assert component.threshold == found.threshold
    again = evaluate_pipeline(nlp, examples, metrics=["exact"])["exact"]
    assert found.together == {key: again["micro"][key] for key in "prf"}
    for item in component.label_items:
        row = found.labels.get(item.label, {"threshold": None})
        assert item.threshold == row.pop("threshold")
        assert row == {key: again[item.label][key] for key in row}


def document(gold: list[tuple[str, int]], candidates: list[tuple[int, int, float]]) -> DocCandidates:
    """A document of one-word spans: label and word; label, word and score."""
    items = sorted(Candidate(word, word, label, score) for label, word, score in candidates)
    mentions = {item[:3]: (LABELS[item.label], item.start, item.start + 1) for item in items}
    return DocCandidates({(label, word, word + 1) for label, word in gold}, items, mentions)


def search(
    component: Any, documents: list[DocCandidates], steps: int | None = None, **options: Any
) -> dict[str, Any]:
    sweep = CandidateSweep(parse_labels(LABELS, "labels"), 0.0, component, documents, count_exact, steps)
    support = Counter(label for document in documents for label, *_ in document.gold)
    return _search(sweep, 0.5, support, **options)


def test_a_curve_by_hand(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    documents = [
        document([("person", 0), ("city", 3)], [(0, 0, 0.9), (0, 1, 0.8), (1, 3, 0.25)]),
        document([("person", 2)], [(0, 2, 0.7)]),
    ]
    found = search(component, documents, min_support=None)
    fs = [2 * tp / (positives + 3) for tp, positives in ((3, 4), (2, 3), (1, 2), (1, 1), (0, 0))]
    assert [row["f"] for row in found["curve"]] == pytest.approx(fs)
    assert [row["threshold"] for row in found["curve"]] == sorted(row["threshold"] for row in found["curve"])
    assert found["before"] == {"threshold": 0.5, "p": 2 / 3, "r": 2 / 3, "f": pytest.approx(2 / 3)}
    assert found["best"]["f"] == pytest.approx(6 / 7) and found["best"]["threshold"] < 0.25
    by_steps = search(component, documents, 4, min_support=None)
    assert [row["threshold"] for row in by_steps["curve"]] == [0.0, 0.25, 0.5, 0.75]
    assert by_steps["best"]["f"] == pytest.approx(6 / 7)


@pytest.mark.parametrize(
    ("best", "shown"),
    [
        (0.7, [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]),
        (0.42, [0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]),
        (0.01, list(EVEN)),
    ],
)
def test_thresholds_shown_beside_the_best(best: float, shown: list[float]) -> None:
    rows = [{"threshold": threshold} for threshold in EVEN]
    found = {"even": rows, "best": {"threshold": best}, "before": {"threshold": 0.5}}
    assert [row["threshold"] for row in shown_thresholds(found)] == shown


def test_each_label_gets_its_best_threshold(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    documents = [
        document([("person", word) for word in range(4)], [(0, word, 0.9) for word in range(4)]),
        document([("city", 0)], [(1, 0, 0.3), (0, 1, 0.4), (0, 2, 0.35), (0, 3, 0.2)]),
    ]
    found = search(component, documents, min_support=1)
    assert found["best"]["threshold"] == 0.5  # nearest of those between 0.4 and 0.9
    assert found["labels"]["person"] == {"threshold": 0.5, "p": 1.0, "r": 1.0, "f": 1.0, "support": 4}
    assert found["labels"]["city"]["threshold"] < 0.3 and found["labels"]["city"]["f"] == 1.0
    assert (found["together"]["f"], found["kept"]) == (1.0, {"animal": 0})
    assert search(component, documents, min_support=2)["kept"] == {"city": 1, "animal": 0}


def test_the_threshold_of_a_label_does_not_lower_the_common_score(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    documents = [
        document([("city", 0)], [(0, 0, 0.55), (1, 0, 0.3)]),  # a wrong person that would hide the city
        document([("person", 0)], [(0, 0, 0.5)]),
        document([("person", 0)], [(0, 0, 0.9)]),
        document([("city", word) for word in range(4)], [(1, word, 0.9) for word in range(4)]),
        document([], [(2, word, 0.58) for word in range(10)]),
    ]
    found = search(component, documents, min_support=2)
    assert found["best"]["f"] == pytest.approx(10 / 12)
    assert found["labels"]["city"]["f"] == 1.0
    # its best F1 of 0.8 needs a threshold below 0.5
    assert found["labels"]["person"]["threshold"] > 0.55
    assert found["labels"]["person"]["f"] == pytest.approx(2 / 3)
    assert found["together"]["f"] == pytest.approx(12 / 13)


def test_a_label_whose_spans_are_all_lost_keeps_its_threshold(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    documents = [
        document([("person", 0), ("city", 0)], [(0, 0, 0.6), (1, 0, 0.65)]),
        document([("animal", 0)], [(2, 0, 0.9), *((2, word, 0.66) for word in range(1, 6))]),
    ]
    found = search(component, documents, min_support=1)
    # the city, which is as good, hides the person that a threshold of its own had found
    assert (set(found["labels"]), found["kept"]) == ({"city", "animal"}, {"person": 1})
    assert found["together"]["f"] == pytest.approx(4 / 5)


def test_without_a_correct_span_the_threshold_stays(nlp: Any) -> None:
    documents = [document([("person", 0)], [(0, 1, 0.9)])]
    items = parse_labels(LABELS, "labels")
    sweep = CandidateSweep(items, 0.0, nlp.get_pipe("gliner"), documents, count_exact, None)
    found = _search(sweep, 0.7, {"person": 1}, 1)
    assert (found["best"]["threshold"], found["labels"], found["kept"]["person"]) == (0.7, {}, 1)


def test_labels_with_few_gold_spans_keep_their_threshold(backbone: Path) -> None:
    nlp = make_nlp(backbone, labels=["person", {"label": "plant", "threshold": 0.9}])
    examples = examples_of(nlp)
    support = sum(span.label_ == "person" for eg in examples for span in eg.reference.spans["gliner"])
    found = find_threshold(nlp, examples, per_label=True, min_support=support + 1)
    assert (found.labels, found.kept) == ({}, {"person": support, "plant": 0})
    apply_thresholds(nlp, found)
    assert nlp.get_pipe("gliner").label_data == ["person", {"label": "plant", "threshold": 0.9}]


def test_a_component_without_labels_gets_labels_with_thresholds(backbone: Path) -> None:
    nlp = make_nlp(backbone, labels=["person"])
    component = nlp.get_pipe("gliner")
    component.labels = []
    examples = examples_of(nlp)
    found = find_threshold(nlp, examples, per_label=True, min_support=1, floor=0.0)
    assert component.labels == ()
    assert found.labels
    apply_thresholds(nlp, found)
    gold = {span.label_ for eg in examples for span in eg.reference.spans["gliner"]}
    assert component.labels == tuple(sorted(gold))
    # thresholds of other labels than those of the component cannot be stored
    component.labels = ["river"]
    assert apply_thresholds(nlp, found) == list(found.labels)
    assert component.label_data == ["river"]


def test_a_fixed_label_set_ignores_other_labels(backbone: Path) -> None:
    nlp = make_nlp(backbone)
    examples = examples_of(nlp)
    examples[0].reference.spans["gliner"] = [Span(examples[0].reference, 0, 1, label="city")]
    found = find_threshold(nlp, examples, labels=["city"], steps=3, floor=0.4)
    for row in found.curve:
        again = evaluate_pipeline(
            nlp, examples, metrics=["exact"], labels=["city"], threshold=row["threshold"]
        )["exact"]["micro"]
        assert {key: row[key] for key in "prf"} == {key: again[key] for key in "prf"}
    with pytest.raises(DataError):
        find_threshold(nlp, examples, labels=["river"])


def test_the_best_of_equal_thresholds_is_nearest_to_a_half(backbone: Path) -> None:
    nlp = make_nlp(backbone)
    examples = examples_of(nlp, 1)
    examples[0].reference.spans["gliner"] = [
        Span(examples[0].reference, 0, 9, label="person")
    ]  # too wide: never found
    found = find_threshold(nlp, examples)
    assert {row["f"] for row in found.curve} == {0.0}
    assert abs(found.threshold - 0.5) == min(abs(row["threshold"] - 0.5) for row in found.curve)


@given(scores=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2, unique=True).map(sorted))
def test_the_threshold_between_two_scores_separates_them(scores: list[float]) -> None:
    low, high = scores
    one = between(low, high)
    assert np.float32(low) <= np.float32(one) < np.float32(high)
    if low <= 0.5 < high:
        assert one == 0.5


def test_thresholds_are_evenly_spaced() -> None:
    assert spaced(19, 0.05) == pytest.approx([0.05 * step for step in range(1, 20)])


def test_only_components_before_the_model_are_run(backbone: Path) -> None:
    nlp = make_nlp(backbone)
    ran: list[str] = []

    @Language.component("threshold_test_before")
    def before(doc: Doc) -> Doc:
        ran.append("before")
        return doc

    @Language.component("threshold_test_behind")
    def behind(doc: Doc) -> Doc:
        ran.append("behind")
        return doc

    examples = examples_of(nlp, 2)
    nlp.add_pipe("threshold_test_before", first=True)
    nlp.add_pipe("threshold_test_behind", last=True)
    find_threshold(nlp, examples)
    assert ran == ["before"] * 3
    assert nlp.pipe_names == ["threshold_test_before", "gliner", "threshold_test_behind"]


def test_gold_documents_with_different_tokens(backbone: Path) -> None:
    nlp = make_nlp(backbone, labels=["person"])
    reference = Doc(nlp.vocab, words=["Ann", "Smith", "slept"])
    reference.spans["gliner"] = [Span(reference, 0, 2, label="person")]
    eg = Example(
        Doc(nlp.vocab, words=["Ann", "Smi", "th", "slept"], spaces=[True, False, True, True]), reference
    )
    found = find_threshold(nlp, [eg], steps=3, floor=0.3)
    for row in found.curve:
        again = evaluate_pipeline(nlp, [eg], metrics=["exact"], threshold=row["threshold"])["exact"]["micro"]
        assert {key: row[key] for key in "prf"} == {key: again[key] for key in "prf"}


def test_the_result_is_plain_data(backbone: Path) -> None:
    nlp = make_nlp(backbone)
    found = find_threshold(nlp, examples_of(nlp, 1), per_label=True, min_support=1)
    assert ThresholdSearch(**json.loads(json.dumps(found.to_dict()))) == found


@pytest.mark.parametrize("options", [{"metric": "seqeval"}, {"steps": 0}, {"floor": 1.0}])
def test_invalid_options(nlp: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as error:
        find_threshold(nlp, examples_of(nlp, 1), **options)
    assert error.value.where == f"find_threshold.{next(iter(options))}"


def test_invalid_pipelines_and_data(nlp: Any) -> None:
    with pytest.raises(ConfigError) as error:
        find_threshold(spacy.blank("en"), examples_of(nlp, 1))
    assert error.value.where == "find_threshold"
    with pytest.raises(DataError):
        find_threshold(nlp, [])

    @Language.component("threshold_test_labels")
    def labels(doc: Doc) -> Doc:
        doc._.gliner_labels = ["river"]
        return doc

    nlp.add_pipe("threshold_test_labels", first=True)
    with pytest.raises(ConfigError) as error:
        find_threshold(nlp, examples_of(nlp, 1))
    assert error.value.where == "find_threshold"
