"""Texts to predict on: standard input, a file or a folder, read one at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from gliner_pipe.data.files import find_files, read_json, read_lines, read_text
from gliner_pipe.errors import DataError


@dataclass(frozen=True)
class TextItem:
    """A text and where it comes from.

    Parameters
    ----------
    text
        The text.
    where
        File and line, for messages.
    name
        Name for a file of its own (a relative path without suffix).
    meta
        What is written beside the entities.
    """

    text: str
    where: str
    name: str
    meta: dict[str, Any] = field(default_factory=dict)


def read_texts(source: str | Path, *, lines: bool = False) -> Iterator[TextItem]:
    """Read texts.

    Parameters
    ----------
    source
        ``"-"`` (standard input, one text a line), a folder (each ``.txt`` file in it or below it is one
        text), a ``.jsonl`` file (one object with a ``text`` a line), or any other file, which is one text.
    lines
        Whether files that would be one text hold one text a line.

    Yields
    ------
    TextItem
        The texts in order; files of a folder by name.

    Raises
    ------
    DataError
        If there is no such file, a folder has no ``.txt`` file, a file is not UTF-8, or a line of a
        ``.jsonl`` file is not an object with a ``text``.
    """
    if str(source) == "-":
        yield from _numbered(_stdin_lines(sys.stdin.buffer), "<stdin>", "")
        return
    for path in find_files(source, (".txt",)):
        inside = path.relative_to(source).as_posix() if Path(source).is_dir() else path.name
        if path.suffix.lower() == ".jsonl":
            yield from _records(path)
        elif lines:
            prefix = f"{inside.removesuffix('.txt')}-" if Path(source).is_dir() else ""
            yield from _numbered(read_lines(path), str(path), prefix)
        else:
            yield TextItem(read_text(path), str(path), str(Path(inside).with_suffix("")), {"file": inside})


def _numbered(lines: Iterable[tuple[int, str]], where: str, prefix: str) -> Iterator[TextItem]:
    for number, text in lines:
        yield TextItem(text, f"{where}:{number}", f"{prefix}line-{number:06d}", {"line": number})


def _stdin_lines(stream: IO[bytes]) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(stream, 1):
        try:
            yield number, line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(
                f"<stdin>:{number}", f"is not UTF-8 (byte {error.start + 1})", "UTF-8 text"
            ) from error


def _records(path: Path) -> Iterator[TextItem]:
    for place, record in read_json(path):
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            found = (
                f"is an object with {', '.join(record) or 'nothing'}"
                if isinstance(record, dict)
                else "is no object"
            )
            raise place.error("", found, 'an object with a "text" that is a string')
        given = record.get("meta")
        meta = dict(given) if isinstance(given, dict) else {}
        if "id" in record:
            meta.setdefault("id", record["id"])
        yield TextItem(
            record["text"], str(place), f"line-{place.line or 0:06d}", meta or {"line": place.line}
        )
