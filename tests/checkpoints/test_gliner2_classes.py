"""Classes of GLiNER2 checkpoints (architecture ``span``), beside the `gliner2` package."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from gliner2_parity import CLOSE, LABELS, TEXTS, checkpoint, load, load_peer, our_entities
from spacy.training import Example

from gliner_pipe.modeling.inference import TokenBudget, predict_spans

TONE = ["positive", "negative", "neutral"]
TOPICS = {"sports": "games and matches", "work": "jobs, employers", "travel": "trips"}
EXAMPLES = [["We won!", "sports"], ["I took a train.", "travel"]]


def their_scores(peer: Any, texts: list[str], schema: Any, task: str, labels: list[str]) -> list[list[float]]:
    """Probability of each label of a task, from the package's own computation before it decides."""
    seen: list[list[float]] = []
    decide = peer._decode_classification_probabilities

    def spy(results: Any, name: str, config: Any, probs: Any) -> None:
        if name == task:
            assert config["labels"] == labels
            seen.append(probs.tolist())
        decide(results, name, config, probs)

    peer._decode_classification_probabilities = spy
    try:
        peer.batch_extract(texts, schema, batch_size=8)
    finally:
        del peer._decode_classification_probabilities
    return seen


@pytest.mark.parametrize("counter", ["count_lstm", "count_lstm_v2"])
def test_several_tasks_in_one_pass(counter: str) -> None:
    folder = checkpoint(counter)
    peer = load_peer(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = (
            peer.create_schema()
            .entities({label: f"a {label}" for label in LABELS}, threshold=0.02)
            .classification("tone", TONE)
            .classification(
                "topics",
                TOPICS,
                multi_label=True,
                cls_threshold=0.4,
                prompt="what it is about",
                examples=[tuple(one) for one in EXAMPLES],
            )
        )
    nlp = load(
        folder,
        labels=[{"label": label, "description": f"a {label}"} for label in LABELS],
        classes={
            "tone": TONE,
            "topics": {
                "labels": TOPICS,
                "multi_label": True,
                "threshold": 0.4,
                "description": "what it is about",
                "examples": EXAMPLES,
            },
        },
        threshold=0.02,
    )
    theirs = peer.batch_extract(
        TEXTS, schema, batch_size=8, threshold=0.02, include_confidence=True, include_spans=True
    )
    scores = [
        their_scores(peer, TEXTS, schema, name, list(labels))
        for name, labels in (("tone", TONE), ("topics", TOPICS))
    ]
    for docs in (list(nlp.pipe(TEXTS)), list(map(nlp, TEXTS))):
        for doc, result, tone, topics in zip(docs, theirs, *scores, strict=True):
            wanted = {f"tone={label}": score for label, score in zip(TONE, tone, strict=True)}
            wanted |= {f"topics={label}": score for label, score in zip(TOPICS, topics, strict=True)}
            assert doc.cats == pytest.approx(wanted, abs=CLOSE)
            chosen = {"tone": result["tone"]["label"], "topics": [one["label"] for one in result["topics"]]}
            assert doc._.classes == chosen
            entities = {
                (one["start"], one["end"], label): one["confidence"]
                for label, some in result["entities"].items()
                for one in some
            }
            assert our_entities([doc]) == [pytest.approx(entities, abs=CLOSE)]


def test_classes_alone() -> None:
    folder = checkpoint("count_lstm_moe")
    peer, nlp = load_peer(folder), load(folder, classes={"tone": TONE})
    schema = peer.create_schema().classification("tone", TONE)
    for doc, wanted in zip(nlp.pipe(TEXTS), their_scores(peer, TEXTS, schema, "tone", TONE), strict=True):
        assert doc.cats == pytest.approx(dict(zip(TONE, wanted, strict=True)), abs=CLOSE)
        assert sum(doc.cats.values()) == pytest.approx(1)
        assert doc._.classes == {"tone": max(doc.cats, key=doc.cats.get)}
        assert not doc.spans["gliner"]


def test_each_document_may_have_classes_of_its_own() -> None:
    folder = checkpoint("count_lstm")
    nlp = load(folder, labels=LABELS, classes={"tone": TONE}, threshold=0.02)
    own = nlp.make_doc(TEXTS[0])
    own._.gliner_classes = {"long": ["yes", "no", "maybe", "who knows"], "tone": TONE}
    none = nlp.make_doc(TEXTS[2])
    none._.gliner_classes = {}
    docs = list(nlp.pipe([own, nlp.make_doc(TEXTS[1]), none]))
    assert [set(doc._.classes) for doc in docs] == [{"long", "tone"}, {"tone"}, set()]
    assert len(own.cats) == 7
    assert set(docs[1].cats) == set(TONE)
    assert not none.cats
    for doc in docs:  # in one batch as alone
        alone = nlp.make_doc(doc.text)
        alone._.gliner_classes = doc._.gliner_classes
        alone = nlp(alone)
        assert alone.cats == pytest.approx(doc.cats, abs=1e-5)
        assert our_entities([alone]) == [pytest.approx(our_entities([doc])[0], abs=1e-5)]


def test_long_texts_have_one_logit_for_all_windows() -> None:
    """In the mean, logits count as often as a window owns words."""
    nlp = load(checkpoint("count_lstm"), classes={"tone": {"labels": TONE, "multi_label": True}})
    backbone = nlp.get_pipe("gliner").gliner.encoder.backbone
    text = " ".join(TEXTS[:1] * 3)
    backbone.window, backbone.stride = 24, 16
    component = nlp.get_pipe("gliner")
    windows = component.prepare([nlp.make_doc(text)]).windows
    assert len(windows) > 2
    one_by_one = [
        predict_spans(component.gliner, [window], [[]], TokenBudget(512))[0].class_logits[0]
        for window in windows
    ]
    sizes = [window.own_stop - window.own_start for window in windows]
    assert sum(sizes) == len(component.word_splitter.split(nlp.make_doc(text)).texts)
    mean = sum(size * logits for size, logits in zip(sizes, one_by_one, strict=True)) / sum(sizes)
    largest = np.maximum.reduce(one_by_one)
    for how, logits in (("mean", mean), ("max", largest), ("first", one_by_one[0])):
        component.cfg["class_aggregation"] = how
        wanted = 1 / (1 + np.exp(-logits))
        assert list(nlp(text).cats.values()) == pytest.approx(wanted.tolist(), abs=1e-6)


@pytest.mark.parametrize(
    "tasks", [{"tone": TONE}, {"tone": TONE, "topics": {"labels": TOPICS, "multi_label": True}}]
)
def test_evaluated_with_the_pipeline(tasks: dict[str, Any]) -> None:
    nlp = load(checkpoint("count_lstm"), classes=tasks)
    examples = []
    for doc in nlp.pipe(TEXTS):
        gold = nlp.make_doc(doc.text)
        gold.cats = {f"tone={label}": float(label == doc._.classes["tone"]) for label in TONE}
        examples.append(Example(nlp.make_doc(doc.text), gold))
    scores = nlp.evaluate(examples)
    assert scores["cats_accuracy"] == scores["cats_micro_f"] == 1.0
    gold = examples[0].reference
    gold.cats = {key: 1.0 - score for key, score in gold.cats.items()}
    assert nlp.evaluate(examples[:1])["cats_accuracy"] < 1.0
