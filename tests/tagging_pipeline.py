"""Pipelines with a tagger over a tiny backbone, and examples for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.training import Example

import gliner_pipe.modeling.backbones.stacked
import gliner_pipe.modeling.backbones.text_cnn
import gliner_pipe.modeling.decoders.crf
import gliner_pipe.modeling.decoders.softmax
import gliner_pipe.pipeline.token_classifier.component  # noqa: F401 (registers the factory)

PERSONS = ["Ada", "Alan", "Grace", "Emmy"]
CITIES = ["Paris", "London", "Oslo", "Rome"]
#: Words, and entities as first word, last word (inclusive) and label.
DATA: list[tuple[list[str], list[tuple[int, int, str]]]] = [
    ([person, "Smith", "lives", "in", city, "."], [(0, 1, "person"), (4, 4, "city")])
    for person in PERSONS
    for city in CITIES
] + [([city, "is", "a", "city", "."], [(0, 0, "city")]) for city in CITIES]


def config(backbone: Path, decoder: Any = "crf", **changes: Any) -> dict[str, Any]:
    """Configuration of a component over a tiny backbone, whose windows hold 16 pieces; it learns at a high rate."""
    embedding = {"@backbones": "transformer", "model": str(backbone), "window": 24, "stride": 16}
    return {"embedding": embedding, "decoder": decoder, "max_learn_rate": None, **changes}


def example(
    nlp: Language, words: Sequence[str], entities: Sequence[tuple[int, int, str]], key: str = "gliner"
) -> Example:
    """A document with gold spans in the group `key`."""
    reference = Doc(nlp.vocab, words=list(words))
    spans = [Span(reference, start, end + 1, label) for start, end, label in entities]
    if key == "ents":
        reference.set_ents(spans)
    else:
        reference.spans[key] = spans
    return Example(Doc(nlp.vocab, words=list(words)), reference)


def examples(nlp: Language, key: str = "gliner") -> list[Example]:
    return [example(nlp, words, entities, key) for words, entities in DATA]


def trained(backbone: Path, steps: int = 30, decoder: Any = "crf", **changes: Any) -> Any:
    """A pipeline that has learned DATA by heart."""
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", config=config(backbone, decoder, **changes))
    gold = examples(nlp)
    optimizer = nlp.initialize(lambda: gold)
    optimizer.learn_rate = 0.003
    for _ in range(steps):
        nlp.update(gold, sgd=optimizer)
    return nlp


def found(doc: Doc, key: str = "gliner") -> list[tuple[str, str]]:
    return [(span.text, span.label_) for span in doc.spans[key]]
