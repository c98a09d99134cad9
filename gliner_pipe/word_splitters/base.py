"""The contract of a word splitter: which stretches of a document the model reads as words."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from spacy.tokens import Doc, Span

from gliner_pipe.blocks import Block


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a document, as the model reads them.

    Attributes
    ----------
    texts
        The words.
    offsets
        First character and end of each; None when the words are the tokens of the document.
    """

    texts: list[str]
    offsets: list[tuple[int, int]] | None = None

    def span(self, doc: Doc, start: int, end: int, label: str, alignment_mode: str) -> Span | None:
        """Span of tokens for the words `start` to `end` (inclusive); None where they are not aligned."""
        if self.offsets is None:
            return Span(doc, start, end + 1, label=label)
        first, last = self.offsets[start][0], self.offsets[end][1]
        return doc.char_span(first, last, label=label, alignment_mode=alignment_mode)

    def locate(self, spans: Sequence[Span]) -> list[tuple[int, int] | None]:
        """First and last word of each span of tokens; None for one that is not on word borders."""
        if self.offsets is None:
            return [(span.start, span.end - 1) for span in spans]
        starts = {first: index for index, (first, _) in enumerate(self.offsets)}
        ends = {last: index for index, (_, last) in enumerate(self.offsets)}
        found = [(starts.get(span.start_char), ends.get(span.end_char)) for span in spans]
        return [(start, end) if start is not None and end is not None else None for start, end in found]


class WordSplitter(Block):
    """Splits a document into words."""

    family = "word_splitters"

    @abstractmethod
    def split(self, doc: Doc) -> Words:
        """Return the words of `doc`."""
