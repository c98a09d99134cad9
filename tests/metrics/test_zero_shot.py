from __future__ import annotations

import pickle
from typing import Any

import pytest
from confit import Config
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.vocab import Vocab

from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import evaluate_pipeline
from gliner_pipe.metrics.spans import ExactScorer, ZeroShotScorer
from gliner_pipe.registry import registry
from gliner_pipe.training.validation import Validation, choose_metric

VOCAB = Vocab()


def make_doc(mentions: Any) -> Doc:
    doc = Doc(VOCAB, words=[f"w{i}" for i in range(10)])
    doc.spans["gliner"] = [Span(doc, start, end, label=label) for label, start, end in mentions]
    return doc


EXAMPLE = Example(
    make_doc([("person", 0, 1), ("river", 2, 3), ("river", 4, 5), ("city", 6, 7)]),
    make_doc([("person", 0, 1), ("city", 4, 5), ("river", 6, 7), ("river", 2, 3)]),
)


def test_unseen_and_seen_labels_are_scored_separately() -> None:
    scores = ZeroShotScorer(unseen=["river", "moon"])([EXAMPLE])
    assert list(scores) == ["unseen", "seen"]
    assert scores["unseen"]["river"] == {"p": 0.5, "r": 0.5, "f": 0.5, "tp": 1, "support": 2, "positives": 2}
    assert scores["unseen"]["moon"]["f"] is None
    assert list(scores["seen"]) == ["city", "person", "micro", "macro"]
    assert (scores["seen"]["person"]["f"], scores["seen"]["city"]["f"]) == (1.0, 0.0)
    whole = ExactScorer()([EXAMPLE])
    for key in ("tp", "support", "positives"):
        assert sum(scores[group]["micro"][key] for group in scores) == whole["micro"][key]
    assert (
        ZeroShotScorer(unseen=["river"], labels=["person", "river"])([EXAMPLE])["seen"]["micro"]["f"] == 1.0
    )


def test_resolves_by_name_and_pickles() -> None:
    section = {"scorer": {"@scorers": "gliner_pipe.zero_shot", "unseen": ["river"], "micro_key": "all"}}
    scorer = Config(section).resolve(registry=registry)["scorer"]
    assert pickle.loads(pickle.dumps(scorer))([EXAMPLE], threshold=0.1) == scorer([EXAMPLE])
    assert scorer([EXAMPLE])["unseen"]["all"]["support"] == 2
    with pytest.raises(ConfigError) as error:
        ZeroShotScorer(unseen=[])
    assert error.value.where == "gliner_pipe.zero_shot.unseen"


def test_an_evaluation_also_predicts_unseen_labels(nlp: Any) -> None:
    examples = [EXAMPLE]
    scores = evaluate_pipeline(nlp, examples, unseen=["river"], threshold=0.0, metrics=["exact"])
    assert scores["labels"] == ["person", "city", "river"]
    assert scores["unasked_labels"] == {}
    assert scores["zero_shot"]["unseen"]["river"] == scores["exact"]["river"]
    assert scores["zero_shot"]["seen"]["person"] == scores["exact"]["person"]
    assert nlp.get_pipe("gliner").labels == ("person", "city")
    stated = evaluate_pipeline(nlp, examples, unseen=["river"], labels=["river", "city"], metrics=["exact"])
    assert stated["labels"] == ["river", "city"]
    assert "person" not in stated["zero_shot"]["seen"]
    with pytest.raises(ConfigError) as error:
        evaluate_pipeline(nlp, examples, unseen=["river"], labels=["city"])
    assert error.value.where == "unseen"


def test_training_can_select_the_model_by_unseen_labels(nlp: Any) -> None:
    scorers = {"zero_shot": ZeroShotScorer(unseen=["river"])}
    metric = choose_metric("zero_shot.unseen.micro.f", scorers, [EXAMPLE])
    validation = Validation([EXAMPLE], scorers, metric)
    nlp.get_pipe("gliner").threshold = 0.0
    scores, facts = validation(nlp)
    assert "river" in facts["labels"]
    assert validation.main_score(scores) == scores["zero_shot"]["unseen"]["micro"]["f"]
    assert scores["zero_shot"]["unseen"]["micro"]["support"] == 2
