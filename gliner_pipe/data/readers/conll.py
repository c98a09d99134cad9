"""Reads column files: one word and its tag on each line, a blank line after each sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from gliner_pipe.data.fields import Entity, check_characters
from gliner_pipe.data.files import Place, read_lines
from gliner_pipe.data.readers.base import OFFSET_OPTIONS, RELATION_OPTIONS, Reader, Record, reader
from gliner_pipe.data.tags import Scheme, decode_tags, detect_scheme, is_tag, split_tag, tags_of
from gliner_pipe.errors import ConfigError, DataError

_BLANKS = re.compile("[ \t]+")
_DOCUMENT = "-DOCSTART-"


@dataclass
class _Sentence:
    """Words and tags between two blank lines, with their line numbers."""

    opens_document: bool
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


@reader("conll", without=(*RELATION_OPTIONS, *OFFSET_OPTIONS))
class ConllReader(Reader):
    """Reads column files: one word and its tag on each line, a blank line after each sentence.

    ``-DOCSTART-`` lines start a document. Lines that begin with ``#`` and have no tag are comments. Words become
    spaCy tokens one to one.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.conll"``, or a list of these.
    scheme
        Tag scheme; ``"auto"`` infers it for each file. ``"IO"`` also accepts labels without prefix.
    token_column
        Column of the words, counted from 0, or from the end if negative.
    tag_column
        Column of the tags, counted in the same way.
    separator
        ``"tab"``, ``"whitespace"`` (one or several blanks or tabs), any other separator, or ``"auto"``: a tab if the
        first line has one, else whitespace.
    level
        Whether an example is a sentence, or a document with its sentence boundaries.
    options
        Options of all readers, see :class:`Reader`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (
        ".conll", ".conllu", ".conll2003", ".bio", ".iob", ".iob2", ".bioes", ".ner", ".tsv", ".txt",
    )  # fmt: skip

    def __init__(
        self,
        path: Any,
        *,
        scheme: Literal["auto"] | Scheme = "auto",
        token_column: int = 0,
        tag_column: int = -1,
        separator: str = "auto",
        level: Literal["sentence", "document"] = "sentence",
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        if not separator:
            raise ConfigError("separator", "is empty", '"auto", "tab", "whitespace" or the separator itself')
        self.scheme, self.level = scheme, level
        self.token_column, self.tag_column, self.separator = token_column, tag_column, separator

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the sentences or documents of one file."""
        sentences = list(self._sentences(file, report))
        if not sentences:
            allowed = "one word and its tag on each line"
            raise DataError(str(file), "is empty", allowed, "Check how it was written")
        scheme: str = self.scheme
        if scheme == "auto":
            scheme = detect_scheme(sentence.tags for sentence in sentences)
        group: list[_Sentence] = []
        for sentence in sentences:
            if group and (self.level == "sentence" or sentence.opens_document):
                yield _record(file, group, scheme, report)
                group = []
            group.append(sentence)
        yield _record(file, group, scheme, report)

    def _sentences(self, file: Path, report: Counter[str]) -> Iterator[_Sentence]:
        rows = _Rows(file, self.separator, self.token_column, self.tag_column, report)
        sentence: _Sentence | None = None
        opens_document = True
        for number, line in read_lines(file):
            row = rows.split(number, line) if line.strip() else None
            if row is not None and row[0] != _DOCUMENT:
                if sentence is None:
                    sentence, opens_document = _Sentence(opens_document), False
                sentence.words.append(row[0])
                sentence.tags.append(row[1])
                sentence.lines.append(number)
            elif row is not None or not line.strip():
                opens_document = opens_document or row is not None
                if sentence is not None:
                    yield sentence
                sentence = None
        if sentence is not None:
            yield sentence


class _Rows:
    """Splits the lines of one file into columns."""

    def __init__(self, file: Path, separator: str, token: int, tag: int, report: Counter[str]) -> None:
        self.file, self.token, self.tag, self.report = file, token, tag, report
        self.separator: str | None = {"tab": "\t", "whitespace": None}.get(separator, separator)
        self.first: tuple[int, int] | None = None  # line number and columns of the first row

    def split(self, number: int, line: str) -> tuple[str, str] | None:
        """Return word and tag of a line; None for a comment."""
        if self.separator == "auto" and not line.startswith(_DOCUMENT):
            if line.startswith("# ") and "\t" not in line and len(line.split()) != 2:
                self.report["comment line (ignored)"] += 1
                return None
            self.separator = "\t" if "\t" in line else None
        columns = line.split(self.separator) if self.separator else _BLANKS.split(line.strip())
        if columns[0].startswith(_DOCUMENT) or line.startswith(_DOCUMENT):
            return _DOCUMENT, "O"
        if line.startswith("#") and not self._has_tag(columns):
            self.report["comment line (ignored)"] += 1
            return None
        place = Place(str(self.file), number)
        self._check_columns(place, columns)
        word, tag = columns[self.token].strip(" "), columns[self.tag].strip()
        if not word:
            raise place.error(f"column {self.token}", "is an empty word", "a word", "Remove the line")
        check_characters(place, f"column {self.token}", word)
        if word.isspace():
            self.report["whitespace-only word (kept)"] += 1
        return word, tag

    def _has_tag(self, columns: list[str]) -> bool:
        """Whether a line that begins with ``#`` has a tag in the tag column, so that it is no comment."""
        try:
            tag = columns[self.tag].strip()
        except IndexError:
            return False
        if len(columns) < 2 or (self.first is not None and len(columns) != self.first[1]):
            return False
        return tag == "O" or split_tag(tag) is not None or bool(self.separator)

    def _check_columns(self, place: Place, columns: list[str]) -> None:
        number = len(columns)
        do = "Check token_column, tag_column and separator"
        if self.first is None:
            self.first = place.line or 0, number
        if number != self.first[1]:
            found = f"has {number} columns, line {self.first[0]} has {self.first[1]}"
            raise place.error("columns", found, "the same number of columns on each line", do)
        for name, column in (("token_column", self.token), ("tag_column", self.tag)):
            if not -number <= column < number:
                found = f"is {column}, the line has {number} columns"
                raise place.error(name, found, f"a number from {-number} to {number - 1}", do)
        if self.token % number == self.tag % number:
            found = f"is column {self.tag}, the same as token_column"
            raise place.error("tag_column", found, "another column than token_column", do)


def _record(file: Path, sentences: list[_Sentence], scheme: str, report: Counter[str]) -> Record:
    words: list[str] = []
    starts: list[bool] = []
    entities: list[Entity] = []
    for sentence in sentences:
        for tag, line in zip(sentence.tags, sentence.lines, strict=True):
            if not is_tag(tag, scheme):
                do = "Check scheme, tag_column and separator"
                raise Place(str(file), line).error("tag", f"is {tag!r}", tags_of(scheme), do)
        found = decode_tags(sentence.tags, scheme, report)
        entities += [(len(words) + start, len(words) + end, label) for start, end, label in found]
        starts += [True] + [False] * (len(sentence.words) - 1)
        words += sentence.words
    place = Place(str(file), sentences[0].lines[0])
    boundaries = starts if len(sentences) > 1 else None
    return Record(place, words=words, entities=entities, sentence_starts=boundaries)


conll = ConllReader
