"""Word splitters define the words that a model reads: ``spacy`` (the tokens) and ``whitespace`` (GLiNER's words).

Those of single languages are in :mod:`gliner_pipe.pipeline.language_splitters`.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import spacy
from spacy.tokens import Doc, Span

from gliner_pipe.data.annotations import trimmed
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.layers.cache import Cache
from gliner_pipe.registry import registry

if TYPE_CHECKING:
    from gliner_pipe.modeling.backbones.base import Backbone, Pieces


@dataclass(frozen=True, slots=True)
class Words:
    """All words of a document; :func:`read_words` selects those that the model reads.

    Attributes
    ----------
    texts
        The words.
    offsets
        Start and end character of each word; None where the words are the document's tokens.
    n_added
        1 if the last word is not in the text: the model reads it, but no entity holds it. Its offsets are the end of
        the text. Else 0.
    """

    texts: list[str]
    offsets: list[tuple[int, int]] | None = None
    n_added: int = 0

    def span(self, doc: Doc, start: int, end: int, label: str, alignment_mode: str, text: str) -> Span | None:
        """Return the tokens of the words `start` to `end` (inclusive), without whitespace at either end.

        None if the words do not align with token boundaries, or hold only whitespace. `text` is that of `doc`, which a
        Doc puts together anew each time.
        """
        if self.offsets is None:
            return trimmed(Span(doc, start, end + 1, label=label))
        first, last = self.bounds(text, start, end)
        if first >= last:
            return None
        span = doc.char_span(first, last, label=label, alignment_mode=alignment_mode)
        return None if span is None else trimmed(span)

    def locate(self, spans: Sequence[Span]) -> list[tuple[int, int] | None]:
        """Return the first and last word of each span of tokens; None for one that does not align with words.

        Whitespace at either end of a span or a word is ignored.
        """
        if self.offsets is None:
            return [(span.start, span.end - 1) for span in spans]
        if not spans:
            return []
        return self._located(spans[0].doc.text, [(span.start_char, span.end_char) for span in spans])

    def locate_characters(self, doc: Doc, places: Sequence[tuple[int, int]]) -> list[tuple[int, int] | None]:
        """Return the first and last word of each span of characters; None for one that does not align with words."""
        if self.offsets is not None:
            return self._located(doc.text, places)
        found = [doc.char_span(*_trimmed_offsets(doc.text, *place)) for place in places]
        return [(span.start, span.end - 1) if span is not None and len(span) else None for span in found]

    def bounds(self, text: str, start: int, end: int) -> tuple[int, int]:
        """Return start and end character of the words `start` to `end` (inclusive), without whitespace at either end.

        Only for words that are not the document's tokens; `text` is that of the document.
        """
        assert self.offsets is not None
        return _trimmed_offsets(text, self.offsets[start][0], self.offsets[end][1])

    def _located(self, text: str, places: Sequence[tuple[int, int]]) -> list[tuple[int, int] | None]:
        assert self.offsets is not None
        bounds = [_trimmed_offsets(text, *offsets) for offsets in self.offsets]
        starts = {first: index for index, (first, last) in enumerate(bounds) if first < last}
        ends = {last: index for index, (first, last) in enumerate(bounds) if first < last}
        wanted = [_trimmed_offsets(text, *place) for place in places]
        found = [(starts.get(first), ends.get(last)) for first, last in wanted]
        return [(start, end) if start is not None and end is not None else None for start, end in found]


#: Number of the empty word that represents a document without words.
NO_WORD = -1


@dataclass(frozen=True, slots=True)
class ReadWords:
    """The words of a document that a model reads: all but whitespace and words without subword tokens.

    Attributes
    ----------
    texts
        These words.
    numbers
        Position of each among all words of the document, or ``NO_WORD``; None where all words are read.
    """

    texts: list[str]
    numbers: list[int] | None = None

    def number(self, word: int) -> int:
        """Return the position of a word that is read among all words of the document."""
        return word if self.numbers is None else self.numbers[word]

    def within(self, start: int, end: int) -> tuple[int, int] | None:
        """Return the first and last word that is read among the document's words `start` to `end`; None if none is."""
        if self.numbers is None:
            return start, end
        first, last = bisect_left(self.numbers, start), bisect_right(self.numbers, end) - 1
        return (first, last) if first <= last else None


def read_words(
    backbone: Backbone, split: Sequence[Words], fill: bool = False
) -> tuple[list[ReadWords], list[Pieces]]:
    """Select the words that a model reads: all but whitespace and words without subword tokens.

    Parameters
    ----------
    backbone
        Its tokenizer splits words into subword tokens.
    split
        All words of each document.
    fill
        Whether a document without such words gets one empty word: every document of a training batch needs a row.

    Returns
    -------
    tuple of list of ReadWords, and list of Pieces
        For each document the words that are read, and their subword tokens.
    """
    read = [_without(words.texts, [not text.isspace() for text in words.texts]) for words in split]
    pieces = backbone.tokenize([words.texts for words in read])
    for place, (words, cut) in enumerate(zip(read, pieces, strict=True)):
        kept = cut.counts > 0
        if backbone.blank_piece is not None:
            blank = (cut.ids == backbone.blank_piece).nonzero()[0]
            owners = cut.counts.cumsum().searchsorted(blank, side="right")
            kept[owners[cut.counts[owners] == 1]] = False
        if not kept.all():
            left = _without(words.texts, kept.tolist())
            assert left.numbers is not None
            read[place] = ReadWords(left.texts, [words.number(word) for word in left.numbers])
            pieces[place] = replace(cut, ids=cut.ids[kept.repeat(cut.counts)], counts=cut.counts[kept])
        if split[place].n_added and kept.any() and kept[-1]:
            pieces[place] = replace(pieces[place], n_added=1)
        if fill and not read[place].texts:
            read[place] = ReadWords([""], [NO_WORD])
            pieces[place] = replace(pieces[place], counts=np.zeros(1, np.int64))
    return read, pieces


#: Reasons why a gold entity is not a training target.
UNALIGNED_WORDS = "entity does not align with word boundaries"
NO_TOKENS = "entity of only whitespace, or of words without subword tokens"


def locate_gold(
    spans: Sequence[Span], words: Words, read: ReadWords, dropped: Counter[str]
) -> list[tuple[int, int] | None]:
    """Return the first and last word that is read of each gold entity; `dropped` counts those that have none."""
    found = []
    for span, place in zip(spans, words.locate(spans), strict=True):
        within = None if place is None else read.within(*place)
        if within is None:
            dropped[UNALIGNED_WORDS if place is None and trimmed(span) else NO_TOKENS] += 1
        found.append(within)
    return found


def words_of_tokens(tokens: npt.NDArray[np.bool_], doc: Doc, words: Words, read: ReadWords) -> list[int]:
    """Return the words that are read and contain a character of the chosen tokens, ``(tokens,)``."""
    if words.offsets is None:
        chosen = tokens.tolist()
    else:
        taken = np.zeros(len(doc.text) + 1, np.bool_)
        for token, wanted in zip(doc, tokens.tolist(), strict=True):
            taken[token.idx : token.idx + len(token)] = wanted
        chosen = [bool(taken[start:end].any()) for start, end in words.offsets]
    places = range(len(read.texts))
    return [place for place in places if (number := read.number(place)) != NO_WORD and chosen[number]]


def _without(texts: list[str], kept: list[bool]) -> ReadWords:
    if all(kept):
        return ReadWords(texts)
    numbers = [number for number, keep in enumerate(kept) if keep]
    return ReadWords([texts[number] for number in numbers], numbers)


def _trimmed_offsets(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[end - 1].isspace():
        end -= 1
    while start < end and text[start].isspace():
        start += 1
    return start, end


class WordSplitter(Block):
    """Splits a document into words.

    The words may include whitespace and words without subword tokens: :func:`read_words` leaves them out.
    """

    family = "word_splitters"

    @abstractmethod
    def split(self, doc: Doc) -> Words:
        """Return the words of `doc`."""


@registry.word_splitters.register("spacy")
class SpacyWords(WordSplitter):
    """The tokens of the document; the default, and the right choice for models trained with this package.

    spaCy also makes tokens of double spaces, line breaks and tabs; models do not read these.

    Parameters
    ----------
    language
        Language code of spaCy whose rules split texts; the tokens of a pipeline in that language are used as they are.
        None for the document's tokens in any language. GLiNER checkpoints with ``words_splitter_type = "spacy"`` were
        trained on the rules of ``en``.
    """

    def __init__(self, language: str | None = None) -> None:
        super().__init__()
        self.language = language
        self._tokenizer: Cache[str, Any] = Cache()

    def split(self, doc: Doc) -> Words:
        """Return the tokens, or the words by the rules of the language with their character offsets."""
        if self.language is None or self.language == doc.lang_:
            return Words([token.text for token in doc])
        language = self.language
        tokenizer = self._tokenizer.get(language, lambda: spacy.blank(language).tokenizer)
        tokens = tokenizer(doc.text)
        return Words(
            [token.text for token in tokens], [(token.idx, token.idx + len(token)) for token in tokens]
        )


_WORD = re.compile(r"\w+(?:[-_]\w+)*|\S")


#: What GLiNER2 takes for a word: an address, a handle, a word of letters, digits and marks with inner hyphens, or one
#: other character. Marks (accents that are characters of their own, vowel signs) are missing in ``\\w``.
_PARTS = (
    r"(?i:https?://\S+|www\.\S+)",
    r"(?i:[a-z0-9._%+-]+@[a-z0-9.-]+\.[a-z]{{2,}})",
    r"(?i:@[a-z0-9_]+)",
    r"[\w{marks}]+(?:[-_][\w{marks}]+)*",
    r"\S",
)
#: Characters after which GLiNER2 adds no full stop to a text.
_STOPS = (".", "!", "?")


@functools.cache
def _gliner2_words() -> re.Pattern[str]:
    codes = (*range(sys.maxunicode + 1),)
    marks = [chr(code) for code in codes if unicodedata.category(chr(code))[0] == "M"]
    return re.compile("|".join(_PARTS).format(marks="".join(marks) + "\u200c\u200d"))


@registry.word_splitters.register("gliner2")
class Gliner2Words(WordSplitter):
    """The words that GLiNER2 checkpoints were trained on: in lower case, with a full stop after the last.

    The full stop is added to texts that do not end with a full stop, an exclamation or a question mark. It is never
    part of an entity. The component's ``alignment_mode`` decides on entities that do not align with token boundaries.
    """

    def split(self, doc: Doc) -> Words:
        """Return the words with their character offsets in the text."""
        text = doc.text
        matches = list(_gliner2_words().finditer(text))
        texts = [match.group().lower() for match in matches]
        offsets = [match.span() for match in matches]
        if not matches or text.endswith(_STOPS):
            return Words(texts, offsets)
        return Words([*texts, "."], [*offsets, (len(text), len(text))], n_added=1)


@registry.word_splitters.register("whitespace")
class WhitespaceWords(WordSplitter):
    """The words that GLiNER checkpoints were trained on (``words_splitter_type = "whitespace"``).

    The component's ``alignment_mode`` decides on entities that do not align with token boundaries.
    """

    def split(self, doc: Doc) -> Words:
        """Return the words with their character offsets."""
        matches = list(_WORD.finditer(doc.text))
        return Words([match.group() for match in matches], [match.span() for match in matches])
