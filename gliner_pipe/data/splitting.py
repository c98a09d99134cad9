"""Splits long training documents: at sentence ends outside of entities, or into overlapping chunks of fixed length."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise
from typing import Any

from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import (
    DEFAULT_SPANS_KEY,
    SpanSetter,
    gold_spans,
    set_supervision,
    supervision,
    word_places,
)
from gliner_pipe.errors import ConfigError

#: Characters that end a sentence.
PUNCT_CHARS = tuple("!.?…‽。！？．।॥۔؟։።។᙮")  # noqa: RUF001

#: Characters that may follow the end of a sentence and still belong to it.
CLOSING_CHARS = frozenset("\"'”’»›)]}」』）》】")  # noqa: RUF001

#: What a piece keeps of its document besides spans and supervision (there are no heads: a tree does not
#: survive).
_ATTRIBUTES = [
    "SENT_START",
    "TAG",
    "POS",
    "MORPH",
    "LEMMA",
    "NORM",
    "ENT_IOB",
    "ENT_TYPE",
    "ENT_KB_ID",
    "ENT_ID",
]


def split_examples(
    examples: Iterable[Example],
    *,
    max_length: int = 0,
    multi_sentence: bool = True,
    randomize: bool = False,
    rng: random.Random | None = None,
    spans_key: SpanSetter = DEFAULT_SPANS_KEY,
    punct_chars: Sequence[str] = PUNCT_CHARS,
    check_capitalized: bool = True,
    min_newline_count: int = 1,
    report: Counter[str] | None = None,
) -> Iterator[Example]:
    """Cut long documents into pieces of at most `max_length` words.

    A cut falls at the beginning of a sentence; inside a sentence only when that alone is too long, and inside
    an entity never. Whitespace is no word. Sentences are those of the document if it has any, else those that
    :func:`sentence_starts` finds. Takes time linear in the number of words.

    Parameters
    ----------
    examples
        Examples with gold entities.
    max_length
        Words of a piece at most; 0 for any number.
    multi_sentence
        Whether a piece takes as many sentences as fit; else each sentence is a piece.
    randomize
        Whether the length of each piece is drawn evenly between half of `max_length` and `max_length`, so
        that cuts fall elsewhere in each pass.
    rng
        The only source of chance for `randomize`; seeded with 0 when not given.
    spans_key
        Span group that relations count in. Cuts spare the entities of all groups and of ``doc.ents``.
    punct_chars, check_capitalized, min_newline_count
        See :func:`sentence_starts`.
    report
        Takes counts: documents cut, entities longer than `max_length`, relations between pieces (dropped).

    Yields
    ------
    Example
        An example that needs no cut as it is; else its pieces, with span groups, entities, sentence borders
        and supervision. Dependency parses are left out.
    """
    rng = rng or random.Random(0)
    report = Counter() if report is None else report
    for example in examples:
        doc = example.reference
        if len(doc) == 0 or (multi_sentence and (max_length <= 0 or word_places(doc)[-1] <= max_length)):
            yield example
            continue
        starts = sentence_starts(doc, punct_chars, check_capitalized, min_newline_count)
        cuts = _cuts(doc, starts, max_length, multi_sentence, rng if randomize else None, report)
        if len(cuts) < 3:
            yield example
            continue
        report["document cut into pieces"] += 1
        yield from _pieces(example, cuts, spans_key, report)


def sentence_starts(
    doc: Doc,
    punct_chars: Sequence[str] = PUNCT_CHARS,
    check_capitalized: bool = True,
    min_newline_count: int = 1,
) -> list[bool]:
    """Say for each token of `doc` whether a sentence begins with it.

    Parameters
    ----------
    doc
        If it has sentence borders, these are returned.
    punct_chars
        Characters that end a sentence: a token of nothing else does, and quotes and brackets that close
        behind it belong to the sentence.
    check_capitalized
        Whether a sentence may not begin with a small letter.
    min_newline_count
        Line breaks in a row that end a sentence, too; 0 if none do.

    Returns
    -------
    list of bool
        One a token, the first one true.
    """
    if doc.has_annotation("SENT_START"):
        return [i == 0 or bool(token.is_sent_start) for i, token in enumerate(doc)]
    ends = frozenset(punct_chars)
    starts = []
    due, newlines = True, 0
    for i, token in enumerate(doc):
        text = token.text
        if text.isspace():
            newlines += text.count("\n")
            due = due or 0 < min_newline_count <= newlines
            starts.append(i == 0)
            continue
        newlines = 0
        if ends.issuperset(text):
            starts.append(i == 0)
            due = True
        elif (
            due
            and i
            and CLOSING_CHARS.issuperset(text)
            and doc[i - 1].text.strip()
            and not doc[i - 1].whitespace_
        ):
            starts.append(False)
        else:
            starts.append(i == 0 or (due and not (check_capitalized and text[0].islower())))
            due = False
    return starts


def _cuts(
    doc: Doc,
    starts: Sequence[bool],
    max_length: int,
    multi_sentence: bool,
    rng: random.Random | None,
    report: Counter[str],
) -> list[int]:
    """Return the token borders at which pieces begin and end: 0, ..., length."""
    length, words = len(doc), word_places(doc)
    free = _free_borders(doc)
    before = list(accumulate((i if free[i] else -1 for i in range(length + 1)), max))
    behind = list(accumulate((i if free[i] else length for i in range(length, -1, -1)), min))[::-1]
    sentences = [i for i in range(1, length) if starts[i] and free[i]] + [length]
    cuts = [0]
    last = 0  # where the sentences taken so far end
    limit = _limit(max_length, rng)
    for end in sentences:
        if (
            multi_sentence
            and limit
            and words[end] - words[cuts[-1]] > limit
            and words[last] > words[cuts[-1]]
        ):
            cuts.append(last)
            limit = _limit(max_length, rng)
        while limit and words[end] - words[cuts[-1]] > limit:
            reach = bisect_right(words, words[cuts[-1]] + limit) - 1
            border = before[reach]
            if border <= cuts[-1]:
                border = behind[reach]
                if words[border] - words[cuts[-1]] > max_length:
                    report["entity longer than max_length (kept whole)"] += 1
            if border >= end:
                break
            cuts.append(border)
            limit = _limit(max_length, rng)
        if not multi_sentence and words[end] > words[cuts[-1]]:
            cuts.append(end)
            limit = _limit(max_length, rng)
        last = end
    return cuts if cuts[-1] == length else [*cuts, length]


def _limit(max_length: int, rng: random.Random | None) -> int:
    if max_length <= 0 or rng is None:
        return max(0, max_length)
    return rng.randint(max(1, max_length // 2), max_length)


def _free_borders(doc: Doc) -> list[bool]:
    """Say for each border between tokens (0 to length) whether it lies outside all entities."""
    change = [0] * (len(doc) + 1)
    for group in (*doc.spans.values(), doc.ents):
        for span in group:
            if span.end - span.start > 1:
                change[span.start + 1] += 1
                change[span.end] -= 1
    return [depth == 0 for depth in accumulate(change)]


class Pieces:
    """Cuts pieces out of one document.

    Parameters
    ----------
    doc
        The document with its annotations.
    """

    def __init__(self, doc: Doc) -> None:
        self.doc = doc
        self.words = [token.text for token in doc]
        self.spaces = [bool(token.whitespace_) for token in doc]
        self.array = doc.to_array(_ATTRIBUTES)
        places = {token.idx: token.i for token in doc}
        #: Name, word and value of what extensions say about words: spaCy files it under the first character.
        self.extensions = [
            (key[1], places[key[2]], value)
            for key, value in doc.user_data.items()
            if isinstance(key, tuple) and key[0] == "._." and key[3] is None and key[2] in places
        ]

    def cut(
        self, start: int, end: int, groups: Mapping[str, Sequence[Span]], fields: Mapping[str, Any]
    ) -> Example:
        """Return the piece from the word `start` to the one before `end`.

        Parameters
        ----------
        start, end
            Borders, in words.
        groups
            Spans of the document that the piece gets, by span group; they lie within it.
        fields
            Supervision of the piece.
        """
        bare = Doc(self.doc.vocab, words=self.words[start:end], spaces=self.spaces[start:end])
        piece = bare.copy()
        piece.from_array(_ATTRIBUTES, self._entities_whole(start, end))
        for key, spans in groups.items():
            piece.spans[key] = [
                Span(piece, span.start - start, span.end - start, span.label, span.kb_id) for span in spans
            ]
        for name, word, value in self.extensions:
            if start <= word < end:
                piece.user_data["._.", name, piece[word - start].idx, None] = value
        set_supervision(piece, **fields)
        return Example(bare, piece)

    def _entities_whole(self, start: int, end: int) -> Any:
        """Return the attributes of the words, without the entities of ``doc.ents`` that a border cuts."""
        array = self.array[start:end]
        for border in (start, end):
            for ent in self._ents_over(border):
                array = array.copy()
                part = array[max(ent.start, start) - start : min(ent.end, end) - start]
                part[:, _ATTRIBUTES.index("ENT_IOB")] = 2  # outside
                for name in ("ENT_TYPE", "ENT_KB_ID", "ENT_ID"):
                    part[:, _ATTRIBUTES.index(name)] = 0
        return array

    def _ents_over(self, border: int) -> list[Span]:
        """Return the entity of ``doc.ents`` that has words on both sides of `border`, if there is one."""
        if not 0 < border < len(self.doc) or self.doc[border].ent_iob_ != "I":
            return []
        return [ent for ent in self.doc.ents if ent.start < border < ent.end]


def _pieces(
    example: Example, cuts: Sequence[int], spans_key: SpanSetter, report: Counter[str]
) -> Iterator[Example]:
    reference = example.reference
    pieces = Pieces(reference)
    groups = {key: _by_piece(list(group), cuts) for key, group in reference.spans.items()}
    supervisions = _supervisions(reference, cuts, spans_key, report)
    for number, (start, end) in enumerate(pairwise(cuts)):
        members = {key: pieces_of[number] for key, pieces_of in groups.items()}
        yield pieces.cut(start, end, members, supervisions[number])


def _by_piece(spans: Sequence[Span], cuts: Sequence[int]) -> list[list[Span]]:
    pieces: list[list[Span]] = [[] for _ in range(len(cuts) - 1)]
    for span in spans:
        pieces[bisect_right(cuts, span.start) - 1].append(span)
    return pieces


def _supervisions(
    doc: Doc, cuts: Sequence[int], spans_key: SpanSetter, report: Counter[str]
) -> list[dict[str, Any]]:
    """Return the supervision of each piece, with relations that count in the spans of the piece."""
    whole: dict[str, Any] = dict(supervision(doc))
    relations = whole.pop("relations", None)
    pieces: list[dict[str, Any]] = [dict(whole) for _ in range(len(cuts) - 1)]
    if relations is None:
        return pieces
    place: list[tuple[int, int]] = []
    sizes = [0] * len(pieces)
    for span in gold_spans(doc, spans_key):
        piece = bisect_right(cuts, span.start) - 1
        place.append((piece, sizes[piece]))
        sizes[piece] += 1
    for piece_fields in pieces:
        piece_fields["relations"] = []
    for head, tail, label in relations:
        (first, head_position), (second, tail_position) = place[head], place[tail]
        if first == second:
            pieces[first]["relations"].append([head_position, tail_position, label])
        else:
            report["relation between two pieces (dropped)"] += 1
    return pieces


@dataclass(frozen=True)
class Chunk:
    """How long documents are cut.

    Parameters
    ----------
    max_words
        Words of a chunk. A document of at most so many stays whole.
    stride
        Words that a chunk shares with the one before it: the overlap. Each chunk begins ``max_words - stride``
        words behind the beginning of the one before.
    """

    max_words: int = 200
    stride: int = 50

    @classmethod
    def of(cls, options: Any, where: str) -> Chunk:
        """Return the chunk that a section describes.

        Raises
        ------
        ConfigError
            If an option is unknown or out of range.
        """
        if isinstance(options, Chunk):
            options = {"max_words": options.max_words, "stride": options.stride}
        known = [field.name for field in fields(cls)]
        if not isinstance(options, Mapping):
            raise ConfigError(
                where, f"is {options!r}", "max_words and stride, e.g. {max_words: 200, stride: 50}"
            )
        for name, value in options.items():
            if name not in known:
                raise ConfigError(f"{where}.{name}", "is no option of chunks", ", ".join(known))
            if isinstance(value, bool) or not isinstance(value, int) or value < (name == "max_words"):
                raise ConfigError(f"{where}.{name}", f"is {value!r}", "a number of words")
        chunk = cls(**options)
        if chunk.stride >= chunk.max_words:
            found = f"is {chunk.stride}, max_words is {chunk.max_words}"
            raise ConfigError(
                f"{where}.stride", found, "fewer words than max_words", "It is what two chunks share"
            )
        return chunk


def chunk_examples(
    examples: Iterable[Example],
    chunk: Chunk,
    *,
    spans_key: SpanSetter = DEFAULT_SPANS_KEY,
    report: Counter[str] | None = None,
) -> Iterator[Example]:
    """Cut long documents into chunks that overlap.

    An entity that a chunk holds only a part of is left out of that chunk. One of at most ``stride + 1`` words
    is whole in another chunk; longer ones may be whole in none. Entities and relations between them that stand
    in the overlap stand in both chunks. Takes time linear in the number of words of the chunks.

    Parameters
    ----------
    examples
        Examples with gold entities.
    chunk
        Length and overlap.
    spans_key
        Span group that relations count in.
    report
        Takes counts: documents cut, entities cut, entities and relations that no chunk holds as a whole.

    Yields
    ------
    Example
        An example that needs no cut as it is; else its chunks, with span groups, entities, sentence borders
        and supervision. Dependency parses are left out.
    """
    report = Counter() if report is None else report
    for example in examples:
        words = word_places(example.reference)
        if words[-1] <= chunk.max_words:
            yield example
        else:
            report["document cut into chunks"] += 1
            yield from _chunks(example.reference, _Windows(words, chunk), spans_key, report)


class _Windows:
    """Borders of the chunks of one document, and which of them a span falls into; `words` are its ``word_places``."""

    def __init__(self, words: list[int], chunk: Chunk) -> None:
        self.max_words, self.step, self.words = chunk.max_words, chunk.max_words - chunk.stride, words
        self.number = 1 + -(-(words[-1] - chunk.max_words) // self.step)

    def borders(self, i: int) -> tuple[int, int]:
        """Return the first token of a chunk, and the one behind its last, with the whitespace around its words."""
        stop = min(self.words[-1], i * self.step + self.max_words)
        return bisect_left(self.words, i * self.step), bisect_right(self.words, stop) - 1

    def holding(self, span: Span) -> range:
        """Return the chunks that hold all of `span`."""
        first = max(0, -(-(self.words[span.end] - self.max_words) // self.step))
        return range(first, min(self.number, self.words[span.start] // self.step + 1))

    def touching(self, span: Span) -> range:
        """Return the chunks that hold a word of `span`."""
        first = max(0, (self.words[span.start] - self.max_words) // self.step + 1)
        return range(first, min(self.number, (self.words[span.end] - 1) // self.step + 1))


def _chunks(doc: Doc, windows: _Windows, spans_key: SpanSetter, report: Counter[str]) -> Iterator[Example]:
    groups: dict[str, list[list[Span]]] = {}
    for key, group in doc.spans.items():
        groups[key] = [[] for _ in range(windows.number)]
        for span in group:
            for i in windows.holding(span):
                groups[key][i].append(span)
    fields = _chunk_supervisions(doc, windows, spans_key, report)
    pieces = Pieces(doc)
    for i in range(windows.number):
        members = {key: chunks[i] for key, chunks in groups.items()}
        yield pieces.cut(*windows.borders(i), members, fields[i])


def _chunk_supervisions(
    doc: Doc, windows: _Windows, spans_key: SpanSetter, report: Counter[str]
) -> list[dict[str, Any]]:
    """Return the supervision of each chunk, with relations that count in its spans; count what is cut."""
    places: list[dict[int, int]] = [{} for _ in range(windows.number)]
    spans = gold_spans(doc, spans_key)
    for number, span in enumerate(spans):
        holding = windows.holding(span)
        for i in holding:
            places[i][number] = len(places[i])
        if not holding:
            report["entity whole in no chunk (left out)"] += 1
        elif len(windows.touching(span)) > len(holding):
            report["entity cut by a chunk (left out of that one, whole in another)"] += 1
    whole: dict[str, Any] = dict(supervision(doc))
    relations = whole.pop("relations", None)
    if relations is None:
        return [dict(whole) for _ in places]
    kept: list[list[list[Any]]] = [[] for _ in places]
    for head, tail, label in relations:
        both = [i for i in windows.holding(spans[head]) if tail in places[i]]
        for i in both:
            kept[i].append([places[i][head], places[i][tail], label])
        if not both:
            report["relation whole in no chunk (left out)"] += 1
    return [{**whole, "relations": relations} for relations in kept]
