from __future__ import annotations

import pickle
from collections import Counter
from typing import Any

import pytest
from confit import Config
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.vocab import Vocab

from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.confusion import ConfusionScorer, confuse
from gliner_pipe.registry import registry

mentions = st.frozensets(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(1, 2)).map(
        lambda item: (item[0], item[1], item[1] + item[2])
    ),
    max_size=8,
)
documents = st.lists(st.tuples(mentions, mentions), max_size=4)


def test_correct_confused_missed_and_spurious_spans() -> None:
    gold = {("a", 0, 1), ("a", 2, 3), ("b", 4, 5)}
    predicted = {("a", 0, 1), ("b", 2, 3), ("c", 6, 7)}
    assert confuse([(gold, predicted)]) == {
        "matrix": {
            "a": {"a": 1, "b": 1, "c": 0, "none": 0},
            "b": {"a": 0, "b": 0, "c": 0, "none": 1},
            "c": {"a": 0, "b": 0, "c": 0, "none": 0},
            "none": {"a": 0, "b": 0, "c": 1},
        },
        "near": {},
    }


@given(documents=documents)
def test_rows_sum_to_gold_and_columns_to_predicted_spans(documents: Any) -> None:
    matrix = confuse(documents)["matrix"]
    gold, predicted = (
        Counter(label for number, pair in enumerate(documents) for label, *_ in pair[side]) for side in (0, 1)
    )
    for label in matrix.keys() - {"none"}:
        assert sum(matrix[label].values()) == pytest.approx(gold[label])
        assert sum(row[label] for row in matrix.values()) == pytest.approx(predicted[label])
        assert matrix[label][label] == sum(
            one[0] == label and one in pair[1] for pair in documents for one in pair[0]
        )


@given(documents=documents)
def test_swapping_gold_and_predictions_transposes_the_matrix(documents: Any) -> None:
    one = confuse(documents)["matrix"]
    other = confuse([(predicted, gold) for gold, predicted in documents])["matrix"]
    assert one.keys() == other.keys()
    assert all(one[row][column] == other[column][row] for row in one for column in one[row])


def test_spans_with_several_labels() -> None:
    # a correct label is not confused with another label
    matrix = confuse([({("a", 0, 1), ("b", 0, 1)}, {("a", 0, 1), ("c", 0, 1)})])["matrix"]
    assert (matrix["a"]["a"], matrix["b"]["c"], matrix["a"]["c"]) == (1, 1, 0)
    # the predicted label is shared between two gold labels, and half of each is missed
    matrix = confuse([({("a", 0, 1), ("b", 0, 1)}, {("c", 0, 1)})])["matrix"]
    assert matrix["a"] == matrix["b"] == {"a": 0, "b": 0, "c": 0.5, "none": 0.5}
    assert matrix["none"] == {"a": 0, "b": 0, "c": 0}


def test_missed_spans_that_overlap_a_spurious_span() -> None:
    gold = {("a", 0, 3), ("b", 5, 6), ("a", 8, 9)}
    predicted = {("a", 0, 2), ("b", 2, 4), ("b", 4, 6)}
    found = confuse([(gold, predicted)])
    assert found["near"] == {"a": {"a": 1}, "b": {"b": 1}}
    assert found["matrix"]["a"]["none"] == 2
    # on equal overlap, the span of the same label
    assert confuse([({("a", 1, 3)}, {("b", 0, 2), ("a", 2, 4)})])["near"] == {"a": {"a": 1}}


def test_a_fixed_label_set_ignores_other_labels() -> None:
    found = confuse([({("a", 0, 1), ("b", 2, 3)}, {("c", 0, 1)})], labels=["c", "a"], none_key="O")
    assert list(found["matrix"]) == ["c", "a", "O"]
    assert found["matrix"]["a"] == {"c": 1, "a": 0, "O": 0}
    with pytest.raises(ConfigError) as error:
        confuse([({("none", 0, 1)}, set())])
    assert error.value.where == "none_key"
    assert confuse([]) == {"matrix": {"none": {}}, "near": {}}


def test_different_tokens_are_compared_by_characters() -> None:
    vocab = Vocab()
    gold, predicted = Doc(vocab, words=["New", "York"]), Doc(vocab, words=["New York"])
    gold.spans["gliner"] = [Span(gold, 0, 2, label="city")]
    predicted.spans["gliner"] = [Span(predicted, 0, 1, label="state")]
    section = {"scorer": {"@scorers": "gliner_pipe.confusion", "none_key": "O"}}
    scorer = Config(section).resolve(registry=registry)["scorer"]
    eg = Example(predicted, gold)
    assert scorer([eg], threshold=0.5)["matrix"]["city"] == {"city": 0, "state": 1, "O": 0}
    assert pickle.loads(pickle.dumps(scorer))([eg]) == scorer([eg])
    assert ConfusionScorer(labels=["city"])([eg])["matrix"] == {
        "city": {"city": 0, "none": 1},
        "none": {"city": 0},
    }
