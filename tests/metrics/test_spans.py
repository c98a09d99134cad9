from __future__ import annotations

import pickle
from typing import Any

import pytest
import spacy
from confit.errors import ConfitValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.pipeline.spancat import spancat_score
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import filter_spans
from spacy.vocab import Vocab

from gliner_pipe.errors import DataError
from gliner_pipe.metrics.alignment import get_spans, paired_mentions, prediction_getter
from gliner_pipe.metrics.spans import ComponentScorer, ExactScorer, OverlapScorer, TokenScorer, score_ents
from gliner_pipe.registry import registry

VOCAB = Vocab()
WORDS = [f"w{i}" for i in range(12)]


def make_doc(mentions: Any, words: list[str] | None = None, key: str = "gliner", **kwargs: Any) -> Doc:
    doc = Doc(VOCAB, words=WORDS if words is None else words, **kwargs)
    spans = [Span(doc, start, end, label=label) for label, start, end in mentions]
    if key == "ents":
        doc.set_ents(spans)
    else:
        doc.spans[key] = spans
    return doc


def example(gold: Any, predicted: Any) -> Example:
    return Example(make_doc(predicted), make_doc(gold))


mention = st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 8), st.integers(1, 3)).map(
    lambda item: (item[0], item[1], item[1] + item[2])
)
#: lists, so that duplicates occur
pairs = st.lists(
    st.tuples(st.lists(mention, max_size=5), st.lists(mention, max_size=5)), min_size=1, max_size=3
)


@given(data=pairs)
@settings(deadline=None)
def test_exact_agrees_with_spacy(data: Any) -> None:
    examples = [example(gold, predicted) for gold, predicted in data]
    expected = spancat_score(examples, spans_key="gliner")
    ours = ExactScorer()(examples)
    assert {key: ours["micro"][key] for key in "prf"} == pytest.approx(
        {key: expected[f"spans_gliner_{key}"] for key in "prf"}
    )
    for label, row in (expected["spans_gliner_per_type"] or {}).items():
        assert {key: ours[label][key] for key in "prf"} == pytest.approx(row)
    assert ComponentScorer()(examples) == expected


def test_duplicates_count_once() -> None:
    row = ExactScorer()([example([("a", 0, 1)] * 2, [("a", 0, 1)] * 3)])["a"]
    assert (row["tp"], row["support"], row["positives"]) == (1, 1, 1)


def test_span_getters() -> None:
    doc = make_doc([("a", 0, 1)], key="x")
    doc.spans["y"] = [Span(doc, 1, 2, label="b")]
    doc.set_ents([Span(doc, 4, 5, label="c")])

    def labels(getter: Any) -> list[str]:
        return [span.label_ for span in get_spans(doc, getter)]

    assert labels("x") == ["a"]
    assert labels("ents") == ["c"]
    assert labels(["y", "ents"]) == ["b", "c"]
    assert labels("*") == ["a", "b"]
    assert labels("absent") == ["c"]
    assert labels(["absent", "x"]) == ["a"]


def test_gold_and_predictions_in_different_span_groups() -> None:
    eg = Example(make_doc([("a", 0, 1)], key="found"), make_doc([("a", 0, 1)], key="ents"))
    assert ExactScorer("ents", "found")([eg])["micro"]["f"] == 1.0
    assert ExactScorer("gliner", "found")([eg])["micro"]["f"] == 1.0  # gold without the group: doc.ents
    assert ComponentScorer("found")([eg], gold_spans_key="gold")["spans_found_f"] == 1.0


def test_different_tokens_are_compared_by_characters() -> None:
    gold = make_doc([("a", 0, 2), ("b", 3, 4)], ["New", "York", "is", "bigger"])
    predicted = make_doc(
        [("a", 0, 1), ("b", 2, 3)], ["New York", "is", "big", "ger"], spaces=[True, True, False, False]
    )
    eg = Example(predicted, gold)
    exact = ExactScorer()([eg])
    assert exact["a"]["f"] == 1.0
    assert exact["b"] == {"p": 0.0, "r": 0.0, "f": 0.0, "tp": 0, "support": 1, "positives": 1}
    # a part of a word covers the word
    assert TokenScorer()([eg])["b"]["f"] == 1.0
    assert OverlapScorer(threshold=1.0)([eg])["a"]["f"] == 1.0
    assert paired_mentions(eg, "gliner", "gliner", "tokens")[1] == {("a", 0, 2), ("b", 3, 4)}


def test_white_space_tokens_do_not_shift_anything() -> None:
    gold = make_doc([("a", 1, 2)], ["see", "Rome", "now"])
    predicted = make_doc([("a", 2, 3)], ["see", " \n ", "Rome", "now"], spaces=[False, False, True, False])
    eg = Example(predicted, gold)
    assert [scorer()([eg])["a"]["f"] for scorer in (ExactScorer, OverlapScorer, TokenScorer)] == [1.0] * 3


def test_different_texts_are_an_error() -> None:
    with pytest.raises(DataError):
        ExactScorer()([Example(make_doc([], ["a", "c"]), make_doc([], ["a", "b"]))])


def test_empty_documents() -> None:
    scores = ExactScorer()([Example(make_doc([], []), make_doc([], []))])
    assert scores["micro"] == {"p": None, "r": None, "f": None, "tp": 0, "support": 0, "positives": 0}
    assert ComponentScorer()([Example(make_doc([], []), make_doc([], []))])["spans_gliner_f"] is None


def test_the_component_scorer_skips_unannotated_gold() -> None:
    bare = Example(make_doc([("a", 0, 1)]), Doc(VOCAB, words=WORDS))
    assert ComponentScorer()([bare])["spans_gliner_p"] is None
    assert ComponentScorer()([bare, example([("a", 0, 1)], [("a", 0, 1)])])["spans_gliner_p"] == 1.0


def test_entities_are_scored_if_some_were_predicted() -> None:
    """Gold entities are those of ``doc.ents``, or of the span group in a document without gold ``doc.ents``."""
    gold = [("a", 0, 1), ("b", 0, 2), ("a", 4, 5)]
    predicted = make_doc([("a", 0, 1), ("a", 6, 7)], key="ents")
    in_group = Example(predicted, make_doc(gold))
    assert not any(key.startswith("ents") for key in ComponentScorer()([example(gold, gold)]))
    assert ComponentScorer()([example(gold, [])], annotate_ents=True)["ents_f"] == 0.0  # nothing was found
    assert "ents_f" not in ComponentScorer()([in_group], annotate_ents=False)
    scores = ComponentScorer()([in_group])
    assert (scores["ents_p"], scores["ents_r"]) == (0.5, pytest.approx(1 / 3))
    assert scores["ents_per_type"]["b"]["r"] == 0.0
    in_ents = Example(predicted, make_doc([("a", 0, 1)], key="ents"))
    assert ComponentScorer()([in_ents])["ents_r"] == 1.0
    assert score_ents([in_group, in_ents], "*")["ents_r"] == pytest.approx(2 / 4)
    assert score_ents([Example(predicted, make_doc([], key="other"))], "gliner")["ents_f"] is None


@given(data=pairs)
@settings(deadline=None, max_examples=20)
def test_the_scores_of_entities_are_those_of_ner(data: Any) -> None:
    docs = [(make_doc([], key="ents"), make_doc([], key="ents"), mentions) for mentions in data]
    for gold, predicted, mentions in docs:
        for doc, some in zip((gold, predicted), mentions, strict=True):
            doc.ents = filter_spans([Span(doc, start, end, label=label) for label, start, end in some])
    examples = [Example(predicted, gold) for gold, predicted, _ in docs]
    expected = get_ner_prf(examples)
    scores = score_ents(examples, "gliner")
    assert {key: scores[key] for key in expected if key != "ents_per_type"} == {
        key: expected[key] for key in expected if key != "ents_per_type"
    }


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1, True])
def test_dice_threshold_range(threshold: float) -> None:
    with pytest.raises(ConfitValidationError) as error:
        OverlapScorer(threshold=threshold)
    assert error.value.errors()[0]["loc"] == ("threshold",)


@pytest.mark.parametrize("name", ["ner_exact", "ner_overlap", "ner_token", "spans_scorer.v1"])
def test_registered_for_confit_and_for_spacy(name: str) -> None:
    name = f"gliner_pipe.{name}"
    assert registry.metrics.get(name) is not None
    assert name in registry.scorers.get_available()
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler", config={"spans_key": "gliner", "scorer": {"@scorers": name}}).add_patterns(
        [{"label": "a", "pattern": "w1"}]
    )
    scores = nlp.evaluate([Example(nlp.make_doc("w0 w1"), make_doc([("a", 1, 2)], ["w0", "w1"]))])
    assert (scores["spans_gliner_f"] if "spans_scorer" in name else scores["micro"]["f"]) == 1.0


def test_scorers_are_pickled() -> None:
    examples = [example([("a", 0, 1)], [("a", 0, 2)])]
    for scorer in (ExactScorer(), OverlapScorer(), TokenScorer(), ComponentScorer()):
        assert pickle.loads(pickle.dumps(scorer))(examples) == scorer(examples)


def test_prediction_getter() -> None:
    nlp = spacy.blank("en")
    assert prediction_getter(nlp) == "ents"
    nlp.add_pipe("entity_ruler")
    assert prediction_getter(nlp) == "ents"
    nlp.add_pipe("span_ruler", config={"spans_key": "one"})
    assert prediction_getter(nlp) == "one"
    nlp.add_pipe("span_ruler", name="second", config={"spans_key": "two"})
    assert prediction_getter(nlp) == ["one", "two"]
