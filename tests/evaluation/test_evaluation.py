from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import set_supervision
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.evaluation.evaluate import evaluate_pipeline, plain
from gliner_pipe.metrics.spans import ExactScorer
from gliner_pipe.pipeline.annotate import install_extensions


def make_example(
    nlp: Language, words: str, mentions: list[tuple[str, int, int]], key: str = "gliner"
) -> Example:
    predicted = Doc(nlp.vocab, words=words.split())
    reference = Doc(nlp.vocab, words=words.split())
    spans = [Span(reference, start, end, label=label) for label, start, end in mentions]
    if key == "ents":
        reference.set_ents(spans)
    else:
        reference.spans[key] = spans
    return Example(predicted, reference)


@pytest.fixture
def ruler() -> Language:
    """A pipeline without a model that finds Ann and stores it in a span group of its own."""
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler", config={"spans_key": "found"}).add_patterns(
        [{"label": "person", "pattern": "Ann"}]
    )
    return nlp


def examples_for(nlp: Language) -> list[Example]:
    return [
        make_example(nlp, "Ann met Bo in Rome", [("person", 0, 1), ("person", 2, 3), ("city", 4, 5)]),
        make_example(nlp, "nobody slept", []),
    ]


def test_any_pipeline_with_predicted_spans(ruler: Language) -> None:
    scores = evaluate_pipeline(ruler, examples_for(ruler))
    assert scores["exact"]["person"] == {
        "p": 1.0,
        "r": 0.5,
        "f": 2 / 3,
        "tp": 1,
        "support": 2,
        "positives": 1,
    }
    assert scores["exact"]["micro"]["r"] == pytest.approx(1 / 3)
    assert list(scores["exact"]) == ["city", "person", "micro", "macro"]
    assert scores["labels"] == ["city", "person"]
    assert (scores["docs"], scores["words"], scores["threshold"]) == (2, 7, None)
    assert scores["words_per_second"] == pytest.approx(7 / scores["seconds"])
    assert scores["docs_per_second"] == pytest.approx(2 / scores["seconds"])
    assert scores["unasked_labels"] == scores["left_out"] == {}


def test_predicted_labels_without_gold_lower_precision(ruler: Language) -> None:
    scores = evaluate_pipeline(
        ruler, [make_example(ruler, "Ann in Rome", [("city", 2, 3)])], metrics=["exact"]
    )
    assert scores["labels"] == ["city", "person"]
    assert scores["exact"]["micro"]["positives"] == 1
    assert "overlap" not in scores


def test_gold_in_doc_ents(ruler: Language) -> None:
    examples = [make_example(ruler, "Ann slept", [("person", 0, 1)], key="ents")]
    assert evaluate_pipeline(ruler, examples)["exact"]["micro"]["f"] == 1.0
    assert evaluate_pipeline(ruler, examples, span_getter="ents")["exact"]["micro"]["f"] == 1.0


def test_predictions_in_doc_ents() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": "person", "pattern": "Ann"}])
    assert evaluate_pipeline(nlp, examples_for(nlp))["exact"]["person"]["r"] == 0.5


def test_the_pipeline_sees_only_words(ruler: Language) -> None:
    seen: list[Doc] = []

    @Language.component("witness_of_evaluation")
    def witness(doc: Doc) -> Doc:
        assert not doc.spans and not doc.ents and not doc.user_data
        assert doc._.gliner_labels is None
        seen.append(doc)
        return doc

    install_extensions()
    ruler.add_pipe("witness_of_evaluation", first=True)
    examples = examples_for(ruler)
    for eg in examples:
        set_supervision(eg.reference, ner_labels=["person"])
        eg.predicted.spans["found"] = [Span(eg.predicted, 0, 1, label="city")]
        eg.predicted._.gliner_labels = ["city"]
    evaluate_pipeline(ruler, examples)
    assert [doc.text for doc in seen] == [eg.predicted.text for eg in examples]
    assert not {id(doc) for doc in seen} & {
        id(doc) for eg in examples for doc in (eg.predicted, eg.reference)
    }
    assert [span.label_ for span in examples[0].predicted.spans["found"]] == ["city"]


def test_no_examples(ruler: Language) -> None:
    with pytest.raises(DataError):
        evaluate_pipeline(ruler, [])


def test_custom_scorers(ruler: Language) -> None:
    scorers = {
        "mine": lambda examples: {"count": np.int64(len(list(examples)))},
        "strict": ExactScorer("gliner", "found"),
        "own": ExactScorer("gliner", "found", labels=["city"]),
    }
    scores = evaluate_pipeline(ruler, examples_for(ruler), scorers=scorers)
    assert scores["mine"] == {"count": 2} and type(scores["mine"]["count"]) is int
    assert list(scores["strict"]) == ["city", "person", "micro", "macro"]
    assert list(scores["own"]) == ["city", "micro", "macro"]
    assert "exact" not in scores


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"scorers": {"labels": ExactScorer()}}, "scorers.labels"),
        ({"scorers": {"confusion": ExactScorer()}, "confusion": True}, "scorers.confusion"),
        ({"scorers": {"zero_shot": ExactScorer()}, "unseen": ["city"]}, "scorers.zero_shot"),
        ({"metrics": ["exact", "bleu"]}, "metrics"),
        ({"labels": ["a"]}, "labels"),
        ({"threshold": 0.5}, "threshold"),
        ({"negatives": 1}, "negatives"),
    ],
)
def test_invalid_options(ruler: Language, options: dict[str, Any], where: str) -> None:
    with pytest.raises(ConfigError) as error:
        evaluate_pipeline(ruler, examples_for(ruler), **options)
    assert error.value.where == where


def test_seqeval_confusion_and_zero_shot_scores(ruler: Language) -> None:
    scores = evaluate_pipeline(
        ruler, examples_for(ruler), metrics=["seqeval"], confusion=True, unseen=["city"], batch_size=1
    )
    assert scores["seqeval"]["per_class"]["person"]["r"] == 0.5
    assert scores["seqeval"]["accuracy"] == pytest.approx(5 / 7)
    assert scores["confusion"]["matrix"]["person"] == {"city": 0, "person": 1, "none": 1}
    assert scores["zero_shot"]["unseen"]["micro"]["support"] == 1


def test_the_labels_of_the_component_are_predicted(nlp: Language) -> None:
    examples = [make_example(nlp, "Ann met Bo in Rome", [("person", 0, 1), ("animal", 2, 3)])]
    scores = evaluate_pipeline(nlp, examples, threshold=0.0)
    assert scores["labels"] == ["person", "city", "animal"]
    assert scores["unasked_labels"] == {"animal": 1}
    assert scores["threshold"] == 0.0
    assert scores["exact"]["animal"]["positives"] == 0
    assert scores["exact"]["micro"]["positives"] > 0
    assert nlp.get_pipe("gliner").threshold == 0.5


def test_a_component_without_labels_predicts_all_gold_labels(nlp: Language) -> None:
    component = nlp.get_pipe("gliner")
    component.labels = []
    examples = [
        make_example(nlp, "Ann met Bo in Rome", [("person", 0, 1)]),
        make_example(nlp, "a cat slept", [("animal", 1, 2)]),
    ]
    with_both = evaluate_pipeline(nlp, examples, threshold=0.0)
    assert with_both["labels"] == ["animal", "person"]
    assert with_both["unasked_labels"] == {}
    assert component.labels == ()
    given = evaluate_pipeline(nlp, examples, threshold=0.0, labels=["animal", "person"])
    assert given["exact"] == with_both["exact"]


def test_a_fixed_label_set_ignores_other_labels(nlp: Language) -> None:
    examples = [make_example(nlp, "Ann met Bo in Rome", [("person", 0, 1), ("city", 4, 5)])]
    scores = evaluate_pipeline(nlp, examples, labels=["city"], threshold=0.0)
    assert scores["labels"] == ["city"]
    assert scores["left_out"] == {"person": 1}
    assert scores["exact"]["micro"]["support"] == 1
    assert nlp.get_pipe("gliner").labels == ("person", "city")


def test_batches_do_not_change_scores(nlp: Language) -> None:
    examples = examples_for(nlp) * 3
    one, four = (evaluate_pipeline(nlp, examples, threshold=0.4, batch_size=size) for size in (1, 4))
    assert one["exact"] == four["exact"] and one["token"] == four["token"]


def test_nlp_evaluate_returns_the_names_of_spacy(nlp: Language) -> None:
    nlp.get_pipe("gliner").threshold = 0.0
    examples = examples_for(nlp)
    ours = evaluate_pipeline(nlp, examples, metrics=["exact"])["exact"]["micro"]
    theirs = nlp.evaluate(examples)
    assert {key: theirs[f"spans_gliner_{key}"] for key in "prf"} == pytest.approx(
        {key: ours[key] for key in "prf"}
    )


def test_results_are_converted_to_json_types() -> None:
    value = plain({"a": np.float32(0.5), 1: (np.int64(2), None, "x")})
    assert value == {"a": 0.5, "1": [2, None, "x"]}
    assert type(value["a"]) is float
