"""Reads column files: one word a line with its tag, sentences apart by blank lines."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.data.fields import Entity, check_characters
from gliner_pipe.data.files import Paths, Place, read_lines
from gliner_pipe.data.readers.base import LabelMap, Reader, Record
from gliner_pipe.data.tags import PREFIXES, decode_tags, detect_scheme, is_tag, split_tag
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.registry import registry

_BLANKS = re.compile("[ \t]+")


@dataclass
class Sentence:
    """The words and tags between two blank lines, with the number of the first line."""

    line: int
    opens_document: bool
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)


class ConllReader(Reader):
    """Reader of column files, see :func:`conll`."""

    suffixes: ClassVar[tuple[str, ...]] = (
        ".conll", ".conllu", ".conll2003", ".bio", ".iob", ".iob2", ".bioes", ".ner", ".tsv", ".txt",
    )  # fmt: skip

    def __init__(
        self,
        path: Paths | None,
        *,
        scheme: str = "auto",
        token_column: int = 0,
        tag_column: int = -1,
        separator: str = "auto",
        level: str = "sentence",
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        if scheme not in ("auto", *PREFIXES):
            raise ConfigError("scheme", f"is {scheme!r}", ", ".join(("auto", *PREFIXES)))
        if not separator:
            raise ConfigError("separator", "is empty", '"auto", "tab", "whitespace" or the separator itself')
        self.scheme, self.level = scheme, level
        self.token_column, self.tag_column, self.separator = token_column, tag_column, separator

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the sentences or documents of one file."""
        sentences = list(self._sentences(file, report))
        if not sentences:
            raise DataError(str(file), "is empty", "one word a line with its tag", "Check how it was written")
        scheme = (
            detect_scheme(sentence.tags for sentence in sentences) if self.scheme == "auto" else self.scheme
        )
        group: list[Sentence] = []
        for sentence in sentences:
            if group and (self.level == "sentence" or sentence.opens_document):
                yield _record(file, group, scheme, report)
                group = []
            group.append(sentence)
        yield _record(file, group, scheme, report)

    def _sentences(self, file: Path, report: Counter[str]) -> Iterator[Sentence]:
        rows = _Rows(file, self.separator, self.token_column, self.tag_column, report)
        sentence: Sentence | None = None
        opens = True
        for number, line in read_lines(file):
            row = rows.split(number, line) if line.strip() else None
            if row is not None and row[0] != "-DOCSTART-":
                if sentence is None:
                    sentence, opens = Sentence(number, opens), False
                sentence.words.append(row[0])
                sentence.tags.append(row[1])
                sentence.lines.append(number)
            elif row is not None or not line.strip():
                opens = opens or row is not None
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
        self.first: tuple[int, int] | None = None

    def split(self, number: int, line: str) -> tuple[str, str] | None:
        """Return word and tag of a line; None for a comment."""
        if self.separator == "auto" and not line.startswith("-DOCSTART-"):
            if line.startswith("# ") and "\t" not in line and len(line.split()) != 2:
                self._comment()
                return None
            self.separator = "\t" if "\t" in line else None
        columns = line.split(self.separator) if self.separator else _BLANKS.split(line.strip())
        if columns[0].startswith("-DOCSTART-") or line.startswith("-DOCSTART-"):
            return "-DOCSTART-", "O"
        if line.startswith("#") and not self._is_row(columns):
            self._comment()
            return None
        place = Place(str(self.file), number)
        self._check_columns(place, columns)
        word, tag = columns[self.token].strip(" "), columns[self.tag].strip()
        if not word:
            raise place.error(f"column {self.token}", "is an empty word", "a word", "Remove the line")
        check_characters(place, f"column {self.token}", word)
        if word.isspace():
            self.report["word of blanks only (kept)"] += 1
        return word, tag

    def _is_row(self, columns: list[str]) -> bool:
        """Say whether a line that begins with # is a word all the same: it has a tag where a tag belongs."""
        try:
            tag = columns[self.tag].strip()
        except IndexError:
            return False
        if len(columns) < 2 or (self.first is not None and len(columns) != self.first[1]):
            return False
        return tag == "O" or split_tag(tag) is not None or bool(self.separator)

    def _comment(self) -> None:
        """Count a comment."""
        self.report["comment line (ignored)"] += 1

    def _check_columns(self, place: Place, columns: list[str]) -> None:
        number = len(columns)
        do = "Check token_column, tag_column and separator"
        if self.first is None:
            self.first = place.line or 0, number
        if number != self.first[1]:
            found = f"has {number} columns, line {self.first[0]} has {self.first[1]}"
            raise place.error("columns", found, "the same number in each line", do)
        for name, column in (("token_column", self.token), ("tag_column", self.tag)):
            if not -number <= column < number:
                found = f"is {column}, the line has {number} columns"
                raise place.error(name, found, f"a number from {-number} to {number - 1}", do)
        if self.token % number == self.tag % number:
            found = f"is column {self.tag}, the same as token_column"
            raise place.error("tag_column", found, "another column than token_column", do)


def _record(file: Path, sentences: list[Sentence], scheme: str, report: Counter[str]) -> Record:
    words: list[str] = []
    starts: list[bool] = []
    entities: list[Entity] = []
    for sentence in sentences:
        _check_tags(file, sentence, scheme)
        found = decode_tags(sentence.tags, scheme, report)
        entities += [(len(words) + start, len(words) + end, label) for start, end, label in found]
        starts += [True] + [False] * (len(sentence.words) - 1)
        words += sentence.words
    place = Place(str(file), sentences[0].line)
    return Record(
        place, words=words, entities=entities, sentence_starts=starts if len(sentences) > 1 else None
    )


def _check_tags(file: Path, sentence: Sentence, scheme: str) -> None:
    for tag, line in zip(sentence.tags, sentence.lines, strict=True):
        if not is_tag(tag, scheme):
            prefixes = ", ".join(f"{prefix}-label" for prefix in "BIULES" if prefix in PREFIXES[scheme])
            raise Place(str(file), line).error(
                "tag",
                f"is {tag!r}",
                f"O, {prefixes} (scheme {scheme})",
                "Check scheme, tag_column and separator",
            )


@registry.readers.register("conll")
def conll(
    path: Paths | None,
    *,
    span_setter: SpanSetter = "gliner",
    limit: int | None = None,
    label_map: LabelMap | None = None,
    labels: list[str] | None = None,
    flat_ner: bool = False,
    scheme: Literal["auto", "IO", "IOB1", "BIO", "BIOUL", "BIOES"] = "auto",
    token_column: int = 0,
    tag_column: int = -1,
    separator: str = "auto",
    level: Literal["sentence", "document"] = "sentence",
) -> ConllReader:
    """Read column files: one word a line with its tag, sentences apart by blank lines.

    ``-DOCSTART-`` lines open a document. Lines that begin with ``#`` and have no tag are comments. Words
    become spaCy tokens one to one.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.conll"``, or a list of these.
    span_setter
        Where entities go: a span group, ``"ents"``, ``"*"`` (a group for each label), or several of these.
    limit
        Number of examples after which a pass ends; 0 for all.
    label_map
        New entity labels by old label, as a mapping or ``[old, new]`` pairs; null drops the entities.
    labels
        The complete entity label set of this data; a label that is not among them is a mistake.
    flat_ner
        Whether two entities that overlap are a mistake (one column of tags cannot say so).
    scheme
        How tags are written; ``"auto"`` finds it out for each file. ``"IO"`` takes bare labels, too.
    token_column
        The column of words, counted from 0, or from the end when negative.
    tag_column
        The column of tags, counted likewise.
    separator
        ``"tab"``, ``"whitespace"`` (one blank or tab, or several), a separator of your own, or ``"auto"``: a
        tab if the first line has one.
    level
        Whether an example is a sentence, or a document with its sentence borders.

    Returns
    -------
    ConllReader
        Called with a pipeline, it yields spaCy examples.
    """
    return ConllReader(
        path,
        span_setter=span_setter,
        limit=limit,
        label_map=label_map,
        labels=labels,
        flat_ner=flat_ner,
        scheme=scheme,
        token_column=token_column,
        tag_column=tag_column,
        separator=separator,
        level=level,
    )
