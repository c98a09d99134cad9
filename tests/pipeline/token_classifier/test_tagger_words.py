"""Attributes of tokens as target: parts of speech, and any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc, Token
from spacy.training import Example
from tagging_pipeline import config, example

from gliner_pipe.data.token_targets import read_values, write_value
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.evaluation.evaluate import evaluate_pipeline
from gliner_pipe.metrics.token_tags import TokenTagScorer
from gliner_pipe.pipeline.token_classifier.training_batch import UNKNOWN_LABEL

TAGGED = [
    (["Ada", "sees", "Rome", "."], ["PROPN", "VERB", "PROPN", "PUNCT"]),
    (["The", "city", "sees", "Ada", "."], ["DET", "NOUN", "VERB", "PROPN", "PUNCT"]),
    (["Rome", "is", "the", "city", "."], ["PROPN", "VERB", "DET", "NOUN", "PUNCT"]),
    (["Alan", "lives", "in", "Oslo", "."], ["PROPN", "VERB", "ADP", "PROPN", "PUNCT"]),
]


def tagged(nlp: Any, target: str) -> list[Example]:
    gold = []
    for words, tags in TAGGED:
        reference = Doc(nlp.vocab, words)
        for token, tag in zip(reference, tags, strict=True):
            write_value(token, target, tag)
        gold.append(Example(Doc(nlp.vocab, words), reference))
    return gold


def taught(
    backbone: Path, target: str, gold_of: Any = tagged, decoder: Any = None
) -> tuple[Any, list[Example]]:
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", config=config(backbone, decoder, target=target))
    gold = gold_of(nlp, target)
    optimizer = nlp.initialize(lambda: gold)
    optimizer.learn_rate = 0.003
    for _ in range(30):
        nlp.update(gold, sgd=optimizer)
    return nlp, gold


def as_spans(nlp: Any, target: str) -> list[Example]:
    """The same tags as spans of one word or more, which is what readers of tag columns make."""
    return [example(nlp, words, [(i, i, tag) for i, tag in enumerate(tags)]) for words, tags in TAGGED]


@pytest.mark.parametrize("target", ["tag_", "pos_", "lemma_", "_.colour"])
def test_learns_an_attribute(backbone: Path, target: str) -> None:
    nlp, gold = taught(backbone, target)
    component = nlp.get_pipe("token_classifier")
    assert component.labels == ("ADP", "DET", "NOUN", "PROPN", "PUNCT", "VERB")
    assert component.network.decoder.scheme == "word"
    for words, tags in TAGGED:
        doc = nlp(Doc(nlp.vocab, words))
        assert read_values(doc, target, None) == tags
        assert not doc.ents and not doc.spans
    scores = nlp.evaluate(gold)
    assert scores["tags_f"] == 1.0 and scores["tags_per_type"]["VERB"]["support"] == 4
    assert len(nlp("")) == 0


@pytest.mark.parametrize("decoder", ["crf", {"@decoders": "crf", "scheme": "bio"}])
def test_other_decoders(backbone: Path, decoder: Any) -> None:
    nlp, _ = taught(backbone, "tag_", decoder=decoder)
    doc = nlp(Doc(nlp.vocab, TAGGED[0][0]))
    assert [token.tag_ for token in doc] == TAGGED[0][1]


def test_tags_that_stand_as_spans(backbone: Path) -> None:
    nlp, gold = taught(backbone, "tag_", as_spans)
    assert [token.tag_ for token in nlp(Doc(nlp.vocab, TAGGED[0][0]))] == TAGGED[0][1]
    result = evaluate_pipeline(nlp, gold)
    assert result["tags"]["accuracy"] == 1.0
    component = nlp.get_pipe("token_classifier")
    assert "19 with token.tag_ (6 different)" in component.describe_data(gold)


def test_what_is_not_known_is_not_learned(backbone: Path) -> None:
    nlp, gold = taught(backbone, "tag_")
    component = nlp.get_pipe("token_classifier")
    reference = gold[0].reference
    reference[0].tag_ = ""
    reference[1].tag_ = "strange"
    batch = component.collate(gold[:1])
    assert batch.gold[0, :, 0].lt(0).tolist() == [True, True, False, False]
    assert batch.count == 2 and batch.dropped == {UNKNOWN_LABEL: 1}


def test_no_tags_at_all(backbone: Path) -> None:
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("token_classifier", "pos", config=config(backbone, None, target="pos_"))
    with pytest.raises(DataError, match=r"none with token\.pos_"):
        component.describe_data([example(nlp, ["Ada"], [])])


def test_score_of_tags() -> None:
    nlp = spacy.blank("en")
    gold = tagged(nlp, "tag_")[:1]
    predicted, reference = gold[0].predicted, gold[0].reference
    for token, tag in zip(predicted, ["PROPN", "NOUN", "PROPN", "PUNCT"], strict=True):
        token.tag_ = tag
    reference[3].tag_ = ""  # whatever is said about it is neither right nor wrong
    scores = TokenTagScorer("tag_")(gold)
    assert scores["accuracy"] == pytest.approx(2 / 3) == scores["micro"]["p"]
    assert scores["PROPN"]["f"] == 1.0 and scores["NOUN"]["p"] == 0.0
    with pytest.raises(ConfigError, match=r"\[target\] found 'nonsense'"):
        TokenTagScorer("nonsense")


def test_score_of_other_tokens() -> None:
    nlp = spacy.blank("en")
    reference = Doc(nlp.vocab, ["New", "York", "sleeps"], [True, True, False], tags=["X", "X", "V"])
    predicted = Doc(nlp.vocab, ["New York", "sleeps"], [True, False], tags=["X", "V"])
    scores = TokenTagScorer("tag_")([Example(predicted, reference)])
    assert scores["accuracy"] == pytest.approx(1 / 3) and scores["micro"]["p"] == 0.5


def test_extension_is_made_once(backbone: Path) -> None:
    Token.set_extension("mood", default="calm")
    spacy.blank("en").add_pipe("token_classifier", config=config(backbone, None, target="_.mood"))
    assert Token.get_extension("mood")[0] == "calm"
