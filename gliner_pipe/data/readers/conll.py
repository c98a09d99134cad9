"""Reads column files (one word and its tag on each line), CoNLL-U, CoNLL-2012, and lines of ``word|TAG``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

from gliner_pipe.data.fields import Entity, count
from gliner_pipe.data.files import Place, read_lines
from gliner_pipe.data.readers import conll2012, conllu
from gliner_pipe.data.readers.base import OFFSET_OPTIONS, RELATION_OPTIONS, Reader, Record, reader
from gliner_pipe.data.readers.cells import TAGS_NAMES, TOKENS_NAMES
from gliner_pipe.data.tag_lists import TagNames, tag_of, tags_by_id
from gliner_pipe.data.tags import OUTSIDE, TagCodec, TagScheme, find_codec, has_prefixes
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.util.plurals import number_of
from gliner_pipe.util.ranges import Integer

_BLANKS = re.compile("[ \t]+")
_DOCUMENT, _NEW_DOCUMENT = "-DOCSTART-", ("# newdoc", "#begin document")
#: Labels of chunks (CoNLL-2000, CoNLL-2003).
_CHUNKS = {"ADJP", "ADVP", "CONJP", "INTJ", "LST", "NP", "PP", "PRT", "SBAR", "UCP", "VP"}
#: Maximum number of lines that decide how a file is written.
_LONGEST_HEAD = 1000
_COMMENT = "comment line (ignored)"
_CHECK = "Check token_column, tag_column and separator"

#: Maximum number of different tags without O in a small file; words are more.
_MOST_TAGS = 30


@dataclass
class _Sentence:
    """Words and tags between two blank lines, with their line numbers.

    ``unsure`` has the positions of lines that begin with ``#`` and have as many columns as the others: they are words
    if they have a tag. ``spaces`` and ``columns`` are set in files of CoNLL-U.
    """

    opens_document: bool
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    unsure: list[int] = field(default_factory=list)
    spaces: list[bool] = field(default_factory=list)
    columns: list[list[str]] = field(default_factory=list)

    def places(self, file: Path) -> Callable[[int], Place]:
        """Return a function from the position of a word to its place."""
        return lambda position: Place(str(file), self.lines[position])

    def keep(self, positions: Sequence[int]) -> None:
        """Remove all other lines."""
        for name in ("words", "tags", "lines", "columns"):
            values = getattr(self, name)
            setattr(self, name, [values[i] for i in positions] if values else values)


@reader("conll", without=(*RELATION_OPTIONS, *OFFSET_OPTIONS))
class ConllReader(Reader):
    """Reads column files: one word and its tag on each line, a blank line after each sentence.

    ``-DOCSTART-`` lines start a document. A line that begins with ``#`` is a comment unless it has the columns and a
    tag like the other lines. Words become spaCy tokens one to one. CoNLL-U and CoNLL-2012 files and files with a
    sentence of ``word|TAG`` or ``word|POS|TAG`` on each line, also with slashes or underscores, are recognized. In
    CoNLL-U the tags are those of the only column with tags, or those in MISC (``NER=B-PER``); multiword tokens and
    empty nodes are left out and counted.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.conll"``, or a list of these.
    scheme
        Tag scheme; ``"auto"`` infers it for each file. ``"IO"`` also accepts labels without prefix; ``"plain"`` takes
        each tag as a label.
    token_column
        Column of the words, counted from 0, or from the end if negative.
    tag_column
        Column of the tags, counted in the same way.
    separator
        ``"tab"``, ``"whitespace"`` (one or several blanks or tabs), any other separator, or ``"auto"``: a tab if the
        first line has one, else whitespace.
    level
        Whether an example is a sentence, or a document with its sentence boundaries.
    tag_names
        Tags in the order of their ids, or by id, if the column contains ids; or new tags by the tags of the file.
    options
        Options of all readers, see :class:`Reader`.
    """

    suffixes: ClassVar[tuple[str, ...]] = (
        ".conll", ".conllu", ".conll2003", ".bio", ".iob", ".iob2", ".bioes", ".ner", ".tsv", ".txt",
        ".gold_conll", ".v4_gold_conll",
    )  # fmt: skip

    def __init__(
        self,
        path: Any,
        *,
        scheme: TagScheme = "auto",
        token_column: Integer = 0,
        tag_column: Integer = -1,
        separator: str = "auto",
        level: Literal["sentence", "document"] = "sentence",
        tag_names: TagNames | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        if not separator:
            raise ConfigError("separator", "is empty", '"auto", "tab", "whitespace" or the separator itself')
        self.scheme, self.level = scheme, level
        self.token_column, self.tag_column, self.separator = token_column, tag_column, separator
        self.tag_names = tags_by_id(tag_names)

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the sentences or documents of one file."""
        rows = _Rows(file, self.separator, self.token_column, self.tag_column, report)
        sentences = list(rows.sentences())
        if not sentences:
            allowed = "one word and its tag on each line"
            raise DataError(str(file), "is empty", allowed, "Check how it was written")
        if self.tag_names is not None:
            for sentence in sentences:
                sentence.tags = [tag_of(tag, self.tag_names) or tag for tag in sentence.tags]
        if conll2012.has_brackets(sentence.tags for sentence in sentences):
            for sentence in sentences:
                sentence.tags = conll2012.tags_of_brackets(sentence.tags, sentence.places(file))
        _remove_comments(file, sentences, report)
        _remove_header(file, sentences, report)
        if rows.width > 2 and self.token_column == 0:
            _refuse_numbers(file, sentences)
        if self.tag_column == -1:
            rows.report_columns()
        codec = self._codec(file, rows, sentences, report)
        group: list[_Sentence] = []
        for sentence in sentences:
            if group and (self.level == "sentence" or sentence.opens_document):
                yield _record(file, group, codec, report)
                group = []
            if sentence.words:
                group.append(sentence)
        if group:
            yield _record(file, group, codec, report)

    def _codec(self, file: Path, rows: _Rows, sentences: list[_Sentence], report: Counter[str]) -> TagCodec:
        """Return the codec of the tags of a file."""

        def locate(sentence: int, position: int) -> tuple[Place, str]:
            return Place(str(file), sentences[sentence].lines[position]), "tag"

        check = self.scheme == "auto" and self.tag_column == -1 and not rows.inline and not rows.numbered
        tags = [sentence.tags for sentence in sentences]
        do = 'Check scheme, tag_column and separator; scheme = "plain" takes tags as labels'
        try:
            codec = find_codec(self.scheme, tags, locate, report, do=do)
        except DataError:
            if check:
                _refuse_column(file, rows, sentences)
            raise
        if check and not codec.dialect and not any(prefix == OUTSIDE for prefix, _ in codec.parts.values()):
            _refuse_column(file, rows, sentences)
        return codec


class _Rows:
    """Splits one file into sentences, and its lines into columns.

    The lines up to the first blank line after a word decide how the file is written.

    Attributes
    ----------
    width
        Number of columns.
    inline
        What separates words and tags in a file with a sentence of ``word|TAG`` on each line; else empty.
    numbered
        Whether the first column numbers the words, as in CoNLL-U.
    ragged
        Whether the number of columns differs, as in CoNLL-2012.
    values
        The different values of each column that is not read, as long as they are few.
    """

    def __init__(self, file: Path, separator: str, token: int, tag: int, report: Counter[str]) -> None:
        self.file, self.token, self.tag, self.report = file, token, tag, report
        self.automatic = separator == "auto"
        self.separator: str | None = {"tab": "\t", "whitespace": None, "auto": None}.get(separator, separator)
        self.width = self.first_line = 0
        self.numbered = self.ragged = False
        self.inline = ""
        self.values: dict[int, set[str]] = {}

    def report_columns(self) -> None:
        """Count further columns of tags, which are not read; the chunks of CoNLL-2003 are none of entities."""
        for column, values in self.values.items():
            labels = {value.partition("-")[2] for value in values if value != OUTSIDE}
            if has_prefixes(values) and not labels <= _CHUNKS:
                reason = f"file with tags in column {column}, too (not read; set tag_column)"
                count(self.report, reason, Place(str(self.file), self.first_line))

    def sentences(self) -> Iterator[_Sentence]:
        """Yield the sentences of the file; those of CoNLL-U have no tags yet."""
        lines = read_lines(self.file)
        head = list(_head(lines))
        rows = [(number, line) for number, line in head if _is_row(line)]
        # A file may consist of words that begin with #.
        rows = rows or [(number, line) for number, line in head if line.startswith("#")]
        if any(line.startswith("#FORMAT=WebAnno") for _, line in head):
            found, allowed = "is WebAnno TSV", "one word and its tag on each line"
            raise DataError(str(self.file), found, allowed, "Export it from INCEpTION as CoNLL 2002 or 2003")
        if not rows:
            return
        self._decide(rows)
        if self.inline:
            yield from _inline_sentences(self.file, chain(head, lines), self.inline, self.report)
        elif self.numbered:
            yield from self._numbered_sentences(list(self._sentences(chain(head, lines))))
        else:
            yield from self._sentences(chain(head, lines))

    def split(self, line: str) -> list[str]:
        """Return the columns of a line."""
        if self.separator is None:
            return _BLANKS.split(line.strip(" \t"))
        if self.separator == "\t" and self.tag == -1:
            line = line.rstrip("\t ")
        return line.split(self.separator)

    def _decide(self, rows: list[tuple[int, str]]) -> None:
        """Find out how the rows of the first sentence are written."""
        self.first_line, first = rows[0]
        if self.automatic and "\t" in first.rstrip():
            self.separator = "\t"
        columns = [self.split(line) for _, line in rows]
        self.width = len(columns[0])
        usual = self.automatic and (self.token, self.tag) == (0, -1)
        if self.automatic and conll2012.is_layout(columns):
            self.ragged = True
            self.token, self.tag = (conll2012.WORD, conll2012.NAMES) if usual else (self.token, self.tag)
            usual = False
        self.inline = _inline_separator(columns) if usual else ""
        if self.automatic and (self.token, self.tag) in ((0, -1), (conllu.FORM, self.tag)):
            self.numbered = conllu.is_numbered(columns)
        if self.numbered:
            self.token = conllu.FORM
        if self.inline:
            return
        place = Place(str(self.file), self.first_line)
        for name, column in (("token_column", self.token), ("tag_column", self.tag)):
            if not -self.width <= column < self.width:
                found = f"is {column}, the line has {number_of(self.width, 'column')}"
                raise place.error(name, found, f"a number from {-self.width} to {self.width - 1}", _CHECK)
        if self.token % self.width == self.tag % self.width:
            if self.width == 1:
                raise place.error("columns", "has 1 column", "a word and its tag", _CHECK)
            found = f"is column {self.tag}, the same as token_column"
            raise place.error("tag_column", found, "another column than token_column", _CHECK)
        if not self.numbered and not self.ragged:
            read = {self.token % self.width, self.tag % self.width}
            self.values = {column: set() for column in range(self.width) if column not in read}

    def _sentences(self, lines: Iterable[tuple[int, str]]) -> Iterator[_Sentence]:
        sentence: _Sentence | None = None
        opens_document = True
        for number, line in lines:
            if not line or line.isspace():
                if sentence is not None:
                    yield sentence
                    sentence = None
                continue
            hashed = line[0] == "#"
            if hashed and self._is_comment(line):
                count(self.report, _COMMENT, Place(str(self.file), number))
                opens_document = opens_document or line.startswith(_NEW_DOCUMENT)
                continue
            if line.startswith(_DOCUMENT):
                opens_document = True
                if sentence is not None:
                    yield sentence
                    sentence = None
                continue
            columns = self.split(line)
            if len(columns) != self.width and not (self.ragged and len(columns) >= conll2012.COLUMNS):
                columns = self._repaired(number, line, columns)
            word = columns[self.token].strip(" ")
            if not word:
                place = Place(str(self.file), number)
                raise place.error(f"column {self.token}", "is an empty word", "a word", "Remove the line")
            if sentence is None:
                sentence, opens_document = _Sentence(opens_document), False
            if hashed:
                sentence.unsure.append(len(sentence.words))
            if self.numbered:
                sentence.columns.append(columns)
            for column, values in self.values.items():
                if len(values) <= _MOST_TAGS:
                    values.add(columns[column].strip())
            sentence.words.append(word)
            sentence.tags.append(columns[self.tag].strip())
            sentence.lines.append(number)
            if word.isspace():
                count(self.report, "whitespace-only word (kept)", Place(str(self.file), number))
        if sentence is not None:
            yield sentence

    def _numbered_sentences(self, sentences: list[_Sentence]) -> list[_Sentence]:
        """Return the sentences of a CoNLL-U file with the words, tags and blanks of its columns."""
        if 2 * sum(conllu.begins(sentence.columns[0]) for sentence in sentences) < len(sentences):
            # The words of the first sentence happen to be 1, 2 ...
            for sentence in sentences:
                sentence.words = [columns[0] for columns in sentence.columns]
            return sentences
        for sentence in sentences:
            kept, sentence.spaces = conllu.words_of(sentence.columns, sentence.places(self.file), self.report)
            sentence.keep(kept)
        if self.tag in (-1, conllu.COLUMNS - 1):
            rows = [columns for sentence in sentences for columns in sentence.columns]
            tags = iter(conllu.tags_of_words(rows, Place(str(self.file), self.first_line)))
            for sentence in sentences:
                sentence.tags = [next(tags) for _ in sentence.words]
        return sentences

    def _is_comment(self, line: str) -> bool:
        """Whether a line that begins with ``#`` has not the columns of the other lines."""
        return self.numbered or self.width < 2 or len(self.split(line)) != self.width

    def _repaired(self, number: int, line: str, columns: list[str]) -> list[str]:
        """Return the columns of a line with doubled or other separators."""
        place = Place(str(self.file), number)
        if self.automatic and self.separator:
            for other in ([cell for cell in columns if cell], _BLANKS.split(line.strip())):
                if len(other) == self.width:
                    count(self.report, "line with doubled or other separators (read)", place)
                    return other
        found = f"has {number_of(len(columns), 'column')}, line {self.first_line} has {self.width}"
        raise place.error("columns", found, "the same number of columns on each line", _CHECK)


def _is_row(line: str) -> bool:
    return bool(line.strip()) and not line.startswith(("#", _DOCUMENT))


def _head(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield the lines up to the first blank line after a word, or up to :data:`_LONGEST_HEAD` words."""
    words = 0
    for number, line in lines:
        yield number, line
        words += _is_row(line)
        if words == _LONGEST_HEAD or (words and not line.strip()):
            return


def _remove_comments(file: Path, sentences: Sequence[_Sentence], report: Counter[str]) -> None:
    """Remove the lines that begin with ``#`` and have no tag: one that other lines have, or a tag with a prefix."""
    doubtful = [sentence for sentence in sentences if sentence.unsure]
    if not doubtful:
        return
    unsure = {id(sentence): set(sentence.unsure) for sentence in doubtful}
    sure = {
        tag
        for sentence in sentences
        for position, tag in enumerate(sentence.tags)
        if position not in unsure.get(id(sentence), ())
    }
    prefixed = has_prefixes(sure)
    for sentence in doubtful:
        comments = set()
        for position in sentence.unsure:
            tag, word = sentence.tags[position], sentence.words[position]
            known = tag == OUTSIDE or tag in sure or has_prefixes([tag])
            if not known and (prefixed or word == "#"):
                count(report, _COMMENT, Place(str(file), sentence.lines[position]))
                comments.add(position)
        sentence.keep([i for i in range(len(sentence.words)) if i not in comments])


def _remove_header(file: Path, sentences: Sequence[_Sentence], report: Counter[str]) -> None:
    """Remove a first line with the names of columns."""
    names = {*TOKENS_NAMES, *TAGS_NAMES, "form"}
    sentence = sentences[0]
    others = len(sentences) > 1 or len(sentence.words) > 1
    if sentence.words and others and {sentence.words[0].lower(), sentence.tags[0].lower()} <= names:
        count(report, "line with names of columns (ignored)", Place(str(file), sentence.lines[0]))
        sentence.keep(range(1, len(sentence.words)))


def _refuse_numbers(file: Path, sentences: Sequence[_Sentence]) -> None:
    """Raise an error if all words are whole numbers, of words or sentences: the words are in another column."""
    words = [word for sentence in sentences for word in sentence.words]
    if len(words) > 1 and all(word.isdecimal() for word in words):
        place = Place(str(file), sentences[0].lines[0])
        raise place.error(
            "column 0", f"has numbers only ({', '.join(words[:3])})", "words", "Set token_column = 1"
        )


def _refuse_column(file: Path, rows: _Rows, sentences: Iterable[_Sentence]) -> None:
    """Raise an error if the last column has no tags, while another one has, or has as many values as words."""
    lines = {line for sentence in sentences for line in sentence.lines}
    values: list[set[str]] = [set() for _ in range(rows.width)]
    for number, text in read_lines(file):
        columns = rows.split(text) if number in lines else []
        if len(columns) == rows.width:
            for known, value in zip(values, columns, strict=True):
                known.add(value.strip())
    *others, last = values
    better = [i for i, known in enumerate(others) if has_prefixes(known)]
    better = better or [i for i, known in enumerate(others) if OUTSIDE in known and OUTSIDE not in last]
    if not better and len(last) <= max(_MOST_TAGS, len(lines) // 2):
        return
    examples: dict[str, int] = {}
    for sentence in sentences:
        for tag, line in zip(sentence.tags, sentence.lines, strict=True):
            if len(examples) < 3:
                examples.setdefault(tag, line)
    (first, line), *more = examples.items()
    found = f"is {first!r}" + "".join(f", in line {other} {tag!r}" for tag, other in more)
    do = "Set tag_column"
    if better:
        found += f", while column {better[0]} has tags"
        words = (
            f" and token_column = {rows.width - 1}" if better[0] == 0 else ", and token_column to the words"
        )
        do += f" = {better[0]}{words}"
    raise Place(str(file), line).error("tag", found, "a column of tags", do + ', or scheme = "plain"')


def _inline_separator(rows: Sequence[Sequence[str]]) -> str:
    """Return what separates words and tags in lines of ``word|TAG``, ``word/TAG``, ``word_TAG``; empty for columns."""
    cells = [cell for row in rows for cell in row]
    if all("|" in cell[1:-1] for cell in cells):
        return "|"
    for mark in ("/", "_"):
        if all(mark in cell[1:-1] for cell in cells):
            tags = {cell.rpartition(mark)[2] for cell in cells}
            if OUTSIDE in tags or has_prefixes(tags):
                return mark
    return ""


def _inline_sentences(
    file: Path, lines: Iterable[tuple[int, str]], bar: str, report: Counter[str]
) -> Iterator[_Sentence]:
    """Return the sentences of a file with ``word|TAG`` or ``word|POS|TAG`` on each line; `bar` is the separator."""
    opens_document = True
    found: list[tuple[int, bool, list[str]]] = []
    for number, line in lines:
        if line.startswith(_DOCUMENT):
            opens_document = True
        elif line.startswith("# ") and not all(bar in cell for cell in line.split()):
            count(report, _COMMENT, Place(str(file), number))
        elif line.strip():
            found.append((number, opens_document, line.split()))
            opens_document = False
    # A word may contain a bar itself: the word with the fewest bars tells the number of columns.
    bars = min(cell[1:].count(bar) for _, _, cells in found for cell in cells)
    for number, opens, cells in found:
        bare = [cell for cell in cells if bar not in cell[1:]]
        if bare:
            do = "Correct the line, or set separator"
            raise Place(str(file), number).error("word", f"is {bare[0]!r}", f"word{bar}TAG", do)
        parts = [cell.rsplit(bar, min(bars, cell[1:].count(bar))) for cell in cells]
        words, tags = [part[0] for part in parts], [part[-1] for part in parts]
        yield _Sentence(opens, words, tags, [number] * len(words))


def _record(file: Path, sentences: list[_Sentence], codec: TagCodec, report: Counter[str]) -> Record:
    words: list[str] = []
    starts: list[bool] = []
    spaces: list[bool] = []
    entities: list[Entity] = []
    for sentence in sentences:
        found = codec.entities(sentence.tags, report, sentence.places(file))
        if words:
            entities += [(len(words) + start, len(words) + end, label) for start, end, label in found]
        else:
            entities = found
        starts += [True] + [False] * (len(sentence.words) - 1)
        spaces += sentence.spaces
        words += sentence.words
    place = Place(str(file), sentences[0].lines[0])
    boundaries = starts if len(sentences) > 1 else None
    spaces[-1:] = [False] if spaces else []
    return Record(place, words=words, entities=entities, sentence_starts=boundaries, spaces=spaces or None)


conll = ConllReader
