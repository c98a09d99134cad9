"""Shards of texts: finds Parquet and JSON Lines files and reads them in chunks from any row on."""

from __future__ import annotations

import glob
import gzip
import logging
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

from gliner_pipe.data.files import BOM, Place, find_files, parse_line
from gliner_pipe.data.readers.tables import open_parquet, optional_package
from gliner_pipe.errors import DataError
from gliner_pipe.pipeline.config_errors import flat
from gliner_pipe.prediction.chunks import ADDED, Ask, BadRow, Chunk, check_ask, names_added, whole_characters
from gliner_pipe.prediction.shard_writers import to_values, with_valid_texts

#: Endings of shards that can be read.
SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
#: Rows that are read, predicted on and written together.
CHUNK_ROWS = 256

#: What a file that is cut off or damaged raises in mid-reading (``BadGzipFile`` is an OSError, of pyarrow's errors some
#: are ValueErrors).
BROKEN = (EOFError, zlib.error, OSError, ValueError, OverflowError)

logger = logging.getLogger("gliner_pipe")


@dataclass(frozen=True)
class Columns:
    """Which columns of the data mean what.

    Parameters
    ----------
    text
        The text.
    labels
        A list of labels to ask for in the row, or null.
    id
        What names a row in messages.
    keep
        What is carried along beside `id`; all when not given.
    """

    text: str = "text"
    labels: str | None = None
    id: str | None = None
    keep: tuple[str, ...] | None = None

    def kept(self, columns: Sequence[str]) -> list[str]:
        """Return which of the columns of a file are carried along."""
        if self.keep is None:
            return list(columns)
        return [name for name in columns if name in self.keep or name == self.id]

    @property
    def needed(self) -> list[str]:
        """The columns that must be there."""
        named = (self.text, self.labels, self.id, *(self.keep or ()))
        return list(dict.fromkeys(name for name in named if name is not None))


@dataclass(frozen=True)
class Shard:
    """An input file, or some rows of it, that become one output file.

    Parameters
    ----------
    path
        The input file.
    name
        Path of the output file in the output folder.
    start, stop
        Which rows (lines, for JSON Lines), the end exclusive; to the end of the file when there is none.
    offset
        Byte at which row `start` begins, where that is known.
    """

    path: Path
    name: str
    start: int = 0
    stop: int | None = None
    offset: int = 0


def ending(path: str | Path) -> str | None:
    """Return which of `SUFFIXES` a file has."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def read_chunks(
    shard: Shard, columns: Columns, *, start: int, limit: int, skip: bool = False, rows: int = CHUNK_ROWS
) -> Iterator[Chunk]:
    """Read a shard from a row on.

    Parameters
    ----------
    shard
        Which file, and which of its rows.
    columns
        What its columns mean.
    start
        The first row to read.
    limit
        Characters of a text at most.
    skip
        Whether to go on after a bad row. Else the chunk ends before it, and its ``error`` says why. A file that cannot
        be read ends with an ``error`` either way.
    rows
        Of a chunk.

    Yields
    ------
    Chunk
        At least one; the last has ``last`` or ``error`` set.
    """
    if ending(shard.path) == ".parquet":
        chunks = _parquet_chunks(shard, columns, start, limit, skip, rows)
    else:
        chunks = _json_chunks(shard, columns, start, limit, skip, rows)
    mended = 0
    try:
        for chunk in chunks:
            mended += chunk.mended
            if chunk.bad and not skip:
                yield _before_bad(chunk)
                return
            yield chunk
    except DataError as error:
        yield Chunk(shard, start, start, [], [], error=error)
    except BROKEN as error:
        found = f"cannot be read to its end: {flat(str(error))}"
        broken = DataError(str(shard.path), found, "a whole file", "Write it anew, then start again")
        yield Chunk(shard, start, start, [], [], error=broken)
    finally:
        if mended:
            logger.warning(
                "%s: %d rows hold half characters or bytes that are not UTF-8 beside the text, written as U+FFFD",
                shard.path,
                mended,
            )


def _before_bad(chunk: Chunk) -> Chunk:
    """Cut a chunk before its first bad row."""
    bad = chunk.bad[0]
    return replace(
        chunk,
        stop=bad.number,
        rows=chunk.rows[: bad.position],
        asks=[ask for ask in chunk.asks if ask.position < bad.position],
        bad=[],
        last=False,
        error=bad.error(),
    )


# -- JSON Lines ----------------------------------------------------------------------------------------------


def _json_chunks(
    shard: Shard, columns: Columns, start: int, limit: int, skip: bool, rows: int
) -> Iterator[Chunk]:
    with open_bytes(shard.path) as (stream, raw):
        first = shard.start
        stream.seek(shard.offset)
        size = max(shard.path.stat().st_size - shard.offset, 1)
        chunk = Chunk(shard, start, start, [], [])
        for number, line in enumerate(lines_of(stream, shard.path), first):
            if number == shard.stop:
                break
            if number < start:
                continue
            if number - chunk.start == rows:
                yield replace(chunk, stop=number, share=(raw.tell() - shard.offset) / size)
                chunk = Chunk(shard, number, number, [], [])
            chunk.stop = number + 1
            if line.strip():
                _add_line(chunk, number, line, columns, limit, skip)
        yield replace(chunk, last=True)


def _add_line(chunk: Chunk, number: int, line: bytes, columns: Columns, limit: int, skip: bool) -> None:
    """Add the object of a line to the rows of a chunk, and its text to what is asked."""
    place = Place(str(chunk.shard.path), number + 1)
    position = len(chunk.rows)
    line = line.removeprefix(BOM.encode()) if number == 0 else line
    wrong: tuple[str, str] | None = None
    try:
        value = parse_line(place, line)
    except DataError as error:
        wrong = error.found, error.allowed
        value = _despite_bytes(place, line)
        if value is None:
            chunk.bad.append(BadRow(error.where, *wrong, number, position, kept=False))
            return
    if not isinstance(value, dict):
        chunk.bad.append(
            BadRow(str(place), "is no object", "a JSON object a line", number, position, kept=False)
        )
        return
    kept = columns.kept(list(value))
    if not skip:
        refuse_names(place, kept, skip)
    taken = names_added(kept, skip)
    row = {name: value[name] for name in kept if name not in taken}
    whole = whole_characters(row) if b"\\ud" in line.lower() else row
    chunk.rows.append(whole)
    text: Any = value.get(columns.text)
    labels = value.get(columns.labels) if columns.labels else None
    if wrong is None and taken:
        wrong = f"has a field {taken[0]!r}, where the prediction would go", f"rows without {', '.join(ADDED)}"
    elif wrong is None and columns.text not in value:
        fields = ", ".join(value) or "none"
        wrong = f"has no field {columns.text!r} (fields: {fields})", "a field with the text"
    elif wrong is None:
        wrong = check_ask(text, labels, limit)
    if wrong is None:
        chunk.asks.append(Ask(position, text, place, labels))
        chunk.mended += whole != row
    else:
        where, found, allowed = whole_characters([_named(place, columns.id, value), *wrong])
        chunk.bad.append(BadRow(where, found, allowed, number, position))


def _despite_bytes(place: Place, line: bytes) -> Any:
    """Return the value of a line that is not UTF-8, with U+FFFD for what is none; None if it is no JSON either."""
    try:
        return parse_line(place, line.decode("utf-8", "replace"))
    except DataError:
        return None


@contextmanager
def open_bytes(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Open a file for reading, unpacked; beside it the file as it stands on the disk."""
    with path.open("rb") as raw:
        if path.suffix.lower() != ".gz":
            yield raw, raw
            return
        with gzip.open(raw) as stream:
            yield cast("IO[bytes]", stream), raw


def lines_of(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """Yield the lines of a file that is open; UTF-16 is refused."""
    for number, line in enumerate(stream):
        if number == 0 and line[:2] in (b"\xff\xfe", b"\xfe\xff"):
            do = "Convert it: iconv -f UTF-16 -t UTF-8"
            raise DataError(str(path), "is UTF-16 text", "UTF-8", do)
        yield line


# -- Parquet -------------------------------------------------------------------------------------------------


def _parquet_chunks(
    shard: Shard, columns: Columns, start: int, limit: int, skip: bool, rows: int
) -> Iterator[Chunk]:
    with open_table(shard.path) as table:
        schema = table.schema_arrow
        check_columns(str(shard.path), schema, columns)
        kept = columns.kept(schema.names)
        refuse_names(shard.path, kept, skip)
        wanted = [name for name in schema.names if name in kept or name in columns.needed]
        count = table.metadata.num_rows
        stop = count if shard.stop is None else min(shard.stop, count)
        if start >= stop:
            yield Chunk(shard, start, start, _no_rows(schema, kept), [], last=True)
        for batch in _batches(table, wanted, start, stop, rows):
            carried, replaced = with_valid_texts(batch.select(kept))
            chunk = Chunk(shard, start, start + len(batch), carried, [])
            add_batch(chunk, batch, columns, limit, lambda row: Place(str(shard.path), row + 1))
            chunk.mended = len(replaced.difference(row.position for row in chunk.bad))
            start = chunk.stop
            chunk.share = (start - shard.start) / (stop - shard.start)
            chunk.last = start == stop
            yield chunk


def _no_rows(schema: Any, names: Sequence[str]) -> Any:
    arrow = optional_package("pyarrow", "input", "parquet")
    return arrow.RecordBatch.from_pylist([], schema=arrow.schema([schema.field(name) for name in names]))


def _batches(table: Any, names: Sequence[str], start: int, stop: int, rows: int) -> Iterator[Any]:
    """Read some columns of rows `start` to `stop`; groups of rows that lie before are passed over."""
    groups, first = list(range(table.num_row_groups)), 0
    while groups and first + table.metadata.row_group(groups[0]).num_rows <= start:
        first += table.metadata.row_group(groups.pop(0)).num_rows
    for batch in table.iter_batches(batch_size=rows, row_groups=groups, columns=list(names)):
        part = batch[max(start - first, 0) : max(stop - first, 0)]
        first += len(batch)
        if len(part):
            yield part
        if first >= stop:
            return


def add_batch(chunk: Chunk, batch: Any, columns: Columns, limit: int, place: Callable[[int], Place]) -> None:
    """Ask for the texts of a ``pyarrow.RecordBatch``, whose rows are those of a chunk.

    Parameters
    ----------
    chunk
        Changed in place.
    batch
        Its rows, with the columns of texts and labels.
    columns
        What the columns mean.
    limit
        Characters of a text at most.
    place
        Where a row stands, by its number in the shard.
    """
    texts = to_values(batch.column(columns.text))
    labels = to_values(batch.column(columns.labels)) if columns.labels else [None] * len(texts)
    for position, (text, own) in enumerate(zip(texts, labels, strict=True)):
        where = place(chunk.start + position)
        wrong = check_ask(text, own, limit)
        if wrong is None:
            chunk.asks.append(Ask(position, text, where, own))
            continue
        row = (
            {columns.id: to_values(batch.column(columns.id)[position : position + 1])[0]}
            if columns.id
            else {}
        )
        number = chunk.start + position
        chunk.bad.append(BadRow(_named(where, columns.id, row), *wrong, number, position))


def check_columns(where: str, schema: Any, columns: Columns) -> None:
    """Refuse a ``pyarrow.Schema`` that lacks a column, or whose texts are none.

    Raises
    ------
    DataError
        With the columns that are there.
    """
    for name in columns.needed:
        if schema.names.count(name) > 1:
            raise DataError(where, f"has the column {name!r} twice", "each column once", "Write it anew")
        if name not in schema.names:
            there = ", ".join(schema.names) or "none"
            raise DataError(
                where, f"has no column {name!r} (columns: {there})", "the columns named", "Set text_column"
            )
    types = optional_package("pyarrow.types", "input", "parquet")
    kind = schema.field(columns.text).type
    value = kind.value_type if types.is_dictionary(kind) else kind
    known = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    if not any(is_known(value) for is_known in known):
        raise DataError(
            f"{where} ({columns.text})", f"is a column of {kind}", "a column of strings", "Set text_column"
        )


def open_table(path: Path) -> Any:
    """Open a Parquet file."""
    return open_parquet(path, "input", "parquet")


def refuse_names(place: object, names: Sequence[str], skip: bool) -> None:
    """Refuse columns to carry along that are called as those of a prediction."""
    for name in names_added(names, skip):
        raise DataError(
            f"{place} ({name})",
            "stands there already, where the prediction would go",
            f"data without {', '.join(ADDED)}",
            "Say which columns to carry along: --keep id,date",
        )


def _named(place: Place, name: str | None, row: Mapping[str, Any]) -> str:
    """Say where a row stands, and what it is called if it has a name."""
    return str(place) if name is None or row.get(name) is None else f"{place} ({name} {row[name]!r})"


def holds_shards(source: str | Path) -> bool:
    """Say whether a path is a shard, or a folder or pattern with shards among its files."""
    path = Path(source).expanduser()
    if path.is_dir() or (glob.has_magic(str(source)) and not path.exists()):
        try:
            return any(ending(file) for file in find_files(source, (".gz", *SUFFIXES)))
        except DataError:
            return False
    return ending(path) is not None


def find_shards(source: str | Path, format: str | None = None, shard_size: int | None = None) -> list[Shard]:
    """Return the shards that a path stands for.

    Parameters
    ----------
    source
        A file, a folder or a pattern such as ``"texts/**/*.parquet"``.
    format
        Of the output: ``"parquet"``, ``"jsonl"`` or ``"jsonl.gz"``; that of each file when not given.
    shard_size
        Rows of an output file at most.

    Returns
    -------
    list of Shard
        In order of their names.

    Raises
    ------
    DataError
        If there is none, or two files would become one.
    """
    path = Path(source).expanduser()
    files = [file for file in find_files(source, (".gz", *SUFFIXES)) if ending(file)]
    if not files:
        raise DataError(str(source), "holds no shards", f"files that end in {', '.join(SUFFIXES)}")
    root = path if path.is_dir() else _root(str(path)) if not path.exists() else path.parent
    shards: list[Shard] = []
    taken: dict[str, Path] = {}
    for file in files:
        suffix = ending(file) or ""
        stem = file.relative_to(root).as_posix()[: -len(suffix)]
        own = suffix.lstrip(".").replace("ndjson", "jsonl")
        name = f"{stem}.{format or own}"
        if name in taken:
            raise DataError(
                str(file),
                f"would become {name}, as would {taken[name]}",
                "files whose names differ by more than the ending",
                "Rename one, or give a pattern that matches one of them",
            )
        taken[name] = file
        shards += _cut(Shard(file, name), shard_size) if shard_size else [Shard(file, name)]
    return shards


def _root(pattern: str) -> Path:
    parts = Path(pattern).parts
    plain = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:plain])


def _cut(shard: Shard, size: int) -> list[Shard]:
    """Cut a shard into pieces of `size` rows."""
    starts = [(0, 0)]
    with suppress(*BROKEN):  # a damaged file is cut as far as it can be read; reading says what is wrong
        if ending(shard.path) == ".parquet":
            with open_table(shard.path) as table:
                starts = [(start, 0) for start in range(0, max(table.metadata.num_rows, 1), size)]
        else:
            offset = 0
            with open_bytes(shard.path) as (stream, _):
                for number, line in enumerate(lines_of(stream, shard.path)):
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
