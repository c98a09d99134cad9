"""Reads the texts to predict on from standard input, a file or a folder, one at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gliner_pipe.data.exports import as_record, is_export, is_task, text_field
from gliner_pipe.data.fields import record_object
from gliner_pipe.data.files import (
    JSON_SUFFIXES,
    Place,
    decoded_lines,
    find_files,
    read_json,
    read_lines,
    read_text,
)
from gliner_pipe.data.readers.tables import open_tables
from gliner_pipe.prediction.shards import Columns, ending


@dataclass(frozen=True)
class TextItem:
    """A text and its origin.

    Parameters
    ----------
    text
        The text.
    where
        File and line, for messages.
    name
        Name of its output file (a relative path without suffix).
    meta
        Fields that are written beside the entities.
    """

    text: str
    where: str
    name: str
    meta: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str | TextItem, number: int) -> TextItem:
        """Return a text with an origin; a plain string gets its `number` as the origin."""
        return cls(text, f"text {number}", f"text-{number:06d}") if isinstance(text, str) else text


def read_texts(
    source: str | Path, *, lines: bool = False, columns: Columns | None = None
) -> Iterator[TextItem]:
    """Read texts.

    Parameters
    ----------
    source
        ``"-"`` (standard input, one text per line), a folder (each ``.txt`` file in it or below it is one text), a
        ``.jsonl`` file (one object with a ``text`` per line), compressed or not, a ``.json`` file (an array of
        such objects, or one per line), an export of an annotation tool, a ``.parquet`` file, or any other file, which
        is one text.
    lines
        Whether text files hold one text per line.
    columns
        Columns of the text and of the id of a record.

    Yields
    ------
    TextItem
        The texts in order; the files of a folder sorted by name.

    Raises
    ------
    DataError
        If the file does not exist, a folder has no ``.txt`` file, a file is not UTF-8, or a line of a ``.jsonl`` file
        is not an object with a ``text``.
    """
    if str(source) == "-":
        yield from _numbered(decoded_lines(sys.stdin.buffer, "<stdin>"), "<stdin>", "")
        return
    plain = ending(source) is None and Path(source).suffix.lower() not in JSON_SUFFIXES
    for path in find_files(source, (".txt",), read_once=plain):
        inside = path.relative_to(source).as_posix() if Path(source).is_dir() else path.name
        if ending(path) or path.suffix.lower() in JSON_SUFFIXES:
            yield from _records(path, columns or Columns())
        elif lines:
            prefix = f"{inside.removesuffix('.txt')}-" if Path(source).is_dir() else ""
            yield from _numbered(read_lines(path), str(path), prefix)
        else:
            yield TextItem(read_text(path), str(path), str(Path(inside).with_suffix("")), {"file": inside})


def _numbered(lines: Iterable[tuple[int, str]], where: str, prefix: str) -> Iterator[TextItem]:
    for number, text in lines:
        yield TextItem(text, f"{where}:{number}", f"{prefix}line-{number:06d}", {"line": number})


def _records(path: Path, columns: Columns) -> Iterator[TextItem]:
    name = "id" if columns.id is None else columns.id
    for place, record in _rows(path, columns.text, name):
        if not isinstance(record.get(columns.text), str):
            found = f"is an object with {', '.join(record) or 'nothing'}"
            raise place.error("", found, f'an object with a "{columns.text}" that is a string')
        given = record.get("meta")
        meta = dict(given) if isinstance(given, dict) else {}
        if name in record:
            meta.setdefault("id", record[name])
        yield TextItem(
            record[columns.text], str(place), f"line-{place.line or 0:06d}", meta or {"line": place.line}
        )


def _rows(path: Path, text: str, name: str) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Yield the records of a file. Those of annotation tools get their text in the column `text`."""
    first = next((one for _, one in read_json(path)), None) if path.suffix.lower() in JSON_SUFFIXES else None
    if text != Columns().text or not is_export(first) or (isinstance(first, Mapping) and text in first):
        (table,) = open_tables(path, "")
        yield from table.rows((text, name))
        return
    field = text_field(value for _, value in read_json(path))
    for place, value in read_json(path):
        record = as_record(value)
        data = record["data"] if isinstance(record, Mapping) and is_task(record) else record
        yield place, {**record_object(place, record), text: data.get(field)}
