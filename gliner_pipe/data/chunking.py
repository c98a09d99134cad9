"""Long documents cut into chunks of a fixed number of words that overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import DEFAULT_SPANS_KEY, SpanSetter, gold_spans, supervision, word_places
from gliner_pipe.data.splitting import Pieces
from gliner_pipe.errors import ConfigError


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
    fields = _supervisions(doc, windows, spans_key, report)
    pieces = Pieces(doc)
    for i in range(windows.number):
        members = {key: chunks[i] for key, chunks in groups.items()}
        yield pieces.cut(*windows.borders(i), members, fields[i])


def _supervisions(
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
