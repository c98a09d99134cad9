"""Locates and decodes input files; every error is one DataError with file and line."""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, NamedTuple, cast

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.util.listing import advice_on

#: A file, a folder, a pattern such as ``"corpus/*.jsonl"``, or several of these.
Paths = str | Path | list[str] | list[Path]

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")

BOM = "\ufeff"

#: The beginning of an array of records. A line that begins with ``["`` is a record itself: a text and its annotations.
_ARRAY = re.compile(r'\s*\[\s*(?!\s|")')

#: Bytes of a file that are read at once, and the length of the longest part of JSON that has a meaning only as a whole.
_READ_AT_ONCE, _LONGEST_LITERAL = 1 << 16, 16

#: Maximum length of a line in bytes, and of a record in characters: a parsed record takes twenty times as much memory.
LONGEST_RECORD = 1 << 26
#: Maximum size of decompressed data as a multiple of the size of their file, if they are longer than a record may be.
#: Compressed annotations have a tenth of their size, and gzip never takes less than a thousandth.
MOST_EXPANSION = 200

_SPLIT_RECORDS = "Write one record on each line, and long documents as several"
_BLANKS = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Place:
    """Location of a record: its file and, if known, its line (counted from 1)."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def source(self) -> str:
        """File name without folder, and line; stored with the example."""
        name = self.file.rpartition(os.sep)[2]
        return name if self.line is None else f"{name}:{self.line}"

    def error(self, field: str, found: str, allowed: str = "", do: str = "") -> DataError:
        """Return an error of this record; `field` may be empty."""
        return DataError(f"{self} ({field})" if field else str(self), found, allowed, do)


def find_files(path: Paths | None, suffixes: Sequence[str], *, read_once: bool = False) -> list[Path]:
    """Return the files of a path.

    Parameters
    ----------
    path
        File, folder, pattern or a list of these. Folders are searched recursively; hidden files are skipped.
    suffixes
        File name endings to take from a folder, e.g. ``[".json", ".jsonl"]``. A file named directly may have any.
    read_once
        Whether each file is read a single time, so that it may be a pipe.

    Returns
    -------
    list of Path
        In the order of `path`; the files of a folder or pattern are sorted.

    Raises
    ------
    DataError
        Nothing exists there, no file with one of these endings, or a pipe or a device.
    """
    if path is None or path in ("", []):
        raise DataError(
            "path", f"is {path!r}", "a file, a folder, a pattern or a list of these", "Set the path"
        )
    found: list[Path] = []
    for part in path if isinstance(path, list) else [path]:
        if not isinstance(part, (str, Path)):
            raise ConfigError(
                "path", f"is {type(part).__name__}", "a file, a folder, a pattern or a list of these"
            )
        found += _find(Path(part).expanduser(), suffixes, read_once)
    return list(dict.fromkeys(found))


def _find(path: Path, suffixes: Sequence[str], read_once: bool) -> list[Path]:
    endings = ", ".join(suffixes)
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if _wanted(file, path, suffixes)]
        if not files:
            raise DataError(
                str(path),
                "is a folder without usable files",
                f"files ending in {endings}",
                "Check the path",
            )
        return files
    if path.exists():
        if not (read_once or path.is_file()):
            do = "Write the data to a file first"
            raise DataError(str(path), "is a pipe or a device, which can be read only once", "a file", do)
        return [path]
    if glob.has_magic(str(path)):
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
        files = [file for file in matches if file.is_file()]
        if files:
            return files
        raise DataError(
            str(path), "matches no file", "a pattern that matches at least one", "Check the pattern"
        )
    raise DataError(str(path), "does not exist", "a file, a folder or a pattern", advice_on(path))


def _wanted(file: Path, folder: Path, suffixes: Sequence[str]) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in suffixes and file.is_file()


def read_text(path: Path, *, keep_bom: bool = False) -> str:
    """Return the text of a UTF-8 file with its line breaks, with or without its byte order mark.

    Raises
    ------
    DataError
        Another encoding, a NUL byte, or a pipe with more than :data:`LONGEST_RECORD` bytes.
    """
    with open_bytes(path) as stream:
        data = stream.read() if path.is_file() else stream.read(LONGEST_RECORD + 1)
    if len(data) > LONGEST_RECORD and not path.is_file():
        raise _too_long(Place(str(path)), "bytes")
    _check_start(str(path), data[:4])
    text = _decode(Place(str(path)), data, whole_file=True)
    return text if keep_bom else text.removeprefix(BOM)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line of a UTF-8 file, without line break and byte order mark.

    A file whose name ends in ``.gz`` is decompressed.
    """
    with _watched(path) as stream:
        yield from decoded_lines(stream, str(path))


def decoded_lines(stream: IO[bytes], name: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line of an open UTF-8 file; `name` is that of the file in messages.

    Lines end in LF or CR LF; in a file without any LF between two lines, in CR.
    """
    rest = byte_lines(stream, name)
    lines = [line for line in [next(rest, b"")] if line]
    if lines and b"\r" in lines[0].rstrip(b"\r\n"):
        second = next(rest, b"")
        lines = [lines[0], second] if second else lines[0].splitlines()
    for number, raw in enumerate(chain(lines, rest), start=1):
        line = _decode(Place(name, number), raw).rstrip("\r\n")
        yield number, line.removeprefix(BOM) if number == 1 else line


def byte_lines(stream: IO[bytes], name: str) -> Iterator[bytes]:
    """Yield the lines of an open file with their line breaks; raise an error for UTF-16 and for an endless line."""
    read = partial(stream.readline, LONGEST_RECORD + 1)
    for number, line in enumerate(iter(read, b""), start=1):
        if number == 1:
            _check_start(name, line[:4])
        if len(line) > LONGEST_RECORD:
            raise _too_long(Place(name, number), "bytes")
        yield line


def _too_long(place: Place, unit: str) -> DataError:
    return place.error(
        "", f"is longer than {LONGEST_RECORD:,} {unit}", "shorter lines and records", _SPLIT_RECORDS
    )


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file; one whose name ends in ``.gz`` is decompressed.

    Raises
    ------
    DataError
        It is a folder, or cannot be read; also while a damaged gzip file is read.
    """
    try:
        raw = path.open("rb")
    except FileNotFoundError:
        raise
    except OSError as error:
        what = "is a folder" if path.is_dir() else f"cannot be read: {error.strerror}"
        raise DataError(str(path), what, "a file that can be read", "Check the path") from None
    return unzipped(raw, path) if path.suffix.lower() == ".gz" else raw


@contextmanager
def _watched(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to read it while its records are used; raise an error at its end if it was changed meanwhile."""
    with open_bytes(path) as stream:
        before = state_of(path)
        yield stream
        refuse_changed(path, before)


def state_of(path: Path) -> tuple[int, int] | None:
    """Return size and time of a file, which tell whether it was changed; None for what is no file (any longer)."""
    try:
        return (found.st_size, found.st_mtime_ns) if S_ISREG((found := path.stat()).st_mode) else None
    except OSError:
        return None


def refuse_changed(path: Path, before: tuple[int, int] | None) -> None:
    """Raise an error if a file is not as it was.

    Parameters
    ----------
    path
        The file.
    before
        Its :func:`state_of` when reading began.
    """
    if state_of(path) != before:
        do = "Wait until it is complete, then start again"
        raise DataError(str(path), "has changed while it was read", "a file that nobody writes to", do)


def unzipped(raw: IO[bytes], path: Path) -> IO[bytes]:
    """Return the decompressed stream of an open gzip file; closing it closes the file."""
    return cast("IO[bytes]", io.BufferedReader(_Unzipped(raw, path), _READ_AT_ONCE))


class _Unzipped(io.RawIOBase):
    """The decompressed bytes of a gzip file. What is wrong with the file is a DataError."""

    def __init__(self, raw: IO[bytes], path: Path) -> None:
        self._raw, self._path, self._stream = raw, path, gzip.GzipFile(fileobj=raw)
        self._most = max(LONGEST_RECORD, MOST_EXPANSION * os.fstat(raw.fileno()).st_size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        try:
            count = self._stream.readinto(buffer)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            found = f"cannot be read to its end: {error}"
            raise DataError(
                str(self._path), found, "a complete gzip file", "Replace the file, then start again"
            ) from None
        if self._stream.tell() > self._most:
            found = f"has more than {self._most:,} bytes after decompression, over {MOST_EXPANSION} times its size"
            raise DataError(
                str(self._path), found, "compressed text", "Decompress it if its content is right"
            )
        return count

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._raw.close()
        super().close()


def read_json(path: Path) -> Iterator[tuple[Place, Any]]:
    """Yield location and value of each record of a JSON array, or of a file with one JSON value on each line.

    The first character decides between the two. Lines are read one by one, so a file may be larger than memory. If the
    first line is a single brace, each object covers several lines.

    Raises
    ------
    DataError
        The file is not JSON or has no record.
    """
    found = False
    for place, value in _layout(path)(path):
        found = True
        yield place, value
    if not found:
        raise DataError(
            str(path),
            "is empty",
            "one JSON object on each line, or one JSON array of objects",
            "Check how it was written",
        )


def _layout(path: Path) -> Callable[[Path], Iterator[tuple[Place, Any]]]:
    """Return the function that reads the records of a file."""
    with open_bytes(path) as stream:
        head = stream.read(_READ_AT_ONCE)
    _check_start(str(path), head[:4])
    # an array may be a single line
    text = head.decode("utf-8", "ignore").removeprefix(BOM).lstrip()
    if text[:1] == "{" and not re.split(r"[\r\n]", text, maxsplit=1)[0][1:].strip():
        return _json_objects
    return _json_array if _ARRAY.match(text) else _json_lines


def _json_lines(path: Path) -> Iterator[tuple[Place, Any]]:
    name = str(path)
    for number, line in read_lines(path):
        if line and not line.isspace():
            place = Place(name, number)
            yield place, parse_line(place, line)


class LineBlock(NamedTuple):
    """Consecutive lines of a file: their first and their last byte (exclusive), and the number of the first.

    ``state`` is the :func:`state_of` the file when it was divided.
    """

    file: str
    start: int
    stop: int
    line: int
    state: tuple[int, int] | None = None

    def read(self) -> Iterator[tuple[Place, Any]]:
        """Yield location and value of each line, as :func:`read_json` does."""
        with Path(self.file).open("rb") as stream:
            stream.seek(self.start)
            data = stream.read(self.stop - self.start)
        if self.state is not None:
            refuse_changed(Path(self.file), self.state)
        for number, raw in enumerate(data.split(b"\n"), start=self.line):
            place = Place(self.file, number)
            line = _decode(place, raw)
            line = line.removeprefix(BOM) if number == 1 else line
            if line and not line.isspace():
                yield place, parse_line(place, line)


def line_blocks(path: Path, size: int) -> Iterator[LineBlock]:
    """Divide a file with one JSON value on each line into blocks of whole lines, each of at least `size` bytes.

    Raises
    ------
    ValueError
        The file has another layout, or lines that end in CR.
    """
    with path.open("rb") as stream:
        head = stream.readline()
        if path.suffix.lower() == ".gz" or b"\r" in head.rstrip(b"\r\n") or _layout(path) is not _json_lines:
            raise ValueError(f"{path} has no lines of JSON")
        start, line, state = 0, 1, state_of(path)
        stream.seek(0)
        while data := stream.read(size):
            data += stream.readline(LONGEST_RECORD)
            if len(data) > size + LONGEST_RECORD - 1:
                raise _too_long(Place(str(path), line + data.count(b"\n")), "bytes")
            yield LineBlock(str(path), start, start + len(data), line, state)
            start, line = start + len(data), line + data.count(b"\n")


class _Window:
    """The text of a file from a record on, read in pieces.

    Attributes
    ----------
    text, position
        What has been read and is needed, and where the next record is looked for.
    place
        Location of `position`.
    before
        Number of characters of the first line of `text` that are no longer in it.
    """

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path, self.stream = path, stream
        self.text, self.position, self.before, self.place = "", 0, 0, Place(str(path), 1)
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._complete = False
        self._more()
        self.text = self.text.removeprefix(BOM)

    def next(self) -> str:
        """Go to the next character that is no blank, and return it; empty at the end of the file."""
        while (place := _skip_blanks(self.text, self.position)) == len(self.text):
            self.skip(place)
            if not self._more():
                break
        self.skip(place)
        return self.text[self.position : self.position + 1]

    def skip(self, position: int) -> None:
        """Go to a position."""
        lines = self.text.count("\n", self.position, position)
        if lines:
            self.place = Place(self.place.file, (self.place.line or 1) + lines)
        self.position = position

    def value(self) -> tuple[Place, Any]:
        """Return location and value of the record here, and go behind it."""
        place = self.place
        while True:
            try:
                value, end = _parse(place, self.text, self.position, self.before)
            except DataError:
                if _is_cut_off(self.text, self.position) and self._more():
                    if len(self.text) > LONGEST_RECORD:
                        raise _too_long(place, "characters") from None
                    continue
                raise
            if end < len(self.text) or not self._more():
                self.skip(end)
                return place, value

    def _more(self) -> bool:
        """Read as much again as is left, but not too little; return whether there was anything."""
        last = self.text.rfind("\n", 0, self.position)
        self.before = self.position - last - 1 + (self.before if last < 0 else 0)
        self.text, self.position = self.text[self.position :], 0
        while not self._complete:
            data = self.stream.read(max(_READ_AT_ONCE, len(self.text)))
            self._complete = not data
            try:
                text = self._decoder.decode(data, final=self._complete)
            except UnicodeDecodeError:
                text = "\0"
            if "\0" in text:
                read_text(self.path)  # raises the error with the line
            if text:
                self.text += text
                return True
        return False


def _is_cut_off(text: str, start: int) -> bool:
    """Whether what is wrong with the value that begins at `start` may be that the text ends too early."""
    try:
        _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        return error.msg.startswith("Unterminated string") or error.pos > len(text) - _LONGEST_LITERAL
    except (RecursionError, ValueError):
        return False
    return True


def _json_objects(path: Path) -> Iterator[tuple[Place, Any]]:
    with _watched(path) as stream:
        window = _Window(path, stream)
        while window.next():
            yield window.value()


def parse_line(place: Place, line: str | bytes) -> Any:
    """Return the JSON value of a line.

    Parameters
    ----------
    place
        Location of the line, for messages.
    line
        A line that is not blank. Bytes are UTF-8.

    Raises
    ------
    DataError
        Not UTF-8, not JSON, or more than one value.
    """
    text = (_decode(place, line) if isinstance(line, bytes) else line).rstrip("\r\n")
    value, end = _parse(place, text, len(text) - len(text.lstrip()))
    if text[end:].strip():
        raise place.error(
            "", f"continues after the object: {text[end:].strip()[:30]!r}", "one JSON object on each line"
        )
    return value


def _json_array(path: Path) -> Iterator[tuple[Place, Any]]:
    with _watched(path) as stream:
        window = _Window(path, stream)
        window.next()
        window.skip(window.position + 1)
        first = True
        while (here := window.next()) != "]":
            if not first:
                if here != ",":
                    found = repr(window.text[window.position :][:20]) if here else "the end of the file"
                    raise window.place.error(
                        "", f"is not valid JSON: found {found}", "a comma or ] after each object"
                    )
                window.skip(window.position + 1)
                window.next()
            first = False
            yield window.value()
        end = window.place
        window.skip(window.position + 1)
        if window.next():
            raise end.error(
                "",
                "continues after the closing ]",
                "one JSON array",
                "Write one object on each line instead",
            )


def _skip_blanks(text: str, position: int) -> int:
    blanks = _BLANKS.match(text, position)
    return blanks.end() if blanks else position


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the field {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant)


def _parse(place: Place, text: str, start: int, before: int = 0) -> tuple[Any, int]:
    """Parse one value of `text` from `start` on, and return it with the position after it.

    The line with which `text` begins has that many characters `before` it.
    """
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        line = (place.line or 1) + text.count("\n", start, error.pos)
        last = text.rfind("\n", 0, error.pos)
        column = error.pos - last + (before if last < 0 else 0)
        found = f"is not valid JSON: {error.msg}, column {column}"
        place = Place(place.file, line)
    except RecursionError:
        found = "is not valid JSON: nested too deeply"
    except ValueError as error:
        found = f"is not valid JSON: {str(error)[:100]}"
    raise place.error(
        "", found, "one JSON object on each line, or one JSON array of objects", "Correct or remove it"
    )


def _check_start(name: str, start: bytes) -> None:
    """Refuse a file whose first four bytes are those of another encoding, or of a compressed file."""
    if start in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        raise DataError(name, "is UTF-32 text", "UTF-8", "Convert it: iconv -f UTF-32 -t UTF-8")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(name, "is UTF-16 text", "UTF-8", "Convert it: iconv -f UTF-16 -t UTF-8")
    if start[:2] == b"\x1f\x8b":
        raise DataError(name, "is a gzip file", "a name that ends in .gz, or text", "Rename or decompress it")
    if start == b"PK\x03\x04":
        raise DataError(name, "is a zip file", "text, or a gzip file", "Unpack it")


def _decode(place: Place, data: bytes, whole_file: bool = False) -> str:
    try:
        text = data.decode("utf-8")
        bad = text.find("\0")
        if bad < 0:
            return text
        found, offset = "contains a NUL character", len(text[:bad].encode())
        do = "Remove it, or convert the file: iconv -f UTF-16LE -t UTF-8"
    except UnicodeDecodeError as error:
        found, offset = f"is not UTF-8: byte 0x{data[error.start]:02x}", error.start
        do = "Convert it: iconv -f WINDOWS-1252 -t UTF-8"
    if whole_file:
        place = Place(place.file, data.count(b"\n", 0, offset) + 1)
        offset -= data.rfind(b"\n", 0, offset) + 1
    raise place.error("", f"{found} at byte {offset + 1} of the line", "UTF-8 text", do)
