import pickle

import pytest
from confit import Config
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.vocab import Vocab

from gliner_pipe.data.annotations import set_supervision
from gliner_pipe.data.relations import Relation, set_relations
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.metrics.relations import RelationScorer, score_relations
from gliner_pipe.registry import registry

VOCAB = Vocab()
WORDS = [f"w{i}" for i in range(10)]
#: label, start, end
ENTITIES = [("a", 0, 1), ("b", 2, 4), ("a", 5, 6), ("b", 8, 10)]


def gold_doc(relations, entities=ENTITIES, words=None, key="gliner", **kwargs):
    doc = Doc(VOCAB, words=words or WORDS, **kwargs)
    spans = [Span(doc, start, end, label=label) for label, start, end in entities]
    if key == "ents":
        doc.set_ents(spans)
    else:
        doc.spans[key] = spans
    set_supervision(doc, relations=relations)
    return doc


def predicted_doc(relations, words=None, **kwargs):
    """Document with predicted relations, given as head (label, start, end), tail and label."""
    doc = Doc(VOCAB, words=words or WORDS, **kwargs)
    items = []
    for head, tail, label in relations:
        ends = (Span(doc, start, end, label=name) for name, start, end in (head, tail))
        items.append(Relation(*ends, label, 0.9))
    set_relations(doc, items)
    return doc


def example(gold, predicted):
    return Example(predicted_doc(predicted), gold_doc(gold))


def numbers(row):
    return row["tp"], row["support"], row["positives"]


A, B, C, D = ENTITIES


def test_strict_and_boundary():
    gold = [[0, 1, "x"], [1, 0, "x"], [2, 3, "y"]]
    predicted = [
        (A, B, "x"),  # right
        (("b", 0, 1), D, "x"),  # wrong
        (("b", 2, 4), ("c", 0, 1), "x"),  # boundaries alone
        (D, C, "y"),  # direction
        (C, ("b", 8, 9), "y"),  # boundary
    ]
    scores = RelationScorer()([example(gold, predicted)])
    assert numbers(scores["strict"]["x"]) == (1, 2, 3)
    assert numbers(scores["boundary"]["x"]) == (2, 2, 3)
    assert numbers(scores["strict"]["y"]) == numbers(scores["boundary"]["y"]) == (0, 1, 2)
    assert numbers(scores["strict"]["micro"]) == (1, 3, 5)
    assert scores["strict"]["micro"]["f"] == pytest.approx(2 / 8)
    assert scores["boundary"]["micro"]["f"] == pytest.approx(4 / 8)
    assert scores["strict"]["macro"]["r"] == pytest.approx(1 / 4)
    assert scores["boundary"]["macro"] == pytest.approx({"p": 1 / 3, "r": 1 / 2, "f": 0.4, "labels": 2})
    assert (scores["examples"], scores["skipped"]) == (1, 0)


def test_perfect_predictions():
    scores = RelationScorer()([example([[0, 1, "x"], [0, 1, "y"]], [(A, B, "x"), (A, B, "y")])])
    assert scores["strict"] == scores["boundary"]
    assert {scores["strict"][row]["f"] for row in ("x", "y", "micro", "macro")} == {1.0}


def test_duplicate_relations_count_once():
    scores = RelationScorer()([example([[0, 1, "x"]] * 2, [(A, B, "x")] * 3)])
    assert numbers(scores["strict"]["x"]) == (1, 1, 1)
    twins = RelationScorer()([example([[0, 1, "x"]], [(A, B, "x"), (("c", 0, 1), B, "x")])])
    assert numbers(twins["strict"]["x"]) == (1, 1, 2)
    assert numbers(twins["boundary"]["x"]) == (1, 1, 1)


def test_examples_with_unknown_relations_are_skipped():
    unknown = Example(predicted_doc([(A, B, "x")]), gold_doc(None))
    empty = example([], [(A, B, "x")])
    scores = RelationScorer()([unknown, example([[0, 1, "x"]], [(A, B, "x")]), unknown])
    assert (scores["examples"], scores["skipped"]) == (1, 2)
    assert scores["strict"]["micro"]["f"] == 1.0
    scores = RelationScorer()([empty])
    assert (scores["examples"], scores["skipped"]) == (1, 0)
    assert numbers(scores["strict"]["x"]) == (0, 0, 1)
    nothing = RelationScorer()([unknown])
    assert nothing["strict"]["micro"]["f"] is None
    assert nothing["skipped"] == 1


def test_gold_without_predictions():
    eg = Example(Doc(VOCAB, words=WORDS), gold_doc([[0, 1, "x"]]))
    assert numbers(RelationScorer()([eg])["strict"]["x"]) == (0, 1, 0)


def test_fixed_labels_and_keys():
    eg = example([[0, 1, "x"], [0, 1, "y"]], [(A, B, "x"), (A, B, "z")])
    scores = RelationScorer(labels=["z", "x", "u"], micro_key="all")([eg])["strict"]
    assert list(scores) == ["z", "x", "u", "all", "macro"]
    assert numbers(scores["all"]) == (1, 1, 2)
    with pytest.raises(ConfigError) as error:
        RelationScorer(micro_key="x")([eg])
    assert error.value.where == "micro_key"


@pytest.mark.parametrize("key", ["ents", "other"])
def test_gold_entities_in_another_span_group(key):
    eg = Example(predicted_doc([(A, B, "x")]), gold_doc([[0, 1, "x"]], key=key))
    assert RelationScorer(spans_key=key)([eg])["strict"]["x"]["f"] == 1.0


def test_a_gold_relation_of_a_missing_entity_is_an_error():
    eg = example([[0, 4, "x"]], [])
    set_supervision(eg.reference, source="train.jsonl:3")
    with pytest.raises(DataError) as error:
        RelationScorer()([eg])
    assert error.value.where == "train.jsonl:3 (relations)"


def test_different_tokens_are_compared_by_characters():
    gold = gold_doc([[0, 1, "x"], [1, 0, "x"]], [("a", 0, 2), ("b", 3, 4)], ["New", "York", "is", "bigger"])
    words, spaces = ["New York", "is", "big", "ger"], [True, True, False, False]
    york, bigger, big = ("a", 0, 1), ("b", 2, 4), ("b", 2, 3)
    predicted = predicted_doc([(york, bigger, "x"), (big, york, "x")], words, spaces=spaces)
    assert numbers(RelationScorer()([Example(predicted, gold)])["strict"]["x"]) == (1, 2, 2)
    other = Example(predicted_doc([], ["another", "text"]), gold)
    with pytest.raises(DataError):
        RelationScorer()([other])


def test_the_scorer_resolves_by_name_and_pickles():
    section = {"scorer": {"@scorers": "gliner_pipe.relations", "labels": ["x"]}}
    scorer = Config(section).resolve(registry=registry)["scorer"]
    eg = example([[0, 1, "x"]], [(A, B, "x")])
    assert pickle.loads(pickle.dumps(scorer))([eg], threshold=0.5) == scorer([eg])
    assert registry.metrics.get("gliner_pipe.relations") is RelationScorer


entity = st.tuples(st.integers(0, 3), st.just(1), st.sampled_from("ab")).map(
    lambda e: (e[0], e[0] + e[1], e[2])
)
mention = st.tuples(entity, entity, st.sampled_from("xy"))
mentions = st.frozensets(mention, max_size=6)


@given(st.lists(st.tuples(mentions, mentions), max_size=3))
@settings(deadline=None)
def test_counts_equal_set_intersections(documents):
    for strict in (True, False):

        def seen(item, strict=strict):
            return item if strict else (item[0][:2], item[1][:2], item[2])

        golds = {(i, *seen(item)) for i, (gold, _) in enumerate(documents) for item in gold}
        guesses = {(i, *seen(item)) for i, (_, guess) in enumerate(documents) for item in guess}
        row = score_relations(documents, strict=strict)["micro"]
        assert numbers(row) == (len(golds & guesses), len(golds), len(guesses))
