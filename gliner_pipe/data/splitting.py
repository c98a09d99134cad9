"""Splits long training documents: at sentence boundaries outside of entities, or into overlapping chunks."""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import (
    DEFAULT_SPANS_KEY,
    SpanSetter,
    gold_spans,
    set_supervision,
    supervision,
    unknown_tokens,
    word_places,
)
from gliner_pipe.data.records import (
    RECORDS_KEY,
    Record,
    get_records,
    set_records,
    spans_of,
    with_spans,
)
from gliner_pipe.errors import ConfigError
from gliner_pipe.util.ranges import Amount, Count

#: Characters that end a sentence.
PUNCT_CHARS = tuple("!.?…‽。！？．।॥۔؟։።។᙮")  # noqa: RUF001

#: Characters that may follow the end of a sentence and still belong to it.
CLOSING_CHARS = frozenset("\"'”’»›)]}」』）》】")  # noqa: RUF001

#: Token attributes that a part keeps. Heads are missing: a dependency tree cannot be cut.
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
    """Split long documents into parts of at most `max_length` words, without overlap.

    A part ends at a sentence boundary; within a sentence only if the sentence alone is too long, and never within an
    entity. Whitespace tokens are no words. Sentences are those of the document if it has any, else those of
    :func:`sentence_starts`. Takes time linear in the number of words.

    Parameters
    ----------
    examples
        Examples with gold entities.
    max_length
        Maximum number of words of a part; 0 for no limit.
    multi_sentence
        Fill each part with as many sentences as fit; otherwise every sentence is a part.
    randomize
        Draw the length of each part uniformly between half of `max_length` and `max_length`, so that boundaries
        differ between passes.
    rng
        Source of randomness for `randomize`; seeded with 0 by default.
    spans_key
        Span group whose positions relations refer to. Entities of all groups and of ``doc.ents`` stay whole.
    punct_chars, check_capitalized, min_newline_count
        See :func:`sentence_starts`.
    report
        Receives counts: documents split, entities longer than `max_length`, relations across parts (dropped).

    Yields
    ------
    Example
        A short example unchanged; otherwise its parts with span groups, entities, sentence boundaries and
        supervision, but without dependency parses.
    """
    rng = rng or random.Random(0)
    report = Counter() if report is None else report
    for example in examples:
        doc = example.reference
        if len(doc) == 0 or (multi_sentence and (max_length <= 0 or word_places(doc)[-1] <= max_length)):
            yield example
            continue
        starts = sentence_starts(doc, punct_chars, check_capitalized, min_newline_count)
        cuts = _boundaries(doc, starts, max_length, multi_sentence, rng if randomize else None, report)
        if len(cuts) < 3:
            yield example
        else:
            report["documents split into parts"] += 1
            yield from _parts(
                doc, _Windows(cuts[:-1], cuts[1:]), spans_key, report, "relation across two parts (dropped)"
            )


def sentence_starts(
    doc: Doc,
    punct_chars: Sequence[str] = PUNCT_CHARS,
    check_capitalized: bool = True,
    min_newline_count: int = 1,
) -> list[bool]:
    """Return for each token of `doc` whether a sentence begins with it.

    Parameters
    ----------
    doc
        If it has sentence boundaries, these are returned.
    punct_chars
        Characters that end a sentence: a token of only such characters does, and closing quotes and brackets directly
        after it belong to the sentence.
    check_capitalized
        Whether a sentence cannot begin with a lowercase letter.
    min_newline_count
        Number of consecutive line breaks that also end a sentence; 0 for none.

    Returns
    -------
    list of bool
        One for each token, the first one true.
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
        elif due and i and CLOSING_CHARS.issuperset(text) and _adjacent(doc, i):
            starts.append(False)
        else:
            starts.append(i == 0 or (due and not (check_capitalized and text[0].islower())))
            due = False
    return starts


def _adjacent(doc: Doc, i: int) -> bool:
    """Whether no whitespace separates a token from the one before."""
    return bool(doc[i - 1].text.strip()) and not doc[i - 1].whitespace_


def _boundaries(
    doc: Doc,
    starts: Sequence[bool],
    max_length: int,
    multi_sentence: bool,
    rng: random.Random | None,
    report: Counter[str],
) -> list[int]:
    """Return the token boundaries of the parts: 0, ..., length."""
    length, words = len(doc), word_places(doc)
    free = _outside_entities(doc)
    before = list(accumulate((i if free[i] else -1 for i in range(length + 1)), max))
    after = list(accumulate((i if free[i] else length for i in range(length, -1, -1)), min))[::-1]
    sentence_ends = [i for i in range(1, length) if starts[i] and free[i]] + [length]
    cuts = [0]
    last = 0  # end of the sentences taken so far
    limit = _limit(max_length, rng)
    for end in sentence_ends:
        too_long = limit and words[end] - words[cuts[-1]] > limit
        if multi_sentence and too_long and words[last] > words[cuts[-1]]:
            cuts.append(last)
            limit = _limit(max_length, rng)
        while limit and words[end] - words[cuts[-1]] > limit:
            reach = bisect_right(words, words[cuts[-1]] + limit) - 1
            boundary = before[reach]
            if boundary <= cuts[-1]:
                boundary = after[reach]
                if words[boundary] - words[cuts[-1]] > max_length:
                    report["entity longer than max_length (kept whole)"] += 1
            if boundary >= end:
                break
            cuts.append(boundary)
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


def _outside_entities(doc: Doc) -> list[bool]:
    """Return for each token boundary (0 to length) whether it is outside of all entities and values of records."""
    change = [0] * (len(doc) + 1)
    values = [spans_of(record) for record in get_records(doc)]
    for group in (*doc.spans.values(), doc.ents, *values):
        for span in group:
            if span.end - span.start > 1:
                change[span.start + 1] += 1
                change[span.end] -= 1
    return [depth == 0 for depth in accumulate(change)]


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Chunk:
    """Length and overlap of chunks.

    Parameters
    ----------
    max_words
        Number of words of a chunk. A document of at most as many words stays whole.
    stride
        Overlap: number of words that a chunk shares with the previous one. Chunks begin ``max_words - stride`` words
        apart.
    """

    max_words: Count = 200
    stride: Amount = 50

    def __post_init__(self) -> None:
        if self.stride >= self.max_words:
            found = f"is {self.stride}, max_words is {self.max_words}"
            raise ConfigError("stride", found, "fewer words than max_words", "Reduce the overlap")


def chunk_examples(
    examples: Iterable[Example],
    chunk: Chunk,
    *,
    spans_key: SpanSetter = DEFAULT_SPANS_KEY,
    report: Counter[str] | None = None,
) -> Iterator[Example]:
    """Split long documents into chunks of fixed length that overlap.

    A chunk leaves out entities that it contains only in part. Entities of at most ``stride + 1`` words are whole in
    another chunk; longer ones may be whole in none. Entities and relations within the overlap are in both chunks.
    Takes time linear in the number of words of the chunks.

    Parameters
    ----------
    examples
        Examples with gold entities.
    chunk
        Length and overlap.
    spans_key
        Span group whose positions relations refer to.
    report
        Receives counts: documents split, entities cut, entities and relations that are whole in no chunk.

    Yields
    ------
    Example
        A short example unchanged; otherwise its chunks with span groups, entities, sentence boundaries and
        supervision, but without dependency parses.
    """
    report = Counter() if report is None else report
    for example in examples:
        doc = example.reference
        words = word_places(doc)
        if words[-1] <= chunk.max_words:
            yield example
            continue
        report["documents cut into chunks"] += 1
        chunks = _chunks(words, chunk)
        for span in gold_spans(doc, spans_key):
            if not chunks.holding(span):
                report["entity whole in no chunk (left out)"] += 1
            elif len(chunks.touching(span)) > len(chunks.holding(span)):
                report["entity cut by a chunk (left out of that one, whole in another)"] += 1
        yield from _parts(doc, chunks, spans_key, report, "relation whole in no chunk (left out)")


class _Windows:
    """The token ranges of the parts of one document, whose starts and whose ends both increase."""

    def __init__(self, starts: Sequence[int], ends: Sequence[int]) -> None:
        self.starts, self.ends = starts, ends

    def holding(self, span: Span) -> range:
        """Return the parts that contain all of `span`."""
        return range(bisect_left(self.ends, span.end), bisect_right(self.starts, span.start))

    def touching(self, span: Span) -> range:
        """Return the parts that contain a token of `span`."""
        return range(bisect_right(self.ends, span.start), bisect_left(self.starts, span.end))


def _chunks(words: Sequence[int], chunk: Chunk) -> _Windows:
    """Return the chunks of a document, with the whitespace tokens around them; `words` is its ``word_places``."""
    step = chunk.max_words - chunk.stride
    firsts = range(0, words[-1] - chunk.stride, step)
    ends = [min(words[-1], first + chunk.max_words) for first in firsts]
    return _Windows(
        [bisect_left(words, first) for first in firsts], [bisect_right(words, end) - 1 for end in ends]
    )


def _parts(
    doc: Doc, windows: _Windows, spans_key: SpanSetter, report: Counter[str], lost: str
) -> Iterator[Example]:
    """Yield the parts of a document; `report` counts as `lost` the relations that no part contains."""
    supervisions = _supervisions(doc, windows, spans_key, report, lost)
    groups = [{key: list[Span]() for key in doc.spans} for _ in supervisions]
    for key, group in doc.spans.items():
        for span in group:
            for i in windows.holding(span):
                groups[i][key].append(span)
    cutter, unknown = _Cutter(doc), unknown_tokens(doc, spans_key)
    records = _records(doc, windows, report) if RECORDS_KEY in doc.user_data else None
    for i, (start, end) in enumerate(zip(windows.starts, windows.ends, strict=True)):
        members, fields = groups[i], supervisions[i]
        if unknown is not None and not unknown.all() and unknown[start:end].all():
            report["part without annotated tokens (left out)"] += 1
        else:
            yield cutter.cut(start, end, members, fields, None if records is None else records[i])


def _supervisions(
    doc: Doc, windows: _Windows, spans_key: SpanSetter, report: Counter[str], lost: str
) -> list[dict[str, Any]]:
    """Return the supervision of each part; its relations refer to the entities of the part."""
    whole: dict[str, Any] = dict(supervision(doc))
    relations, links = whole.pop("relations", None), whole.pop("links", None)
    parts = [dict(whole) for _ in windows.starts]
    if links is not None:
        _add_links(parts, links, doc, windows, report, lost)
    if relations is None:
        return parts
    positions: list[dict[int, int]] = [{} for _ in windows.starts]
    spans = gold_spans(doc, spans_key)
    for number, span in enumerate(spans):
        for i in windows.holding(span):
            positions[i][number] = len(positions[i])
    kept: list[list[list[Any]]] = [[] for _ in positions]
    for head, tail, label in relations:
        both = [i for i in windows.holding(spans[head]) if tail in positions[i]]
        for i in both:
            kept[i].append([positions[i][head], positions[i][tail], label])
        if not both and links is None:
            report[lost] += 1
    return [{**part, "relations": some} for part, some in zip(parts, kept, strict=True)]


def _add_links(
    parts: Sequence[dict[str, Any]],
    links: Sequence[Sequence[Any]],
    doc: Doc,
    windows: _Windows,
    report: Counter[str],
    lost: str,
) -> None:
    """Add to the supervision of each part the relations between spans that it contains."""
    for part in parts:
        part["links"] = []
    for *ends, label in links:
        both = windows.holding(doc[min(ends) : max(ends)])
        for i in both:
            parts[i]["links"].append([*(end - windows.starts[i] for end in ends), label])
        if not both:
            report[lost] += 1


def _records(doc: Doc, windows: _Windows, report: Counter[str]) -> list[list[Record]]:
    """Return the records of each part: those whose first value it contains, with the values that it contains."""
    kept: list[list[Record]] = [[] for _ in windows.starts]
    for record in get_records(doc):
        spans = spans_of(record)
        first = min(spans, key=lambda span: (span.start, span.end)) if spans else None
        owners = range(1) if first is None else windows.holding(first)
        if not owners:
            report["record whose first value is whole in no part (left out)"] += 1
        for i in owners:
            start, stop = windows.starts[i], windows.ends[i]

            def inside(span: Span, start: int = start, stop: int = stop) -> Span | None:
                return span if start <= span.start and span.end <= stop else None

            report["value of a record in another part (left out)"] += sum(not inside(span) for span in spans)
            kept[i].append(with_spans(record, inside))
    return kept


class _Cutter:
    """Cuts parts out of one document with its annotations."""

    def __init__(self, doc: Doc) -> None:
        self.doc = doc
        self.words = [token.text for token in doc]
        self.spaces = [bool(token.whitespace_) for token in doc]
        self.array = doc.to_array(_ATTRIBUTES)
        places = {token.idx: token.i for token in doc}
        # Name, token and value of token extensions: spaCy stores them under the first character of the token.
        self.extensions = [
            (key[1], places[key[2]], value)
            for key, value in doc.user_data.items()
            if isinstance(key, tuple) and key[0] == "._." and key[3] is None and key[2] in places
        ]

    def cut(
        self,
        start: int,
        end: int,
        groups: Mapping[str, Sequence[Span]],
        fields: Mapping[str, Any],
        records: Sequence[Record] | None = None,
    ) -> Example:
        """Return the part from token `start` to token `end` (exclusive), with the classes of the whole document.

        Parameters
        ----------
        start, end
            Token range.
        groups
            Spans of the part by span group, as spans of the whole document.
        fields
            Supervision of the part.
        records
            Records of the part, with spans of the whole document; None if nobody looked for records.
        """
        bare = Doc(self.doc.vocab, words=self.words[start:end], spaces=self.spaces[start:end])
        part = bare.copy()
        part.from_array(_ATTRIBUTES, self._without_cut_ents(start, end))
        for key, spans in groups.items():
            part.spans[key] = [
                Span(part, span.start - start, span.end - start, span.label, span.kb_id) for span in spans
            ]
        for name, token, value in self.extensions:
            if start <= token < end:
                part.user_data["._.", name, part[token - start].idx, None] = value
        part.cats = dict(self.doc.cats)
        if records is not None:
            moved = (
                with_spans(one, lambda span: Span(part, span.start - start, span.end - start, span.label))
                for one in records
            )
            set_records(part, moved)
        set_supervision(part, **fields)
        return Example(bare, part)

    def _without_cut_ents(self, start: int, end: int) -> Any:
        """Return the attributes of the tokens, without entities of ``doc.ents`` that are only partly inside."""
        array = self.array[start:end]
        for boundary in (start, end):
            for ent in self._ents_across(boundary):
                array = array.copy()
                rows = array[max(ent.start, start) - start : min(ent.end, end) - start]
                rows[:, _ATTRIBUTES.index("ENT_IOB")] = 2  # outside
                for name in ("ENT_TYPE", "ENT_KB_ID", "ENT_ID"):
                    rows[:, _ATTRIBUTES.index(name)] = 0
        return array

    def _ents_across(self, boundary: int) -> list[Span]:
        """Return the entity of ``doc.ents`` that crosses a boundary, if there is one."""
        if not 0 < boundary < len(self.doc) or self.doc[boundary].ent_iob_ != "I":
            return []
        return [ent for ent in self.doc.ents if ent.start < boundary < ent.end]
