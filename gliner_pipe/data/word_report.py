"""Compares the words of annotated data with those of a pipeline on running text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, gold_spans
from gliner_pipe.data.raw_text import raw_docs

#: From these shares of entities on, that are lost and that have other words, scores on running text are lower.
MANY_LOST, MANY_OTHER = 0.01, 0.05
#: Maximum number of labels that are named.
SHOWN = 3

#: Returns start and end character of the words of a document.
WordRanges = Callable[[Doc], Sequence[tuple[int, int]]]


@dataclass
class WordReport:
    """Counts of words and entities of data, and of those that are other words for a pipeline on running text.

    Attributes
    ----------
    words, other_words
        All words, and those that the pipeline does not find in running text.
    entities
        All entities, by label.
    other_entities
        Those of them with such a word.
    lost
        Those of them that do not begin and end with words of running text: no prediction there can be right.
    """

    words: int = 0
    other_words: int = 0
    entities: Counter[str] = field(default_factory=Counter)
    other_entities: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)

    def share(self, part: Counter[str]) -> float:
        """Return the share of a part of the entities in all."""
        return part.total() / max(1, self.entities.total())

    @property
    def matters(self) -> bool:
        """Whether scores on running text are noticeably lower than on the words of the data."""
        return self.share(self.lost) >= MANY_LOST or self.share(self.other_entities) >= MANY_OTHER

    def sentence(self, data: str) -> str | None:
        """Return the shares of other words and entities, and the labels with most of them; None if they are few.

        Parameters
        ----------
        data
            Name of the data.
        """
        if not self.other_entities and self.other_words <= MANY_LOST * self.words:
            return None
        worst = ", ".join(
            f"{label} {number / self.entities[label]:.1%}"
            for label, number in self.other_entities.most_common(SHOWN)
        )
        words, other, lost = (
            self.other_words / max(1, self.words),
            self.share(self.other_entities),
            self.share(self.lost),
        )
        return (
            f"{words:.1%} of the words and {other:.1%} of the entities of the {data}"
            f"{f' ({worst})' if worst else ''} are split into other words when this pipeline reads running text"
            + (
                f"; {lost:.1%} of the entities begin or end inside a word there, and cannot be found"
                if lost
                else ""
            )
            + (". Scores there are lower than on the words of the data" if self.matters else "")
        )


def compare_words(
    nlp: Language, examples: Sequence[Example], places: SpanSetter, ranges: WordRanges
) -> WordReport:
    """Count the words and the gold entities of data that are other words for a pipeline on running text.

    Parameters
    ----------
    nlp
        Provides the tokenizer.
    examples
        Gold documents; the text of those that were given as words is :func:`~gliner_pipe.data.raw_text.running_text`.
    places
        Where their gold entities are.
    ranges
        Returns the words of a document that a model reads.
    """
    report = WordReport()
    docs = [example.reference for example in examples]
    for doc, raw in zip(docs, raw_docs(nlp, docs), strict=True):
        # in characters without white space, which differs between the two texts
        at = _places(raw.text)
        found = {(at[start], at[end]) for start, end in ranges(raw)}
        starts, ends = {start for start, _ in found}, {end for _, end in found}
        at = _places(doc.text)
        read = [(at[start], at[end]) for start, end in ranges(doc)]
        others = [word for word in read if word not in found]
        report.words += len(read)
        report.other_words += len(others)
        for span in gold_spans(doc, places):
            first, last = at[span.start_char], at[span.end_char]
            lost = first not in starts or last not in ends
            report.entities[span.label_] += 1
            report.lost[span.label_] += lost
            report.other_entities[span.label_] += lost or any(
                start < last and end > first for start, end in others
            )
    report.lost, report.other_entities = +report.lost, +report.other_entities
    return report


def _places(text: str) -> list[int]:
    """Return for each position in a text the number of characters before it that are no white space."""
    return [0, *accumulate(not character.isspace() for character in text)]
