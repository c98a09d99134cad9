"""Words and labels that nobody annotated are not learned to be outside of entities."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import set_supervision
from gliner_pipe.data.splitting import split_examples
from gliner_pipe.modeling.span_reps.base import valid_spans

WORDS = ["Ann", "left", "Oslo", "."]
#: Of four documents one is annotated in whole.
FORMS = ["whole", "partial", "partial", "partial"]


def example(nlp: Language, form: str, how: str) -> Example:
    doc = Doc(nlp.vocab, words=WORDS)
    ann, oslo = Span(doc, 0, 1, label="person"), Span(doc, 2, 3, label="city")
    if form == "whole":
        doc.set_ents([ann, oslo])
    elif how == "words":
        doc.set_ents([oslo], missing=[doc[0:1]], default="outside")
    else:
        doc.set_ents([oslo])
        set_supervision(doc, ner_labels=["city"])
    return Example(Doc(nlp.vocab, words=WORDS), doc)


def pipeline(kind: str, backbone: Path) -> Language:
    nlp = spacy.blank("en")
    torch.manual_seed(0)
    if kind in ("softmax", "crf"):
        decoder = {"@decoders": kind}
        embedding = {"@backbones": "transformer", "model": str(backbone)}
        settings = {"decoder": decoder, "embedding": embedding, "target_span_getter": "ents"}
        nlp.add_pipe("token_classifier", name="it", config=settings)
    else:
        settings = gliner_config(backbone, label_sampling={"all_labels": True, "shuffle": False})
        settings["model"]["span_rep"] = {"@span_reps": kind, "dropout": 0.0}
        settings["model"]["dropout"] = 0.0
        nlp.add_pipe("gliner", name="it", config=settings)
    return nlp


def score_of_ann(kind: str, backbone: Path, how: str) -> float:
    """Learn the four documents by heart, and return the score of the entity that only one has."""
    nlp = pipeline(kind, backbone)
    gold = [example(nlp, form, how) for form in FORMS]
    nlp.initialize(lambda: gold)
    component: Any = nlp.get_pipe("it")
    component.model.train()
    optimizer = torch.optim.AdamW(component.model.parameters(), lr=2e-3)
    for _ in range(50):
        optimizer.zero_grad()
        component.get_loss(gold).total.backward()
        optimizer.step()
    component.model.eval()
    component.threshold = 0.0
    doc = nlp(Doc(nlp.vocab, words=WORDS))
    if "gliner" not in doc.spans:
        return float(("Ann", "person") in {(ent.text, ent.label_) for ent in doc.ents})
    group = doc.spans["gliner"]
    scores = {
        (span.text, span.label_): score for span, score in zip(group, group.attrs["scores"], strict=True)
    }
    return scores.get(("Ann", "person"), 0.0)


@pytest.mark.parametrize("how", ["words", "labels"])
@pytest.mark.parametrize("kind", ["markerV0", "token_level", "softmax", "crf"])
def test_what_is_missing_is_not_learned_to_be_outside(kind: str, how: str, backbone: Path) -> None:
    assert score_of_ann(kind, backbone, how) > 0.8


def test_no_target_starts_or_ends_at_a_missing_word(backbone: Path) -> None:
    nlp = pipeline("markerV0", backbone)
    nlp.initialize(lambda: [example(nlp, "whole", "words")])
    component: Any = nlp.get_pipe("it")
    partial, whole = (component.collate([example(nlp, form, "words")]) for form in ("partial", "whole"))
    assert whole.inputs.windows.unknown is None
    assert partial.inputs.windows.unknown.tolist() == [[True, False, False, False]]
    spans = valid_spans(partial.inputs.windows, 4)[0]
    assert not spans[0].any() and int(spans.sum()) == 6 == partial.count
    assert whole.count == 10


def test_words_of_another_splitter_and_documents_without_annotation(backbone: Path) -> None:
    nlp = pipeline("markerV0", backbone)
    settings = {**nlp.config["components"]["it"], "word_splitter": {"@word_splitters": "whitespace"}}
    settings.pop("factory")
    nlp.remove_pipe("it")
    component: Any = nlp.add_pipe("gliner", name="it", config=settings)
    nlp.initialize(lambda: [example(nlp, "whole", "words")])
    doc = Doc(nlp.vocab, words=["An", "n", "left", "."], spaces=[False, True, True, False])
    doc.set_ents([], missing=[doc[0:1]], default="outside")
    bare = Doc(nlp.vocab, words=WORDS)  # no entities, as always
    one, other = (component.collate([Example(some.copy(), some)]) for some in (doc, bare))
    assert one.inputs.windows.unknown.tolist() == [[True, False, False]]
    assert other.inputs.windows.unknown is None


def test_parts_without_annotation_are_left_out() -> None:
    nlp = spacy.blank("en")
    doc = Doc(nlp.vocab, words=["Ann", "left", ".", "Bob", "came", "."], sent_starts=[1, 0, 0, 1, 0, 0])
    doc.set_ents([Span(doc, 0, 1, label="person")], missing=[doc[3:6]], default="outside")
    report: Counter[str] = Counter()
    parts = list(split_examples([Example(doc.copy(), doc)], max_length=3, spans_key="ents", report=report))
    assert [part.reference.text.split() for part in parts] == [["Ann", "left", "."]]
    assert report["part without annotated tokens (left out)"] == 1
