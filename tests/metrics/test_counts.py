from __future__ import annotations

from fractions import Fraction
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.counts import (
    Counts,
    Mention,
    count_exact,
    count_overlap,
    count_token,
    score_mentions,
    score_row,
    sum_counts,
)

COUNTS = [count_exact, count_overlap, count_token, partial(count_overlap, threshold=0.1)]

spans = st.tuples(st.integers(0, 9), st.integers(1, 5)).map(lambda pair: (pair[0], pair[0] + pair[1]))
mention = st.tuples(st.sampled_from(["a", "b", "c"]), spans).map(lambda pair: (pair[0], *pair[1]))
document = st.tuples(st.frozensets(mention, max_size=6), st.frozensets(mention, max_size=6))
documents = st.lists(document, max_size=4)


def test_exact_needs_label_and_both_boundaries() -> None:
    gold = {("person", 0, 2), ("person", 5, 6), ("city", 3, 4)}
    predicted = {("person", 0, 2), ("person", 5, 7), ("city", 5, 6)}
    assert count_exact(gold, predicted) == {"person": Counts(1, 1, 2, 2), "city": Counts(0, 0, 1, 1)}


def test_nested_and_multi_label_spans_are_separate() -> None:
    gold = {("org", 0, 3), ("city", 2, 3), ("place", 2, 3)}
    assert count_exact(gold, {("org", 0, 3), ("place", 2, 3)}) == {
        "org": Counts(1, 1, 1, 1),
        "city": Counts(0, 0, 1, 0),
        "place": Counts(1, 1, 1, 1),
    }


def test_overlap_threshold_is_inclusive() -> None:
    gold, predicted = {("a", 0, 2)}, {("a", 1, 3)}  # Dice 2 * 1 / 4
    assert count_overlap(gold, predicted, 0.5)["a"] == Counts(1, 1, 1, 1)
    assert count_overlap(gold, predicted, 0.51)["a"] == Counts(0, 0, 1, 1)


def test_two_predictions_can_match_one_gold_span() -> None:
    gold, predicted = {("a", 0, 4)}, {("a", 0, 2), ("a", 2, 4)}  # Dice 2 * 2 / 6 each
    assert count_overlap(gold, predicted, 0.5)["a"] == Counts(right=2, found=1, support=1, positives=2)
    row = score_row(count_overlap(gold, predicted, 0.5)["a"])
    assert (row["p"], row["r"], row["f"]) == (1.0, 1.0, 1.0)


def test_overlap_with_a_long_span_that_starts_far_before() -> None:
    gold = {("a", 0, 10), ("a", 6, 7), ("a", 7, 8)}
    assert count_overlap(gold, {("a", 5, 10)}, 0.6)["a"] == Counts(1, 1, 3, 1)


def test_overlap_of_another_label_does_not_count() -> None:
    assert count_overlap({("a", 0, 2)}, {("b", 0, 2)}) == {"a": Counts(0, 0, 1, 0), "b": Counts(0, 0, 0, 1)}


def test_a_token_counts_once_for_each_label() -> None:
    gold = {("a", 0, 3), ("a", 1, 2), ("b", 1, 2)}
    assert count_token(gold, {("a", 2, 5)}) == {"a": Counts(1, 1, 3, 3), "b": Counts(0, 0, 1, 0)}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (Counts(0, 0, 0, 0), (None, None, None)),
        (Counts(0, 0, 3, 0), (0.0, 0.0, 0.0)),
        (Counts(0, 0, 0, 2), (0.0, 0.0, 0.0)),
        (Counts(0, 0, 3, 2), (0.0, 0.0, 0.0)),
        (Counts(1, 1, 4, 2), (0.5, 0.25, 1 / 3)),
    ],
)
def test_rows_without_gold_or_predictions(counts: Counts, expected: tuple[float | None, ...]) -> None:
    row = score_row(counts)
    assert (row["p"], row["r"], row["f"]) == pytest.approx(expected)


def test_rows_and_averages_by_hand() -> None:
    data = [({("a", 0, 1), ("b", 2, 3)}, {("a", 0, 1), ("a", 4, 5)}), ({("a", 0, 1)}, {("c", 0, 1)})]
    scores = score_mentions(data)
    assert list(scores) == ["a", "b", "c", "micro", "macro"]
    assert scores["a"] == {"p": 0.5, "r": 0.5, "f": 0.5, "tp": 1, "support": 2, "positives": 2}
    assert scores["c"] == {"p": 0.0, "r": 0.0, "f": 0.0, "tp": 0, "support": 0, "positives": 1}
    assert scores["micro"] == {"p": 1 / 3, "r": 1 / 3, "f": 1 / 3, "tp": 1, "support": 3, "positives": 3}
    # the mean is over a and b: c has no gold
    assert scores["macro"] == {"p": 0.25, "r": 0.25, "f": 0.25, "labels": 2}


def test_a_fixed_label_set_ignores_other_labels() -> None:
    data = [({("a", 0, 1), ("b", 2, 3)}, {("a", 0, 1), ("b", 4, 5), ("c", 6, 7)})]
    scores = score_mentions(data, labels=["d", "a"])
    assert list(scores) == ["d", "a", "micro", "macro"]
    assert scores["micro"]["f"] == 1.0
    assert scores["d"]["f"] is None
    assert scores["macro"] == {"p": 1.0, "r": 1.0, "f": 1.0, "labels": 1}


def test_no_documents() -> None:
    scores = score_mentions([])
    assert scores == {
        "micro": {"p": None, "r": None, "f": None, "tp": 0, "support": 0, "positives": 0},
        "macro": {"p": None, "r": None, "f": None, "labels": 0},
    }


@pytest.mark.parametrize("labels", [None, ["micro"]])
def test_a_label_called_micro_needs_another_key(labels: list[str] | None) -> None:
    data = [({("micro", 0, 1)}, {("micro", 0, 1)})]
    with pytest.raises(ConfigError) as error:
        score_mentions(data, labels=labels)
    assert error.value.where == "micro_key"
    assert score_mentions(data, labels=labels, micro_key="all")["all"]["f"] == 1.0


@pytest.mark.parametrize("count", COUNTS)
@given(data=documents)
@settings(deadline=None)
def test_scores_are_between_zero_and_one(count, data) -> None:
    scores = score_mentions(data, count)
    for row in scores.values():
        for key in ("p", "r", "f"):
            assert row[key] is None or 0 <= row[key] <= 1
    assert (scores["micro"]["f"] is None) == (not any(gold or predicted for gold, predicted in data))


@pytest.mark.parametrize("count", COUNTS)
@given(data=documents)
@settings(deadline=None)
def test_swapping_gold_and_predictions_swaps_precision_and_recall(count, data) -> None:
    scores = score_mentions(data, count)
    swapped = score_mentions([(predicted, gold) for gold, predicted in data], count)
    assert scores.keys() == swapped.keys()
    for key in scores.keys() - {"macro"}:
        assert scores[key]["p"] == swapped[key]["r"]
        assert scores[key]["r"] == swapped[key]["p"]
        assert scores[key]["f"] == pytest.approx(swapped[key]["f"])


@pytest.mark.parametrize("count", COUNTS)
@given(data=documents, order=st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_of_documents_does_not_matter(count, data, order) -> None:
    shuffled = list(data)
    order.shuffle(shuffled)
    assert score_mentions(shuffled, count) == score_mentions(data, count)


@pytest.mark.parametrize("count", COUNTS)
@given(data=documents)
@settings(deadline=None)
def test_a_perfect_prediction_scores_one(count, data) -> None:
    scores = score_mentions([(gold, gold) for gold, _ in data], count)
    assert {row["f"] for row in scores.values()} <= ({1.0} if any(gold for gold, _ in data) else {None})


@given(data=documents)
@settings(deadline=None)
def test_overlap_at_one_is_exact_and_falls_with_the_threshold(data) -> None:
    assert score_mentions(data, partial(count_overlap, threshold=1.0)) == score_mentions(data)
    counts = [
        score_mentions(data, partial(count_overlap, threshold=t))["micro"] for t in (0.2, 0.5, 0.8, 1.0)
    ]
    assert [row["tp"] for row in counts] == sorted((row["tp"] for row in counts), reverse=True)


@given(data=document, numerator=st.integers(1, 10))
@settings(deadline=None)
def test_overlap_against_every_pair(data, numerator) -> None:
    gold, predicted = data
    threshold = numerator / 10

    def matches(one: Mention, others: frozenset[Mention]) -> bool:
        return any(
            one[0] == other[0]
            and float(
                Fraction(
                    2 * max(0, min(one[2], other[2]) - max(one[1], other[1])),
                    one[2] - one[1] + other[2] - other[1],
                )
            )
            >= threshold
            for other in others
        )

    total = sum_counts(count_overlap(gold, predicted, threshold).values())
    right, found = sum(matches(p, gold) for p in predicted), sum(matches(g, predicted) for g in gold)
    assert total == Counts(right, found, len(gold), len(predicted))
