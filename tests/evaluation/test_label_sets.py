from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
from conftest import gliner_config
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import set_supervision
from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import default_scorers_for, evaluate_pipeline
from gliner_pipe.evaluation.label_sets import labels_to_predict, set_sampled_labels
from gliner_pipe.pipeline.labels import parse_labels
from gliner_pipe.pipeline.overrides import override

LABELS = parse_labels([{"label": "a", "description": "the first", "threshold": 0.3}, *"bcdef"], "labels")


def example(nlp: Language, words: str, *labels: str) -> Example:
    reference = Doc(nlp.vocab, words=words.split())
    reference.spans["gliner"] = [Span(reference, at, at + 1, label=label) for at, label in enumerate(labels)]
    return Example(Doc(nlp.vocab, words=words.split()), reference)


def sampled(
    nlp: Language, texts: list[str], gold: list[list[str]], negatives: int, seed: int = 0
) -> list[Any]:
    docs = [Doc(nlp.vocab, words=text.split()) for text in texts]
    set_sampled_labels(nlp, docs, gold, LABELS, negatives, seed)
    return [doc._.gliner_labels for doc in docs]


def names(labels: list[Any]) -> list[str]:
    return [item if isinstance(item, str) else item["label"] for item in labels]


def test_gold_labels_and_sampled_others_in_the_order_of_the_label_set(nlp: Any) -> None:
    first, second, third = sampled(nlp, ["x y", "x z", "y z"], [["e", "a", "a"], [], list("abcdef")], 2)
    assert len(first) == 4 and {"a", "e"} < set(names(first))
    assert names(first) == sorted(names(first))
    assert first[0] == {"label": "a", "description": "the first", "threshold": 0.3}
    assert len(second) == 2
    assert names(third) == list("abcdef")
    assert sampled(nlp, ["x y"], [["b"]], 0) == [["b"]]


def test_gold_labels_outside_the_label_set_are_not_predicted(nlp: Any) -> None:
    assert sampled(nlp, ["x"], [["river", "b"]], 0) == [["b"]]


def test_the_sample_depends_only_on_text_and_seed(nlp: Any) -> None:
    texts = [f"text number {number}" for number in range(20)]
    gold: list[list[str]] = [["b"] for _ in texts]
    once = sampled(nlp, texts, gold, 2)
    assert sampled(nlp, texts[::-1], gold, 2)[::-1] == once
    assert sampled(nlp, texts[3:5], gold[3:5], 2) == once[3:5]
    assert sampled(nlp, texts, gold, 2, seed=1) != once
    assert len({tuple(names(labels)) for labels in once}) > 3


def test_an_evaluation_with_sampled_negatives(nlp: Any) -> None:
    seen: list[list[str]] = []

    @Language.component("witness_of_sampling")
    def witness(doc: Doc) -> Doc:
        assert not doc.spans and not doc.ents
        seen.append(names(doc._.gliner_labels or []))
        return doc

    nlp.add_pipe("witness_of_sampling", first=True)
    nlp.get_pipe("gliner").labels = ["person", "city", "animal", "tool"]
    examples = [
        example(nlp, "Ann met Bo", "person"),
        example(nlp, "a moon", "planet", "planet"),
        example(nlp, "yes"),
    ]
    scores = evaluate_pipeline(nlp, examples, negatives=1, threshold=0.0, metrics=["exact"])
    assert scores["negatives"] == 1
    assert [len(labels) for labels in seen] == [2, 2, 1]
    assert "person" in seen[0] and "planet" in seen[1]
    assert scores["labels"] == ["person", "city", "animal", "tool", "planet"]
    assert scores["unasked_labels"] == {}
    predicted = {label for labels in seen for label in labels}
    assert {label for label in scores["labels"] if scores["exact"][label]["positives"]} <= predicted
    # with all labels as negatives, the label set is the whole label set
    every = evaluate_pipeline(nlp, examples, negatives=99, threshold=0.0, metrics=["exact"])
    plain = evaluate_pipeline(nlp, examples, labels=scores["labels"], threshold=0.0, metrics=["exact"])
    assert every["exact"] == plain["exact"] and "negatives" not in plain


def test_sampled_labels_reach_worker_processes(nlp: Any) -> None:
    examples = [example(nlp, "Ann met Bo", "person"), example(nlp, "a moon", "planet")]
    one, two = (
        evaluate_pipeline(nlp, examples, negatives=0, threshold=0.0, metrics=["exact"], n_process=number)
        for number in (1, 2)
    )
    assert one["exact"] == two["exact"]
    assert one["exact"]["city"]["positives"] == 0 < one["exact"]["planet"]["positives"]


def test_the_number_of_sampled_labels_is_not_negative(nlp: Any) -> None:
    with pytest.raises(ConfigError) as error:
        evaluate_pipeline(nlp, [example(nlp, "Ann met Bo", "person")], negatives=-1)
    assert error.value.where == "negatives"


def test_labels_to_predict_are_given_or_of_the_component_or_of_the_data(nlp: Any) -> None:
    support = {"river": 2, "city": 1}
    assert labels_to_predict(nlp, ["x"], support) == ["x"]
    assert labels_to_predict(nlp, None, support) is None
    with override(nlp, labels=labels_to_predict(nlp, None, support, ["moon"], all_gold=True)):
        assert nlp.get_pipe("gliner").labels == ("person", "city", "river", "moon")
    nlp.get_pipe("gliner").labels = []
    assert labels_to_predict(nlp, None, support) == ["city", "river"]
    assert labels_to_predict(spacy.blank("en"), None, support) is None


def test_training_scores_relations_by_default_if_there_are_any(nlp: Any, backbone: Path) -> None:
    entities = [example(nlp, "Ann met Bo", "person")]
    related = [example(nlp, "Ann met Bo", "person", "person")]
    set_supervision(related[0].reference, relations=[[0, 1, "met"]])
    assert list(default_scorers_for(nlp, related)) == ["ner"]
    config = gliner_config(backbone)
    config["model"] |= {"relation_layer": {"@relation_layers": "dot"}}
    finder = spacy.blank("en")
    finder.add_pipe("gliner", config=config)
    assert list(default_scorers_for(finder, entities)) == ["ner"]
    scorers = default_scorers_for(finder, related)
    perfect = [Example(eg.reference, eg.reference) for eg in related]
    assert scorers["ner"](perfect)["micro"]["f"] == 1.0
    assert scorers["relations"](perfect)["strict"]["met"]["support"] == 1
