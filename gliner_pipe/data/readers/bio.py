"""Reads tables with a column of words and a column of tags, as data sets for token classification have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliner_pipe.data.annotations import SpanSetter
from gliner_pipe.data.fields import shown, word_list
from gliner_pipe.data.files import Place
from gliner_pipe.data.readers.base import LabelMap, Reader, Record
from gliner_pipe.data.readers.tables import (
    TABLE_SUFFIXES,
    Row,
    Table,
    is_dataset,
    list_cell,
    missing_column,
    open_tables,
)
from gliner_pipe.data.tags import (
    TagNames,
    TagScheme,
    check_scheme,
    find_scheme,
    tag_entities,
    tag_list,
    tags_by_id,
)
from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry


@dataclass(frozen=True)
class _Tagged:
    place: Place
    words: list[str]
    tags: list[str]


class BioReader(Reader):
    """Reader of tables with words and tags, see :func:`bio`."""

    suffixes = TABLE_SUFFIXES

    def __init__(
        self,
        path: Any,
        *,
        tokens_column: str = "tokens",
        tags_column: str = "tags",
        split: str = "train",
        tag_names: TagNames | None = None,
        scheme: str = "auto",
        max_samples: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(path, **options)
        if max_samples is not None and max_samples < 1:
            raise ConfigError("max_samples", f"is {max_samples}", "a number of rows from 1 on, or null")
        self.tokens_column, self.tags_column, self.split = tokens_column, tags_column, split
        self.tag_names = tags_by_id(tag_names)
        self.scheme = check_scheme(scheme)
        self.max_samples = max_samples

    @property
    def title(self) -> str:
        """What is read."""
        return "the data set" if is_dataset(self.path) else super().title

    def all_records(self, report: Counter[str]) -> Iterator[Record]:
        """Return the rows of all files with their entities."""
        return self._decoded(open_tables(self.path, self.split), report)

    def records(self, file: Path, report: Counter[str]) -> Iterator[Record]:
        """Yield the rows of one file with their entities."""
        return self._decoded(open_tables(file, self.split), report)

    def _decoded(self, tables: list[Table], report: Counter[str]) -> Iterator[Record]:
        # Only all tags together show in which scheme they are.
        rows = [row for table in tables for row in self._rows(table, report)]
        if self.max_samples is not None and self.max_samples < len(rows):
            rows = [rows[i * len(rows) // self.max_samples] for i in range(self.max_samples)]
        scheme = find_scheme(self.scheme, [row.tags for row in rows], report)
        for row in rows:
            entities = tag_entities(row.place, self.tags_column, row.tags, scheme, report)
            yield Record(row.place, words=row.words, entities=entities)

    def _rows(self, table: Table, report: Counter[str]) -> Iterator[_Tagged]:
        names = self.tag_names
        if names is None:
            names = tags_by_id(table.tag_names(self.tags_column))
        for row in table.rows((self.tokens_column, self.tags_column)):
            tagged = self._tagged(row, names, report)
            if tagged is not None:
                yield tagged

    def _tagged(self, row: Row, names: dict[int, str] | None, report: Counter[str]) -> _Tagged | None:
        """Return words and tags of a row; None for one without words."""
        place, cells = row
        for option, column in (("tokens_column", self.tokens_column), ("tags_column", self.tags_column)):
            if column not in cells:
                raise missing_column(place, option, column, list(cells))
        words = list_cell(place, self.tokens_column, cells[self.tokens_column])
        tags = list_cell(place, self.tags_column, cells[self.tags_column])
        if not words and not tags:
            report["row without words (dropped)"] += 1
            return None
        if not isinstance(words, list):
            raise place.error(self.tokens_column, f"is {shown(words)}", "a list of words")
        tags = tag_list(place, self.tags_column, tags, len(words), self.tokens_column, names)
        if "" in words:
            report["empty word (dropped with its tag)"] += words.count("")
            tags = [tag for word, tag in zip(words, tags, strict=True) if word != ""]
            words = [word for word in words if word != ""]
        if not words:
            report["row without words (dropped)"] += 1
            return None
        word_list(place, self.tokens_column, words, report)
        return _Tagged(place, words, tags)


@registry.readers.register("bio")
def bio(
    path: Any,
    *,
    span_setter: SpanSetter = "gliner",
    limit: int | None = None,
    label_map: LabelMap | None = None,
    labels: list[str] | None = None,
    flat_ner: bool = False,
    tokens_column: str = "tokens",
    tags_column: str = "tags",
    split: str = "train",
    tag_names: TagNames | None = None,
    scheme: TagScheme = "auto",
    max_samples: int | None = None,
) -> BioReader:
    """Read tables with a list of words and a list of tags in each row: CSV, TSV, JSON and Parquet files, and
    data sets of the package ``datasets``, saved or on the hub.

    Words become spaCy tokens one to one. Lists in CSV cells are JSON or Python literals. Tags are texts, or
    numbers whose tags `tag_names` or the features of the data set (``ClassLabel``) tell. Rows without words
    are dropped and counted.

    Parameters
    ----------
    path
        File, folder, pattern such as ``"corpus/*.parquet"``, or a list of these; a folder written by
        ``save_to_disk``; a data set of the hub, ``"name"`` or ``"name:configuration"``; in Python also a
        ``Dataset`` or ``DatasetDict``.
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
    tokens_column, tags_column
        Names of the columns.
    split
        Which part of a data set; of a folder, the files that are called so (``train.csv``,
        ``train-00000-of-00002.parquet``, ``train/part.jsonl``).
    tag_names
        Tags in the order of their ids, e.g. ``["O", "B-person", "I-person"]``, or a mapping from ids to tags.
    scheme
        How tags are written: ``"IO"``, ``"IOB1"``, ``"BIO"``, ``"BIOUL"``, ``"BIOES"``, ``"plain"`` (labels
        without prefixes; words side by side with the same one are one entity), or ``"auto"``, which finds it
        out from all tags.
    max_samples
        Rows to take, evenly spread over the data; null for all. (`limit` takes the first ones.)

    Returns
    -------
    BioReader
        Called with a pipeline, it yields spaCy examples.
    """
    return BioReader(
        path,
        span_setter=span_setter,
        limit=limit,
        label_map=label_map,
        labels=labels,
        flat_ner=flat_ner,
        tokens_column=tokens_column,
        tags_column=tags_column,
        split=split,
        tag_names=tag_names,
        scheme=scheme,
        max_samples=max_samples,
    )
