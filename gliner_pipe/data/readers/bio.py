"""Reads tables with a column of words and a column of tags, the usual form of token classification data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from gliner_pipe.data.fields import count, shown, word_list
from gliner_pipe.data.files import Place
from gliner_pipe.data.readers.base import OFFSET_OPTIONS, RELATION_OPTIONS, Reader, Record, reader
from gliner_pipe.data.readers.cells import MISSING, cell_of, is_one_word, list_cell, sentence_column
from gliner_pipe.data.readers.tables import (
    BLANK_ROW,
    TABLE_SUFFIXES,
    Row,
    Table,
    is_dataset,
    missing_column,
    open_tables,
)
from gliner_pipe.data.tag_lists import TagNames, tag_list, tag_of, tags_by_id
from gliner_pipe.data.tags import TagScheme, find_codec
from gliner_pipe.util.ranges import Count

#: Tags by id, or by the tags of the data.
Names = Mapping[int | str, str] | None


class _Sentence(NamedTuple):
    """Words and tags of a row, or of several rows with one word each, whose places are in ``rows``."""

    place: Place
    words: list[str]
    tags: list[str]
    rows: list[Place] | None = None

    def at(self, position: int) -> Place:
        """Return the place of a word."""
        return self.place if self.rows is None else self.rows[position]


@reader("bio", without=(*RELATION_OPTIONS, *OFFSET_OPTIONS))
class BioReader(Reader):
    """Reads tables with a list of words and a list of tags in each row, or one word and its tag: CSV, TSV, JSON and
    Parquet files, data sets of the package ``datasets``, saved or on the hub, and tables in memory.

    Words become spaCy tokens one to one. Lists in CSV cells are JSON or Python literals, or arrays as numpy prints
    them. Tags are strings, or ids that `tag_names` or the features of the data set (``ClassLabel``) map to tags. Rows
    without words are dropped and counted.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.parquet"``, or a list of these; a folder written by
        ``save_to_disk``; a data set of the hub, ``"name"`` or ``"name:configuration"``; in Python also a
        ``Dataset``, ``IterableDataset`` or ``DatasetDict``, a data frame, a table of pyarrow, or a list of rows.
    tokens_column, tags_column
        Names of the columns; ``"data.tokens"`` for a field of a column of objects.
    split
        Split of a data set; in a folder, the files named after it (``train.csv``,
        ``train-00000-of-00002.parquet``, ``train/part.jsonl``).
    tag_names
        Tags in the order of their ids, e.g. ``["O", "B-person", "I-person"]``, or a mapping from ids to tags, from tags
        to ids, or from the tags of the data to other tags.
    scheme
        Tag scheme: ``"IO"``, ``"IOB1"``, ``"BIO"``, ``"BIOUL"``, ``"BIOES"``, ``"BMES"``, ``"plain"`` (labels without
        prefixes; adjacent words with the same label are one entity), or ``"auto"``, which infers it from all tags.
    max_samples
        Number of rows to take, evenly spread over the data; null for all. (`limit` takes the first rows.)
    sentence_column
        Column that numbers the sentences of a table with one word in each row. A sentence ends where the number
        changes; an empty cell continues it. None for a column with a usual name, else a blank line ends a sentence.
    options
        Options of all readers, see :class:`Reader`.
    """

    suffixes = TABLE_SUFFIXES

    def __init__(
        self,
        path: Any,
        *,
        tokens_column: str = "tokens",
        tags_column: str = "tags",
        split: str = "train",
        tag_names: TagNames | None = None,
        scheme: TagScheme = "auto",
        max_samples: Count | None = None,
        sentence_column: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        self.tokens_column, self.tags_column, self.split = tokens_column, tags_column, split
        self.tag_names = tags_by_id(tag_names)
        self.scheme = scheme
        self.max_samples = max_samples
        self.sentence_column = sentence_column

    @property
    def title(self) -> str:
        """Name of the data in messages."""
        if is_dataset(self.path):
            return "the data set"
        return "the records" if self._has_rows() else super().title

    def _has_rows(self) -> bool:
        return isinstance(self.path, list) and bool(self.path) and isinstance(self.path[0], Mapping)

    def all_records(self, report: Counter[str]) -> Iterator[Record]:
        """Open the tables and return their rows with entities."""
        return self._decoded(open_tables(self.path, self.split), report)

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Return the rows of one file with entities."""
        return self._decoded(open_tables(file, self.split), report)

    def _decoded(self, tables: list[Table], report: Counter[str]) -> Iterator[Record]:
        # The codec can be inferred from all tags together only.
        named: dict[str, None] = {}
        rows = [row for table in tables for row in self._sentences(table, named, report)]
        if self.max_samples is not None and self.max_samples < len(rows):
            rows = [rows[i * len(rows) // self.max_samples] for i in range(self.max_samples)]

        def locate(row: int, position: int) -> tuple[Place, str]:
            index = f"[{position}]" if rows[row].rows is None else ""
            return rows[row].at(position), f"{self.tags_column}{index}"

        do = 'Check tags_column and tag_names; scheme = "plain" takes tags as labels'
        codec = find_codec(self.scheme, [row.tags for row in rows], locate, report, names=named, do=do)
        for row in rows:
            yield Record(row.place, words=row.words, entities=codec.entities(row.tags, report, row.at))

    def _sentences(self, table: Table, named: dict[str, None], report: Counter[str]) -> Iterator[_Sentence]:
        """Yield the sentences of a table, and add the names of its tags to `named`."""
        names: Names = self.tag_names
        if names is None:
            names = tags_by_id(table.tag_names(self.tags_column))
        named.update(dict.fromkeys((names or {}).values()))
        given = filter(None, [self.sentence_column])
        rows = iter(table.rows((self.tokens_column, self.tags_column, *given)))
        first = next((row for row in rows if row[1] is not BLANK_ROW), None)
        if first is None:
            return
        rows = chain([first], rows)
        if is_one_word(cell_of(first[1], self.tokens_column)) and not _is_list(
            cell_of(first[1], self.tags_column)
        ):
            yield from self._of_words(first, rows, names, report)
            return
        for row in rows:
            if row[1] is BLANK_ROW:
                continue
            tagged = self._tagged(row, names, report)
            if tagged is None:
                count(report, "row without words (dropped)", row[0])
            else:
                yield tagged

    def _cells(self, row: Row) -> tuple[Any, Any]:
        """Return the cells of words and of tags."""
        place, cells = row
        tokens, tags = cell_of(cells, self.tokens_column), cell_of(cells, self.tags_column)
        if tokens is MISSING:
            raise missing_column(place, "tokens_column", self.tokens_column, list(cells))
        if tags is MISSING:
            raise missing_column(place, "tags_column", self.tags_column, list(cells))
        return tokens, tags

    def _tagged(self, row: Row, names: Names, report: Counter[str]) -> _Sentence | None:
        """Return words and tags of a row; None for a row without words."""
        place, (tokens, cell) = row[0], self._cells(row)
        words = list_cell(place, self.tokens_column, tokens)
        tags = list_cell(place, self.tags_column, cell)
        if not words and not tags:
            return None
        if not isinstance(words, list):
            raise place.error(self.tokens_column, f"is {shown(words)}", "a list of words")
        tags = tag_list(place, self.tags_column, tags, len(words), self.tokens_column, names)
        if "" in words:
            count(report, "empty word (dropped with its tag)", place, words.count(""))
            tags = [tag for word, tag in zip(words, tags, strict=True) if word != ""]
            words = [word for word in words if word != ""]
        if not words:
            return None
        word_list(place, self.tokens_column, words, report)
        return _Sentence(place, words, tags)

    def _of_words(
        self, first: Row, rows: Iterator[Row], names: Names, report: Counter[str]
    ) -> Iterator[_Sentence]:
        """Yield the sentences of a table with one word in each row."""
        column = self.sentence_column or sentence_column(first[1])
        if column is not None and column not in first[1]:
            there = ", ".join(first[1])
            raise first[0].error(column, f"is missing (columns: {there})", "a column", "Set sentence_column")
        words: list[str] = []
        tags: list[str] = []
        places: list[Place] = []
        numbers: set[Any] = set()
        current: Any = None
        ended = False

        def finished() -> Iterator[_Sentence]:
            if words:
                word_list(places[0], self.tokens_column, words, report)
                yield _Sentence(places[0], words.copy(), tags.copy(), places.copy())
            for values in (words, tags, places):
                values.clear()

        for row in rows:
            place, cells = row
            word, cell = (None, None) if cells is BLANK_ROW else self._cells(row)
            if column is None and not word and cell in ("", None):
                ended = True
                yield from finished()
                continue
            number = cells.get(column) if column is not None else None
            if number not in ("", None) and number == number and number != current:
                if number in numbers:
                    count(report, "sentence in several places (read as several)", place)
                numbers.add(number)
                current = number
                yield from finished()
            if word in ("", None) or word != word:
                count(report, "empty word (dropped with its tag)", place)
                continue
            tag = tag_of(cell, names)
            if tag is None:
                tag_list(place, self.tags_column, [cell], 1, self.tokens_column, names)
            words.append(word)
            tags.append(str(tag))
            places.append(place)
        if column is None and not ended:
            found = f"is {first[1][self.tokens_column]!r}, one word, and no column numbers the sentences"
            allowed = "a list of words in each row, or one word and a column of sentences"
            raise first[0].error(self.tokens_column, found, allowed, "Set sentence_column")
        yield from finished()


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, str) and not is_one_word(value))


bio = BioReader
