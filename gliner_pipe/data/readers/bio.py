"""Reads tables with a column of words and a column of tags, the usual form of token classification data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from gliner_pipe.data.fields import shown, word_list
from gliner_pipe.data.files import Place
from gliner_pipe.data.readers.base import OFFSET_OPTIONS, RELATION_OPTIONS, Reader, Record, reader
from gliner_pipe.data.readers.tables import (
    TABLE_SUFFIXES,
    Row,
    Table,
    is_dataset,
    list_cell,
    missing_column,
    open_tables,
)
from gliner_pipe.data.tags import TagNames, TagScheme, find_scheme, tag_entities, tag_list, tags_by_id
from gliner_pipe.errors import ConfigError


class _TaggedRow(NamedTuple):
    place: Place
    words: list[str]
    tags: list[str]


@reader("bio", without=(*RELATION_OPTIONS, *OFFSET_OPTIONS))
class BioReader(Reader):
    """Reads tables with a list of words and a list of tags in each row: CSV, TSV, JSON and Parquet files, and data
    sets of the package ``datasets``, saved or on the hub.

    Words become spaCy tokens one to one. Lists in CSV cells are JSON or Python literals. Tags are strings, or ids
    that `tag_names` or the features of the data set (``ClassLabel``) map to tags. Rows without words are dropped and
    counted.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.parquet"``, or a list of these; a folder written by
        ``save_to_disk``; a data set of the hub, ``"name"`` or ``"name:configuration"``; in Python also a
        ``Dataset`` or ``DatasetDict``.
    tokens_column, tags_column
        Names of the columns.
    split
        Split of a data set; in a folder, the files named after it (``train.csv``,
        ``train-00000-of-00002.parquet``, ``train/part.jsonl``).
    tag_names
        Tags in the order of their ids, e.g. ``["O", "B-person", "I-person"]``, or a mapping from ids to tags.
    scheme
        Tag scheme: ``"IO"``, ``"IOB1"``, ``"BIO"``, ``"BIOUL"``, ``"BIOES"``, ``"plain"`` (labels without prefixes;
        adjacent words with the same label are one entity), or ``"auto"``, which infers it from all tags.
    max_samples
        Number of rows to take, evenly spread over the data; null for all. (`limit` takes the first rows.)
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
        max_samples: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        if max_samples is not None and max_samples < 1:
            raise ConfigError("max_samples", f"is {max_samples}", "a number of rows from 1 on, or null")
        self.tokens_column, self.tags_column, self.split = tokens_column, tags_column, split
        self.tag_names = tags_by_id(tag_names)
        self.scheme = scheme
        self.max_samples = max_samples

    @property
    def title(self) -> str:
        """Name of the data in messages."""
        return "the data set" if is_dataset(self.path) else super().title

    def all_records(self, report: Counter[str]) -> Iterator[Record]:
        """Open the tables and return their rows with entities."""
        return self._decoded(open_tables(self.path, self.split), report)

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Return the rows of one file with entities."""
        return self._decoded(open_tables(file, self.split), report)

    def _decoded(self, tables: list[Table], report: Counter[str]) -> Iterator[Record]:
        # The scheme can be inferred from all tags together only.
        rows = [row for table in tables for row in self._rows(table, report)]
        if self.max_samples is not None and self.max_samples < len(rows):
            rows = [rows[i * len(rows) // self.max_samples] for i in range(self.max_samples)]
        scheme = find_scheme(self.scheme, [row.tags for row in rows], report)
        for row in rows:
            entities = tag_entities(row.place, self.tags_column, row.tags, scheme, report)
            yield Record(row.place, words=row.words, entities=entities)

    def _rows(self, table: Table, report: Counter[str]) -> Iterator[_TaggedRow]:
        names = self.tag_names
        if names is None:
            names = tags_by_id(table.tag_names(self.tags_column))
        for row in table.rows((self.tokens_column, self.tags_column)):
            tagged = self._tagged(row, names, report)
            if tagged is None:
                report["row without words (dropped)"] += 1
            else:
                yield tagged

    def _tagged(self, row: Row, names: dict[int, str] | None, report: Counter[str]) -> _TaggedRow | None:
        """Return words and tags of a row; None for a row without words."""
        place, cells = row
        for option, column in (("tokens_column", self.tokens_column), ("tags_column", self.tags_column)):
            if column not in cells:
                raise missing_column(place, option, column, list(cells))
        words = list_cell(place, self.tokens_column, cells[self.tokens_column])
        tags = list_cell(place, self.tags_column, cells[self.tags_column])
        if not words and not tags:
            return None
        if not isinstance(words, list):
            raise place.error(self.tokens_column, f"is {shown(words)}", "a list of words")
        tags = tag_list(place, self.tags_column, tags, len(words), self.tokens_column, names)
        if "" in words:
            report["empty word (dropped with its tag)"] += words.count("")
            tags = [tag for word, tag in zip(words, tags, strict=True) if word != ""]
            words = [word for word in words if word != ""]
        if not words:
            return None
        word_list(place, self.tokens_column, words, report)
        return _TaggedRow(place, words, tags)


bio = BioReader
