"""Shards of texts: finds Parquet, JSON Lines and text files, and reads them in chunks from any row on."""

from __future__ import annotations

import glob
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from gliner_pipe.data.files import (
    BOM,
    Place,
    byte_lines,
    find_files,
    parse_line,
    read_lines,
    read_text,
    refuse_changed,
    state_of,
    unzipped,
)
from gliner_pipe.data.readers.tables import open_parquet
from gliner_pipe.errors import DataError
from gliner_pipe.pipeline.config_errors import flat
from gliner_pipe.prediction.chunks import (
    PREDICTION_FIELDS,
    BadRow,
    Chunk,
    Request,
    check_text,
    conflicting_names,
    replace_surrogates,
)
from gliner_pipe.prediction.shard_writers import arrow, to_values, with_valid_texts
from gliner_pipe.util.plurals import number_of

#: Suffixes of shards that can be read.
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
#: Suffix of text files, which are shards where there are no others.
TEXT = ".txt"
#: Rows that are read, predicted on and written together.
CHUNK_ROWS = 256

#: What a truncated or damaged file raises while it is read (``BadGzipFile`` is an OSError, some errors of pyarrow are
#: ValueErrors).
DAMAGED = (EOFError, zlib.error, OSError, ValueError, OverflowError)

logger = logging.getLogger("gliner_pipe")


@dataclass(frozen=True)
class Shard:
    """An input file, or a range of its rows, that becomes one output file.

    Parameters
    ----------
    path
        The input file.
    name
        Path of the output file in the output folder.
    start, stop
        Range of rows (lines, for JSON Lines), the end exclusive; None for the end of the file.
    offset
        Byte at which row `start` begins, if known.
    lines
        Whether a text file has one row per line; otherwise it is one row.
    """

    path: Path
    name: str
    start: int = 0
    stop: int | None = None
    offset: int = 0
    lines: bool = False


# -- finding -----------------------------------------------------------------------------------------------------


def ending(path: str | Path) -> str | None:
    """Return which of `SUFFIXES` a file has."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def holds_shards(source: str | Path) -> bool:
    """Return whether a path is a shard, or a folder or pattern with shards among its files."""
    path = Path(source).expanduser()
    if path.is_dir() or (glob.has_magic(str(source)) and not path.exists()):
        try:
            return bool(_files(source))
        except DataError:
            return False
    return ending(path) is not None or path.suffix.lower() == TEXT


def _files(source: str | Path) -> list[Path]:
    """Return the shards of a path; where there are others, text files are none."""
    found = find_files(source, (".gz", *SUFFIXES, TEXT))
    return [file for file in found if ending(file)] or [file for file in found if file.suffix.lower() == TEXT]


def find_shards(
    source: str | Path, format: str | None = None, shard_size: int | None = None, *, lines: bool = False
) -> list[Shard]:
    """Return the shards of a file, folder or pattern.

    Parameters
    ----------
    source
        A file, a folder or a pattern such as ``"texts/**/*.parquet"``.
    format
        Output format: ``"parquet"``, ``"jsonl"`` or ``"jsonl.gz"``; by default the format of each file, and JSON Lines
        for text files.
    shard_size
        Maximum number of rows of an output file.
    lines
        Whether text files hold one text per line.

    Returns
    -------
    list of Shard
        Sorted by file name.

    Raises
    ------
    DataError
        If there are no shards, or two files have the same output file.
    """
    path = Path(source).expanduser()
    files = _files(source)
    if not files:
        raise DataError(str(source), "holds no shards", f"files that end in {', '.join((*SUFFIXES, TEXT))}")
    if ending(files[0]) and path.is_dir() and (others := [*path.rglob(f"*{TEXT}")]):
        left = number_of(len(others), "text file")
        logger.warning("%s: %s left out, as there are %s files, too", source, left, ending(files[0]))
    root = path if path.is_dir() else _root(str(path)) if not path.exists() else path.parent
    shards: list[Shard] = []
    taken: dict[str, Path] = {}
    for file in files:
        suffix = ending(file) or TEXT
        stem = file.relative_to(root).as_posix()[: -len(suffix)]
        own = "jsonl" if suffix == TEXT else suffix.lstrip(".").replace("ndjson", "jsonl")
        name = f"{stem}.{format or own}"
        if name in taken:
            raise DataError(
                str(file),
                f"has the output file {name}, as has {taken[name]}",
                "file names that differ in more than their suffix",
                "Rename one file, or give a pattern that matches only one",
            )
        taken[name] = file
        shard = Shard(file, name, lines=lines)
        shards += _split(shard, shard_size) if shard_size else [shard]
    return shards


def _root(pattern: str) -> Path:
    parts = Path(pattern).parts
    plain = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:plain])


def _split(shard: Shard, size: int) -> list[Shard]:
    """Split a shard into shards of `size` rows."""
    starts = [(0, 0)]
    with suppress(*DAMAGED):  # a damaged file is split as far as it can be read; reading reports the error
        if ending(shard.path) == ".parquet":
            with _open_table(shard.path) as table:
                starts = [(start, 0) for start in range(0, max(table.metadata.num_rows, 1), size)]
        elif ending(shard.path) is None:
            count = sum(1 for _ in _texts(shard))
            starts = [(start, 0) for start in range(0, max(count, 1), size)]
        else:
            offset = 0
            with _open_bytes(shard.path) as (stream, _):
                for number, line in enumerate(byte_lines(stream, str(shard.path))):
                    if number and number % size == 0:
                        starts.append((number, offset))
                    offset += len(line)
    suffix = next(suffix for suffix in SUFFIXES if shard.name.endswith(suffix))
    stem = shard.name[: -len(suffix)]
    ends: list[int | None] = [start for start, _ in starts[1:]]
    return [
        replace(shard, name=f"{stem}-{number:05d}{suffix}", start=start, stop=stop, offset=offset)
        for number, ((start, offset), stop) in enumerate(zip(starts, [*ends, None], strict=True))
    ]


# -- columns -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Columns:
    """Roles of the columns of the data.

    Parameters
    ----------
    text
        Column of the text.
    labels
        Column with a list of labels for the row, or null.
    id
        Column that identifies a row in messages.
    keep
        Columns to keep beside `id`; all by default.
    """

    text: str = "text"
    labels: str | None = None
    id: str | None = None
    keep: tuple[str, ...] | None = None

    def kept(self, columns: Sequence[str]) -> list[str]:
        """Return which columns of a file are kept."""
        if self.keep is None:
            return list(columns)
        return [name for name in columns if name in self.keep or name == self.id]

    @property
    def required(self) -> list[str]:
        """The columns that must exist."""
        named = (self.text, self.labels, self.id, *(self.keep or ()))
        return list(dict.fromkeys(name for name in named if name is not None))


def check_columns(where: str, schema: Any, columns: Columns) -> None:
    """Check that a ``pyarrow.Schema`` has each required column once, and a text column of strings.

    Raises
    ------
    DataError
        With the columns that exist.
    """
    for name in columns.required:
        if schema.names.count(name) > 1:
            raise DataError(where, f"has the column {name!r} twice", "unique names", "Rename a column")
        if name not in schema.names:
            existing = ", ".join(schema.names) or "none"
            raise DataError(
                where,
                f"has no column {name!r} (columns: {existing})",
                "data with the columns named",
                "Set text_column",
            )
    types = arrow().types
    kind = schema.field(columns.text).type
    value = kind.value_type if types.is_dictionary(kind) else kind
    known = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    if not any(is_known(value) for is_known in known):
        raise DataError(
            f"{where} ({columns.text})", f"is a column of {kind}", "a column of strings", "Set text_column"
        )


def refuse_names(place: object, names: Sequence[str], skip: bool) -> None:
    """Raise an error if a column that is kept has the name of a column of the prediction."""
    for name in conflicting_names(names, skip):
        raise DataError(
            f"{place} ({name})",
            "has the name of a column of the prediction",
            f"data without {', '.join(PREDICTION_FIELDS)}",
            "Choose the columns to keep: --keep id,date",
        )


# -- reading -----------------------------------------------------------------------------------------------------


def read_chunks(
    shard: Shard, columns: Columns, *, start: int, limit: int, skip: bool = False
) -> Iterator[Chunk]:
    """Read a shard from a row on.

    Parameters
    ----------
    shard
        The file and the range of rows.
    columns
        Roles of its columns.
    start
        First row to read.
    limit
        Maximum number of characters of a text.
    skip
        Whether to continue after a bad row. Otherwise the chunk ends before that row, and its ``error`` gives the
        reason. A file that cannot be read ends with an ``error`` in both cases.

    Yields
    ------
    Chunk
        Of `CHUNK_ROWS` rows or fewer; at least one; the last one has ``last`` or ``error`` set.
    """
    suffix = ending(shard.path)
    read = _text_chunks if suffix is None else _parquet_chunks if suffix == ".parquet" else _json_chunks
    repaired = 0
    try:
        before = state_of(shard.path)
        for chunk in read(shard, columns, start, limit, skip):
            refuse_changed(shard.path, before)
            repaired += chunk.repaired
            if chunk.bad and not skip:
                yield _before_bad(chunk)
                return
            yield chunk
    except DataError as error:
        yield Chunk(shard, start, start, [], [], error=error)
    except DAMAGED as error:
        found = f"cannot be read to its end: {flat(str(error))}"
        damaged = DataError(str(shard.path), found, "a complete file", "Replace the file, then start again")
        yield Chunk(shard, start, start, [], [], error=damaged)
    finally:
        if repaired:
            logger.warning(
                "%s: %s with unpaired surrogates or bytes that are not UTF-8 outside the text, written as U+FFFD",
                shard.path,
                number_of(repaired, "row"),
            )


def _before_bad(chunk: Chunk) -> Chunk:
    """Return the rows of a chunk before its first bad row."""
    bad = chunk.bad[0]
    return replace(
        chunk,
        stop=bad.number,
        rows=chunk.rows[: bad.position],
        requests=[request for request in chunk.requests if request.position < bad.position],
        bad=[],
        last=False,
        error=bad.error(),
    )


def _identified(place: Place, name: str | None, row: Mapping[str, Any]) -> str:
    """Return the place of a row, with its id if it has one."""
    return str(place) if name is None or row.get(name) is None else f"{place} ({name} {row[name]!r})"


# -- reading text ------------------------------------------------------------------------------------------------


def _texts(shard: Shard) -> Iterator[str]:
    """Yield the texts of a text file: its lines, or all of it."""
    if shard.lines:
        yield from (text for _, text in read_lines(shard.path))
    else:
        yield read_text(shard.path)


def _text_chunks(shard: Shard, columns: Columns, start: int, limit: int, skip: bool) -> Iterator[Chunk]:
    chunk = Chunk(shard, start, start, [], [])
    for number, text in enumerate(_texts(shard)):
        if number == shard.stop:
            break
        if number < start:
            continue
        if number - chunk.start == CHUNK_ROWS:
            yield replace(chunk, share=0.0)  # the number of lines is not known
            chunk = Chunk(shard, number, number, [], [])
        chunk.stop = number + 1
        place, position = Place(str(shard.path), number + 1 if shard.lines else None), len(chunk.rows)
        chunk.rows.append(dict.fromkeys(columns.kept([columns.text]), text))
        invalid = check_text(text, None, limit)
        if invalid is None:
            chunk.requests.append(Request(position, text, place, None))
        else:
            chunk.bad.append(BadRow(str(place), *invalid, number, position))
    yield replace(chunk, last=True)


# -- reading JSON Lines ------------------------------------------------------------------------------------------


def _json_chunks(shard: Shard, columns: Columns, start: int, limit: int, skip: bool) -> Iterator[Chunk]:
    with _open_bytes(shard.path) as (stream, raw):
        stream.seek(shard.offset)
        size = max(shard.path.stat().st_size - shard.offset, 1)
        chunk = Chunk(shard, start, start, [], [])
        for number, line in enumerate(byte_lines(stream, str(shard.path)), shard.start):
            if number == shard.stop:
                break
            if number < start:
                continue
            if number - chunk.start == CHUNK_ROWS:
                yield replace(chunk, stop=number, share=(raw.tell() - shard.offset) / size)
                chunk = Chunk(shard, number, number, [], [])
            chunk.stop = number + 1
            if line.strip():
                _add_line(chunk, number, line, columns, limit, skip)
        yield replace(chunk, last=True)


def _add_line(chunk: Chunk, number: int, line: bytes, columns: Columns, limit: int, skip: bool) -> None:
    """Add the object of a line to the rows of a chunk, and its text to the requests."""
    place = Place(str(chunk.shard.path), number + 1)
    position = len(chunk.rows)
    line = line.removeprefix(BOM.encode()) if number == 0 else line
    invalid: tuple[str, str] | None = None
    try:
        value = parse_line(place, line)
    except DataError as error:
        invalid = error.found, error.allowed
        value = _parse_replacing_bytes(place, line)
        if value is None:
            chunk.bad.append(BadRow(error.where, *invalid, number, position, kept=False))
            return
    if not isinstance(value, dict):
        chunk.bad.append(
            BadRow(str(place), "is no object", "one JSON object per line", number, position, kept=False)
        )
        return
    kept = columns.kept(list(value))
    if not skip:
        refuse_names(place, kept, skip)
    conflicts = conflicting_names(kept, skip)
    row = {name: value[name] for name in kept if name not in conflicts}
    valid_row = replace_surrogates(row) if b"\\ud" in line.lower() else row
    chunk.rows.append(valid_row)
    text: Any = value.get(columns.text)
    labels = value.get(columns.labels) if columns.labels else None
    if invalid is None and conflicts:
        invalid = (
            f"has a field {conflicts[0]!r}, as the prediction has",
            f"rows without {', '.join(PREDICTION_FIELDS)}",
        )
    elif invalid is None and columns.text not in value:
        existing = ", ".join(value) or "none"
        invalid = f"has no field {columns.text!r} (fields: {existing})", "a field with the text"
    elif invalid is None:
        invalid = check_text(text, labels, limit)
    if invalid is None:
        chunk.requests.append(Request(position, text, place, labels))
        chunk.repaired += valid_row != row
    else:
        where, found, allowed = replace_surrogates([_identified(place, columns.id, value), *invalid])
        chunk.bad.append(BadRow(where, found, allowed, number, position))


def _parse_replacing_bytes(place: Place, line: bytes) -> Any:
    """Parse a line with U+FFFD in place of bytes that are not UTF-8; return None if it is not JSON either."""
    try:
        return parse_line(place, line.decode("utf-8", "replace"))
    except DataError:
        return None


@contextmanager
def _open_bytes(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file; yield the decompressed stream, and the raw one."""
    with path.open("rb") as raw:
        if path.suffix.lower() != ".gz":
            yield raw, raw
            return
        with unzipped(raw, path) as stream:
            yield stream, raw


# -- reading Parquet ---------------------------------------------------------------------------------------------


def _parquet_chunks(shard: Shard, columns: Columns, start: int, limit: int, skip: bool) -> Iterator[Chunk]:
    with _open_table(shard.path) as table:
        schema = table.schema_arrow
        check_columns(str(shard.path), schema, columns)
        kept = columns.kept(schema.names)
        refuse_names(shard.path, kept, skip)
        wanted = [name for name in schema.names if name in kept or name in columns.required]
        count = table.metadata.num_rows
        stop = count if shard.stop is None else min(shard.stop, count)
        if start >= stop:
            yield Chunk(shard, start, start, _no_rows(schema, kept), [], last=True)
        for batch in _batches(table, wanted, start, stop):
            kept_columns, replaced = with_valid_texts(batch.select(kept))
            chunk = Chunk(shard, start, start + len(batch), kept_columns, [])
            add_batch(chunk, batch, columns, limit, lambda row: Place(str(shard.path), row + 1))
            chunk.repaired = len(replaced.difference(row.position for row in chunk.bad))
            start = chunk.stop
            chunk.share = (start - shard.start) / (stop - shard.start)
            chunk.last = start == stop
            yield chunk


def _open_table(path: Path) -> Any:
    return open_parquet(path, "input", "parquet")


def _no_rows(schema: Any, names: Sequence[str]) -> Any:
    pa = arrow()
    return pa.RecordBatch.from_pylist([], schema=pa.schema([schema.field(name) for name in names]))


def _batches(table: Any, names: Sequence[str], start: int, stop: int) -> Iterator[Any]:
    """Read some columns of rows `start` to `stop`; earlier row groups are not read."""
    groups, first = list(range(table.num_row_groups)), 0
    while groups and first + table.metadata.row_group(groups[0]).num_rows <= start:
        first += table.metadata.row_group(groups.pop(0)).num_rows
    for batch in table.iter_batches(batch_size=CHUNK_ROWS, row_groups=groups, columns=list(names)):
        part = batch[max(start - first, 0) : max(stop - first, 0)]
        first += len(batch)
        if len(part):
            yield part
        if first >= stop:
            return


def add_batch(chunk: Chunk, batch: Any, columns: Columns, limit: int, place: Callable[[int], Place]) -> None:
    """Add the texts of a ``pyarrow.RecordBatch`` to the requests of a chunk with the same rows.

    Parameters
    ----------
    chunk
        Changed in place.
    batch
        Its rows, with the columns of texts and labels.
    columns
        Roles of the columns.
    limit
        Maximum number of characters of a text.
    place
        Returns the place of a row, given its number in the shard.
    """
    texts = to_values(batch.column(columns.text))
    labels = to_values(batch.column(columns.labels)) if columns.labels else [None] * len(texts)
    for position, (text, own_labels) in enumerate(zip(texts, labels, strict=True)):
        number = chunk.start + position
        invalid = check_text(text, own_labels, limit)
        if invalid is None:
            chunk.requests.append(Request(position, text, place(number), own_labels))
            continue
        row = {}
        if columns.id:
            row[columns.id] = to_values(batch.column(columns.id)[position : position + 1])[0]
        where = _identified(place(number), columns.id, row)
        chunk.bad.append(BadRow(where, *invalid, number, position))
