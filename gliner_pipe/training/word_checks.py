"""Compares the words of training data with those of the pipeline on running text, before the first step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from spacy.language import Language
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, gold_spans
from gliner_pipe.data.raw_text import raw_doc
from gliner_pipe.pipeline.word_splitters import SpacyWords, WhitespaceWords, WordSplitter

#: Number of documents that are compared (of more, every n-th), and of their characters.
SAMPLE, CHARACTERS = 1000, 500_000
#: Share of entities without words of their own from which on there is a warning.
MANY = 0.01


@dataclass
class WordReport:
    """Counts of words and entities of data, and of those that are no words of the pipeline on running text."""

    words: int = 0
    other_words: int = 0
    entities: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def share(self) -> float:
        """Share of the entities that do not begin and end at words of the pipeline."""
        return self.lost.total() / max(1, self.entities.total())


def compare_words(
    nlp: Language, examples: Iterable[Example], places: SpanSetter, splitter: WordSplitter
) -> WordReport:
    """Count the words and the gold entities of examples that are no words of the pipeline on running text.

    Parameters
    ----------
    nlp
        Provides the tokenizer.
    examples
        Gold documents.
    places
        Where their gold entities are.
    splitter
        The word splitter of the component.
    """
    report = WordReport()
    left = CHARACTERS
    for example in examples:
        doc = example.reference
        if left <= 0:
            break
        left -= len(doc.text)
        raw = raw_doc(nlp, doc)
        split = splitter.split(raw)
        offsets = split.offsets or [(token.idx, token.idx + len(token)) for token in raw]
        # in characters without white space, which differs between the two texts
        at = _places(raw.text)
        words = {(at[start], at[end]) for start, end in offsets if at[start] < at[end]}
        starts, ends = {start for start, _ in words}, {end for _, end in words}
        at = _places(doc.text)
        own = splitter.split(doc).offsets or [(token.idx, token.idx + len(token)) for token in doc]
        read = [(at[start], at[end]) for start, end in own if at[start] < at[end]]
        report.words += len(read)
        report.other_words += sum(word not in words for word in read)
        for span in gold_spans(doc, places):
            report.entities[span.label_] += 1
            report.lost[span.label_] += at[span.start_char] not in starts or at[span.end_char] not in ends
    return report


def _places(text: str) -> list[int]:
    """Return for each position in a text the number of characters before it that are no white space."""
    return [0, *accumulate(not character.isspace() for character in text)]


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
    some = examples[:: max(1, len(examples) // SAMPLE)]
    places = component.gold_spans_key
    report = compare_words(nlp, some, places, splitter)
    if not report.lost.total() and report.other_words <= MANY * report.words:
        return None
    worst = ", ".join(
        f"{label} {number / report.entities[label]:.1%}" for label, number in (+report.lost).most_common(3)
    )
    line = (
        f"[components.{component.name}] on running text, {report.other_words / max(1, report.words):.1%} of the words "
        f"and {report.share:.1%} of the entities of the training data are not words of this pipeline"
        f"{f' ({worst})' if worst else ''}"
    )
    if report.share < MANY:
        return f"note: {line}"
    return (
        f"warning: {line}: they cannot be found there, so scores on the words of the data are too good. "
        f"{_advice(nlp, component, some, report.share)}"
    )


def _advice(nlp: Language, component: Any, examples: Sequence[Example], share: float) -> str:
    """Return what to set: the word splitter with the fewest lost entities, if it is much better."""
    where = f"[components.{component.name}.word_splitter]"
    others: dict[str, WordSplitter] = {"whitespace": WhitespaceWords(), "spacy": SpacyWords()}
    shares = {
        name: compare_words(nlp, examples, component.gold_spans_key, other).share
        for name, other in others.items()
        if type(other) is not type(component.word_splitter)
    }
    best = min(shares, key=lambda name: shares[name])
    if shares[best] <= share / 2:
        return f'Set {where} @word_splitters = "{best}" ({shares[best]:.1%} of the entities)'
    return f"Set a [nlp.tokenizer], or a {where}, that splits text as the data do"
