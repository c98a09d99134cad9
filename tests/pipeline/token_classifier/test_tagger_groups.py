"""Gold spans in several span groups: all of them are learned, predicted, and scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example
from tagging_pipeline import DATA, config, example

from gliner_pipe.evaluate import evaluate, evaluate_pipeline
from gliner_pipe.evaluation.evaluate import default_scorers_for
from gliner_pipe.metrics.alignment import get_scores, get_spans, prediction_getter
from gliner_pipe.train import train

#: Cities of people stand among the towns, too: a label in two groups.
GROUPS = {"person": ["people"], "city": ["places", "towns"]}


def grouped(nlp: Any, words: list[str], entities: list[tuple[int, int, str]]) -> Example:
    made = example(nlp, words, [], "people")
    for label, groups in GROUPS.items():
        spans = [
            Span(made.reference, start, end + 1, label) for start, end, name in entities if name == label
        ]
        for group in groups:
            made.reference.spans[group] = spans
    return made


def tagger(backbone: Path, getter: Any, **changes: Any) -> tuple[Any, list[Example]]:
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", config=config(backbone, target_span_getter=getter, **changes))
    return nlp, [grouped(nlp, *item) for item in DATA]


def learn(nlp: Any, gold: list[Example], steps: int = 30) -> None:
    optimizer = nlp.initialize(lambda: gold)
    optimizer.learn_rate = 0.003
    for _ in range(steps):
        nlp.update(gold, sgd=optimizer)


def test_each_group_is_scored(backbone: Path) -> None:
    nlp, gold = tagger(backbone, ["people", "places", "towns"])
    learn(nlp, gold)
    component = nlp.get_pipe("token_classifier")
    assert component.spans_keys == prediction_getter(nlp) == ["people", "places", "towns"]
    scores = nlp.evaluate(gold)
    assert set(scores["tags_per_type"]) == {"person", "city"} and scores["tags_f"] == 1.0
    rows = evaluate_pipeline(nlp, gold)["exact"]
    # a city stands in two groups, but it is one entity
    assert rows["city"]["support"] == rows["city"]["positives"] == 20
    assert rows["person"]["support"] == 16 and rows["micro"]["f"] == 1.0
    assert evaluate_pipeline(nlp, gold, metrics=["seqeval"])["seqeval"]["overlapping"] == {
        "gold": 0,
        "predicted": 0,
    }


def test_a_group_that_is_predicted_wrong_costs(backbone: Path) -> None:
    nlp, gold = tagger(backbone, ["people", "places"])
    learn(nlp, gold, steps=1)
    (score,) = default_scorers_for(nlp, gold).values()

    def predicted(people: bool, places: bool) -> float:
        pairs = []
        for one in gold:
            doc = one.reference.copy()
            for key, right in (("people", people), ("places", places)):
                if not right:
                    doc.spans[key] = []
            pairs.append(Example(doc, one.reference))
        return float(score(pairs)["micro"]["r"])

    assert predicted(True, True) == 1.0
    assert predicted(True, False) == pytest.approx(16 / 36)
    assert predicted(False, True) == pytest.approx(20 / 36)


def test_labels_of_a_group_that_are_not_learned_do_not_count(backbone: Path) -> None:
    nlp, gold = tagger(backbone, {"people": True, "places": ["town"]})
    for one in gold[:2]:
        one.reference.spans["places"].append(Span(one.reference, 2, 3, "town"))
    learn(nlp, gold)
    rows = evaluate_pipeline(nlp, gold)["exact"]
    assert rows["person"]["f"] == 1.0 and rows["town"]["support"] == 2 and "city" not in rows


def test_where_predictions_are_read(backbone: Path) -> None:
    def places(getter: Any, **changes: Any) -> list[str]:
        nlp, gold = tagger(backbone, getter, **changes)
        nlp.initialize(lambda: gold)
        return list(nlp.get_pipe("token_classifier").spans_keys)

    assert places("people") == ["people"]
    assert places(["people", "places"], span_setter=["ents", "*"]) == ["ents"]
    assert places(["people", "places"], span_setter=["ents", "*"], infer_span_setter=True) == [
        "people",
        "places",
    ]
    assert places({"people": ["person"]}) == ["people"]
    assert places(["people", "places"], span_setter={"mine": True}) == ["mine"]
    assert places("*", span_setter=["*"]) == ["*"]


def test_a_training_over_several_groups(backbone: Path, tmp_path: Path) -> None:
    nlp, gold = tagger(backbone, ["places", "people"])
    for one in gold:  # where the first group stands empty, the others count
        one.reference.spans["places"] = []
        one.predicted.spans.clear()
    seen: list[dict[str, Any]] = []
    train(
        nlp,
        {"reader": gold, "max_length": 4},
        {"reader": gold},
        max_steps=1,
        batch_size="4 spans",
        output_path=tmp_path / "model-last",
        on_validation_callback=seen.append,
        loggers=[],
    )
    assert seen[-1]["scores"]["ner"]["person"]["support"] == 16


def test_evaluate_reads_gold_spans_into_their_groups(backbone: Path, tmp_path: Path) -> None:
    nlp, gold = tagger(backbone, {"people": ["person"], "places": ["city"]})
    learn(nlp, gold)
    path = tmp_path / "gold.jsonl"
    path.write_text(
        '{"tokenized_text": ["Ada", "Smith", "lives", "in", "Rome", "."], "ner": [[0, 1, "person"], [4, 4, "city"]]}\n'
    )
    micro = evaluate(pipeline=nlp, data=str(path), metrics="exact", show=False)["exact"]["micro"]
    assert (micro["support"], micro["f"]) == (2, 1.0)


def test_spans_by_label_and_their_scores() -> None:
    doc = Doc(spacy.blank("en").vocab, words=["a", "b", "c"])
    one, two, three = (Span(doc, at, at + 1, label) for at, label in enumerate("XYX"))
    doc.spans["one"], doc.spans["two"] = [one, two], [two, three]
    doc.spans["one"].attrs["scores"] = [0.1, 0.2]
    doc.spans["two"].attrs["scores"] = [0.3, 0.4]
    doc.set_ents([one])
    assert get_spans(doc, {"one": ["Y"], "two": True}) == [two, three]
    assert get_scores(doc, {"one": ["Y"], "two": True}) == pytest.approx([0.2, 0.4])
    assert get_spans(doc, {"one": ["X"], "*": "Y"}) == [one, two]
    assert get_spans(doc, {"gone": ["Y"]}) == [] and get_spans(doc, {"gone": ["X"]}) == [one]
    assert get_spans(doc, {"gone": ["Y"], "lost": True}) == [one]
    assert get_scores(doc, "ents") == [None]
