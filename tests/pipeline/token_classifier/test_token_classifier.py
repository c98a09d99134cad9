"""The tagger learns, finds and writes; its labels and the places of spans, given or inferred."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from conftest import gliner_config
from spacy.tokens import Doc
from tagging_pipeline import DATA, config, example, examples, found, trained

from gliner_pipe.errors import ConfigError, NotInitializedError
from gliner_pipe.pipeline.annotate import ADJUSTED, MERGED, Entity
from gliner_pipe.pipeline.token_classifier.training_batch import NOT_REPRESENTABLE, UNKNOWN_LABEL
from gliner_pipe.training.protocol import TrainableByLoop

OVERLAP = (["The", "London", "School", "is", "old"], [(0, 2, "school"), (1, 1, "city")])


@pytest.mark.parametrize(
    ("decoder", "mode"),
    [
        ("crf", None),
        ("crf", "independent"),
        ("crf", "marginal"),
        ("softmax", None),
        ("softmax", "independent"),
    ],
)
def test_learns_by_heart(backbone: Path, decoder: str, mode: str | None) -> None:
    nlp = trained(backbone, decoder=decoder, mode=mode)
    component = nlp.get_pipe("token_classifier")
    assert component.labels == ("city", "person")
    for (words, entities), doc in zip(
        DATA, nlp.pipe(Doc(nlp.vocab, words) for words, _ in DATA), strict=True
    ):
        wanted = [(" ".join(words[start : end + 1]), label) for start, end, label in entities]
        assert found(doc) == wanted == [(ent.text, ent.label_) for ent in doc.ents]
        scores = doc.spans["gliner"].attrs["scores"]
        assert len(scores) == len(wanted) and all(0.5 < score <= 1 for score in scores)
    assert nlp.evaluate(examples(nlp))["tags_f"] == 1.0


@pytest.mark.parametrize("scheme", ["io", "bio", "bioul", "biolu"])
def test_schemes(backbone: Path, scheme: str) -> None:
    nlp = trained(backbone, scheme=scheme)
    assert found(nlp("Ada Smith lives in Rome .")) == [("Ada Smith", "person"), ("Rome", "city")]


def test_batch_mates_never_change_what_is_found(backbone: Path) -> None:
    nlp = trained(backbone, steps=4)
    texts = ["Ada Smith lives in Rome .", "", "Oslo", " ", "Emmy Smith lives in Paris . " * 7]
    together = list(nlp.pipe(texts, batch_size=10))
    assert [doc.text for doc in together] == texts
    for doc in together:
        alone = nlp(doc.text)
        assert found(doc) == found(alone)
        scores = [one.spans["gliner"].attrs["scores"] for one in (doc, alone)]
        assert np.allclose(*scores, atol=1e-5)
    assert sum(len(doc.ents) for doc in together) > 0


def test_labels_of_one_chain_and_of_many(backbone: Path) -> None:
    nlp = spacy.blank("en")
    joint: Any = nlp.add_pipe("token_classifier", "joint", config=config(backbone, chains="one"))
    many: Any = nlp.add_pipe("token_classifier", "many", config=config(backbone, mode="independent"))
    gold = [example(nlp, *OVERLAP)]
    nlp.initialize(lambda: gold)
    assert joint.collate(gold).dropped == {NOT_REPRESENTABLE: 1}
    assert many.collate(gold).dropped == {}
    optimizer = nlp.create_optimizer()
    optimizer.learn_rate = 0.01
    for _ in range(20):
        nlp.update(gold, sgd=optimizer)
    doc = many(Doc(nlp.vocab, OVERLAP[0]))
    assert [(s.start, s.end - 1, s.label_) for s in sorted(doc.spans["gliner"])] == OVERLAP[1]
    assert joint.report[NOT_REPRESENTABLE] == 20


NESTED = [*DATA, OVERLAP, (["Rome", "Rome", "Oslo"], [(0, 1, "city"), (1, 2, "city"), (2, 2, "school")])]


@pytest.mark.parametrize("mode", [None, "joint", "independent", "marginal"])
def test_nested_entities_of_different_labels(backbone: Path, tmp_path: Path, mode: str | None) -> None:
    """A chain for each label in every mode, as in EDS-NLP's ner_crf; saved pipelines keep it."""
    nlp = spacy.blank("en")
    embedding = {"@backbones": "transformer", "model": str(backbone), "window": 24, "stride": 16}
    tagger: Any = nlp.add_pipe(
        "token_classifier", config={"embedding": embedding, "mode": mode, "max_learn_rate": None}
    )
    gold = [example(nlp, *one) for one in NESTED]
    optimizer = nlp.initialize(lambda: gold)
    optimizer.learn_rate = 0.005
    for _ in range(30):
        nlp.update(gold, sgd=optimizer)
    nlp.to_disk(tmp_path / "saved")
    for one in (nlp, spacy.load(tmp_path / "saved")):
        doc = one(Doc(one.vocab, OVERLAP[0]))
        assert [(s.start, s.end - 1, s.label_) for s in sorted(doc.spans["gliner"])] == OVERLAP[1]
    lost, text = tagger.describe_lost(gold)
    assert lost == {NOT_REPRESENTABLE: 1} and "1 of 41" in text


def test_one_chain_counts_what_it_cannot_learn(backbone: Path) -> None:
    nlp = spacy.blank("en")
    tagger: Any = nlp.add_pipe("token_classifier", config=config(backbone, chains="one"))
    gold = [example(nlp, *one) for one in NESTED]
    nlp.initialize(lambda: gold)
    lost, text = tagger.describe_lost(gold)
    assert lost == {NOT_REPRESENTABLE: 2} and "per_label" in text
    assert tagger.describe_lost(examples(nlp)) == (Counter(), "")


def test_labels_given_and_labels_that_are_not_among_them(backbone: Path) -> None:
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("token_classifier", config=config(backbone, labels=["city"]))
    gold = examples(nlp)
    nlp.initialize(lambda: gold)
    assert component.labels == ("city",) and component.label_data == ["city"]
    assert component.collate(gold).dropped == {UNKNOWN_LABEL: 16}
    with pytest.raises(ConfigError, match=r"token_classifier\.labels\].*'person'"):
        component.add_label("person")
    before = [weight.clone() for weight in component.network.encoder.parameters()]
    component.initialize(lambda: gold, labels=["person", "city"])
    assert component.labels == ("person", "city") and component.collate(gold).dropped == {}
    pairs = zip(before, component.network.encoder.parameters(), strict=True)
    assert all(torch.equal(old, new) for old, new in pairs)
    component.initialize(lambda: gold)
    assert component.labels == ("person", "city")


def test_no_labels_at_all(backbone: Path) -> None:
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("token_classifier", "ner", config=config(backbone))
    with pytest.raises(NotInitializedError, match="'ner'"):
        nlp("Ada")
    with pytest.raises(ConfigError, match=r"^\[components\.ner\.labels\]"):
        component.initialize(lambda: [example(nlp, ["Ada"], [])])


@pytest.mark.parametrize(
    ("setter", "infer", "groups", "ents"),
    [
        (None, None, {"gold": 2}, 2),
        ("ents", None, {}, 2),
        (["ents", "*"], True, {"person": 1, "city": 1, "gold": 2}, 2),
        (["ents", "*"], None, {"person": 1, "city": 1}, 2),
        ({"places": ["city"], "ents": ["person"]}, None, {"places": 1}, 1),
        ({"places": ["city"], "all": True}, None, {"places": 1, "all": 2}, 0),
        ("mine", True, {"mine": 2, "gold": 2}, 0),
    ],
)
def test_where_spans_go(backbone: Path, setter: Any, infer: Any, groups: dict[str, int], ents: int) -> None:
    nlp = trained(backbone)
    component = nlp.get_pipe("token_classifier")
    component.cfg |= {"target_span_getter": "gold", "span_setter": setter, "infer_span_setter": infer}
    doc = nlp("Ada Smith lives in Rome .")
    assert {key: len(group) for key, group in doc.spans.items()} == groups
    assert all(len(group.attrs["scores"]) == len(group) for group in doc.spans.values())
    assert len(doc.ents) == ents


def test_groups_of_gold_spans_are_inferred_with_their_labels(backbone: Path) -> None:
    nlp = spacy.blank("en")
    getter = {"people": True, "places": ["city"]}
    component: Any = nlp.add_pipe(
        "token_classifier", config=config(backbone, target_span_getter=getter, span_setter="ents")
    )
    gold = [example(nlp, ["Ada", "in", "Rome"], [(0, 0, "person")], "people")]
    reference = gold[0].reference
    reference.spans["places"] = [reference.char_span(7, 11, "city"), reference.char_span(0, 3, "town")]
    component.cfg["infer_span_setter"] = True
    nlp.initialize(lambda: gold)
    assert component.labels == ("city", "person")
    assert component.setter == {"ents": True, "people": ["person"], "places": ["city"]}
    assert component.collate(gold).dropped == {}


@pytest.mark.parametrize("key", ["gliner", "ents"])
def test_gold_spans_stand_in_a_group_or_in_ents(backbone: Path, key: str) -> None:
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("token_classifier", config=config(backbone))
    gold = examples(nlp, key)
    nlp.initialize(lambda: gold)
    assert component.labels == ("city", "person")
    batch = component.collate(gold)
    assert batch.count == batch.n_words == sum(len(words) for words, _ in DATA)
    assert isinstance(component, TrainableByLoop)


def test_threshold(backbone: Path) -> None:
    nlp = trained(backbone, steps=8)
    component = nlp.get_pipe("token_classifier")
    docs = [" ".join(words) for words, _ in DATA]
    scores = np.concatenate([doc.spans["gliner"].attrs["scores"] for doc in nlp.pipe(docs)])
    component.threshold = float(np.median(scores))
    kept = np.concatenate([doc.spans["gliner"].attrs["scores"] for doc in nlp.pipe(docs)])
    assert 0 < len(kept) < len(scores) and (kept >= component.threshold - 1e-6).all()


def test_entities_of_other_components_stay(backbone: Path) -> None:
    nlp = trained(backbone)
    ruler = nlp.add_pipe("entity_ruler", first=True)
    ruler.add_patterns([{"label": "capital", "pattern": "Rome"}])
    text = "Ada Smith lives in Rome ."
    assert [(ent.text, ent.label_) for ent in nlp(text).ents] == [
        ("Ada Smith", "person"),
        ("Rome", "capital"),
    ]
    nlp.get_pipe("token_classifier").cfg["overwrite_ents"] = True
    assert [(ent.text, ent.label_) for ent in nlp(text).ents] == [("Ada Smith", "person"), ("Rome", "city")]


@pytest.mark.parametrize(
    ("changes", "setting", "named"),
    [
        ({"embedding": {"@decoders": "softmax"}}, "embedding", "@decoders = softmax"),
        ({"decoder": "span"}, "decoder", "crf, softmax"),
        ({"decoder": {"@decoders": "span"}}, "decoder", "@decoders = span"),
        ({"mode": "all"}, "mode", "joint, independent, marginal"),
        ({"decoder": "softmax", "mode": "marginal"}, "mode", "softmax"),
        ({"scheme": "x"}, "scheme", "'x'"),
        ({"decoder": {"@decoders": "crf"}, "mode": "joint"}, "mode", "[components.ner.decoder]"),
        ({"decoder": "softmax", "chains": "one"}, "chains", "independent"),
        ({"chains": "two"}, "chains", "per_label"),
        ({"target": "tag"}, "target", 'target = "tag_"'),
        ({"target": "shape_"}, "target", "'shape_'"),
        ({"span_setter": []}, "span_setter", "[]"),
        ({"target_span_getter": {"a": 3}}, "target_span_getter", "3"),
        ({"threshold": 2}, "threshold", "2; allowed: a number from 0 to 1"),
        ({"threshold": True}, "threshold", "True (bool)"),
        ({"alignment_mode": "loose"}, "alignment_mode", "strict, contract, expand"),
        ({"infer_span_setter": 3}, "infer_span_setter", "true or false, or null"),
        ({"batch_size": 0}, "batch_size", "a whole number of at least 1, or null"),
        ({"task_lr_ratio": 0}, "task_lr_ratio", "a number above 0"),
        ({"device": "toaster"}, "device", "'toaster'"),
        ({"device": 3}, "device", "3 (int)"),
        ({"labels": "person"}, "labels", "'person'"),
        ({"target": "tag_", "word_splitter": {"@word_splitters": "whitespace"}}, "word_splitter", "tag_"),
        ({"word_splitter": {"@decoders": "softmax"}}, "word_splitter", "@word_splitters = "),
    ],
)
def test_mistakes_name_the_setting(backbone: Path, changes: dict[str, Any], setting: str, named: str) -> None:
    with pytest.raises(ConfigError) as error:
        spacy.blank("en").add_pipe("token_classifier", "ner", config=config(backbone) | changes)
    assert error.value.where == f"components.ner.{setting}" and named in str(error.value)


def test_words_that_are_not_tokens(backbone: Path) -> None:
    nlp = trained(backbone, word_splitter={"@word_splitters": "whitespace"})
    text = "Ada Smith lives in Rome."
    doc = Doc(nlp.vocab, ["Ada", "Smith", "lives", "in", "Rome."], [True] * 4 + [False])
    assert found(nlp(doc)) == [("Ada Smith", "person"), ("Rome.", "city")]
    assert nlp.get_pipe("token_classifier").report[ADJUSTED] == 1
    assert found(nlp(text)) == [("Ada Smith", "person"), ("Rome", "city")]


def test_model_section(backbone: Path) -> None:
    blocks = {
        "@architectures": "gliner_pipe.TokenClassifier.v1",
        "encoder": {"@encoders": "plain", "backbone": config(backbone)["embedding"]},
        "decoder": {"@decoders": "softmax", "scheme": "bioul"},
    }
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("token_classifier", config={"model": blocks})
    nlp.initialize(lambda: examples(nlp))
    assert component.network.decoder.scheme == "bioul"
    with pytest.raises(ConfigError, match=r"^\[components\.two\.mode\]"):
        nlp.add_pipe("token_classifier", "two", config={"model": blocks, "mode": "joint"})


def test_errors_name_the_sections_of_the_config(backbone: Path) -> None:
    embedding = config(backbone)["embedding"] | {"window": 600}
    stacked = {"@backbones": "text_cnn", "embedding": embedding}
    for name, section, where in (("one", embedding, "embedding"), ("two", stacked, "embedding.embedding")):
        nlp = spacy.blank("en")
        nlp.add_pipe(
            "token_classifier", name, config=config(backbone, labels=["city"]) | {"embedding": section}
        )
        with pytest.raises(ConfigError, match=rf"\[components\.{name}\.{where}\.window\].* 600"):
            nlp.initialize()


def test_models_of_the_other_component(backbone: Path) -> None:
    encoder = {"@encoders": "plain", "backbone": config(backbone)["embedding"]}
    tagger = {
        "@architectures": "gliner_pipe.TokenClassifier.v1",
        "encoder": encoder,
        "decoder": {"@decoders": "crf"},
    }
    asked = gliner_config(backbone)["model"]
    nlp = spacy.blank("en")
    with pytest.raises(
        ConfigError, match=r"\[components\.one\.model\] found TokenClassifier.*token_classifier"
    ):
        nlp.add_pipe("gliner", "one", config={"model": tagger})
    with pytest.raises(ConfigError, match=r"\[components\.two\.model\] found GLiNER"):
        nlp.add_pipe("token_classifier", "two", config={"model": asked})


@pytest.mark.parametrize(
    ("chains", "expected"),
    [
        ("one", [("x,y", "city", 0.75), ("z", "city", 0.5)]),
        (None, [("x,y", "person", 0.5), ("x,y", "city", 0.75), ("z", "city", 0.5)]),
    ],
)
def test_entities_on_whole_tokens(backbone: Path, chains: Any, expected: Any) -> None:
    """The words are ``x , y z``; in one chain entities do not overlap, in a chain for each label those of a label."""
    nlp = spacy.blank("en")
    settings = {
        "word_splitter": {"@word_splitters": "whitespace"},
        "span_setter": ["ents", "all"],
        "chains": chains,
    }
    component: Any = nlp.add_pipe("token_classifier", config=config(backbone, **settings))
    doc = Doc(nlp.vocab, words=["x,y", "z"])
    entities = [
        Entity(0, 0, "person", 0.5),
        Entity(1, 1, "city", 0.25),
        Entity(2, 2, "city", 0.75),
        Entity(3, 3, "city", 0.5),
    ]
    component.set_annotations([doc], [entities])
    assert [(span.text, span.label_, span._.score) for span in doc.spans["all"]] == expected
    assert [(ent.text, ent._.score) for ent in doc.ents] == [("x,y", 0.75), ("z", 0.5)]
    assert component.report[ADJUSTED] == 3 and component.report[MERGED] == 4 - len(expected)
    assert doc.spans["all"].attrs == {"scores": [score for _, _, score in expected]}
