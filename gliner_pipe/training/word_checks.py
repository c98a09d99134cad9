"""Reports, before the first step, what a component learns on words that it does not see on running text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.word_report import WordRanges, WordReport, compare_words
from gliner_pipe.pipeline.word_splitters import SpacyWords, WhitespaceWords, WordSplitter

#: Number of documents that are compared (of more, every n-th), and of their characters.
SAMPLE, CHARACTERS = 1000, 500_000


def word_ranges(splitter: WordSplitter) -> WordRanges:
    """Return a function for the words of a document by a word splitter, without those of only whitespace."""

    def ranges(doc: Doc) -> list[tuple[int, int]]:
        words = splitter.split(doc)
        offsets = words.offsets or [(token.idx, token.idx + len(token)) for token in doc]
        return [
            place for place, text in zip(offsets, words.texts, strict=True) if text and not text.isspace()
        ]

    return ranges


def describe_words(nlp: Language, component: Any, examples: Sequence[Example]) -> str | None:
    """Return what a component learns on words that it will not see on running text; None if there is nothing.

    Parameters
    ----------
    nlp
        The pipeline.
    component
        One with a word splitter and gold spans.
    examples
        Its training data; a sample of them is compared.
    """
    splitter = getattr(component, "word_splitter", None)
    if splitter is None or getattr(component, "target", "spans") != "spans":
        return None
    some = _sample(examples)
    report = compare_words(nlp, some, component.gold_spans_key, word_ranges(splitter))
    sentence = report.sentence("training data")
    if sentence is None:
        return None
    line = f"[components.{component.name}] {sentence}"
    return f"warning: {line}. {advice(nlp, component, some, report)}" if report.matters else f"note: {line}"


def advice(nlp: Language, component: Any, examples: Sequence[Example], report: WordReport) -> str:
    """Return what to set: the word splitter with the fewest entities of other words, if it is much better.

    Parameters
    ----------
    nlp
        The pipeline.
    component
        One with a word splitter and gold spans.
    examples
        Its training data.
    report
        Their words, compared with those of the component.
    """
    where = f"[components.{component.name}.word_splitter]"
    others: dict[str, WordSplitter] = {"whitespace": WhitespaceWords(), "spacy": SpacyWords()}
    shares = {}
    for name, splitter in others.items():
        other = compare_words(nlp, examples, component.gold_spans_key, word_ranges(splitter))
        shares[name] = other.share(other.other_entities)
    best = min(shares, key=lambda name: shares[name])
    if shares[best] <= report.share(report.other_entities) / 2:
        return f'Set {where} @word_splitters = "{best}" ({shares[best]:.1%} of the entities)'
    return f"Set a [nlp.tokenizer], or a {where}, that splits text as the data do"


def _sample(examples: Sequence[Example]) -> list[Example]:
    some, left = [], CHARACTERS
    for example in examples[:: max(1, len(examples) // SAMPLE)]:
        if left <= 0:
            break
        some.append(example)
        left -= len(example.reference.text)
    return some
