"""Examples on disk: the records of a reader are checked, counted and written to a file, and examples made from them.

The file has the records one after the other, then the places where they begin, their numbers of tokens, and what was
counted. A later training with the same data and options finds it again by its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
import weakref
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, fields
from glob import glob, has_magic
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import gold_place
from gliner_pipe.data.checks import CountRules, GoldCounts
from gliner_pipe.data.fields import Report
from gliner_pipe.data.files import LineBlock, Place, line_blocks
from gliner_pipe.data.lazy import BLOCK, LazyExamples
from gliner_pipe.data.readers.base import Reader, Record, tokenized
from gliner_pipe.data.readers.gliner2_json import Gliner2JsonReader
from gliner_pipe.data.readers.json import GlinerJsonReader, JsonlReader
from gliner_pipe.data.readers.json_records import are_records
from gliner_pipe.data.readers.tables import is_dataset
from gliner_pipe.errors import GlinerPipeError
from gliner_pipe.util.atomic import replace_file
from gliner_pipe.util.processes import in_order, with_progress

#: Size of data files from which on examples are not held in memory, where they are some 50 times as large.
LARGE = 20_000_000
#: Factor by which compressed files are larger in memory.
COMPRESSED = 4
#: Readers of files whose lines several processes may read, and the number of bytes that one of them reads at once.
BY_LINE, BLOCK_BYTES = (Gliner2JsonReader, GlinerJsonReader, JsonlReader), 1 << 20

#: Attributes of readers that are no options.
_STATE = ("path", "report", "_reported", "_facts", "_codec", "_values")
_FIELDS = tuple(one.name for one in fields(Record) if one.name != "place")
_TITLE = "reading the training data"

_encoded = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Storage:
    """Where examples are written to, and what is counted.

    Attributes
    ----------
    folder
        Folder of the files.
    name
        Beginning of the name of the file.
    rules
        What is counted.
    turn
        Entered while the file is looked for and written: of several processes that share the folder, one goes first.
    """

    folder: Path
    name: str
    rules: CountRules
    turn: Callable[[], AbstractContextManager[Any]] = nullcontext


class DiskExamples(LazyExamples):
    """Examples that are made from the records in a file.

    Parameters
    ----------
    stream
        The file.
    starts
        Where each record begins, and where the last one ends, in bytes.
    lengths
        Number of tokens of each example.
    counts
        What was counted over all of them.
    make
        Returns the example of a record.
    """

    def __init__(
        self,
        stream: IO[bytes],
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int32],
        counts: GoldCounts,
        make: Callable[[bytes], Example],
    ) -> None:
        super().__init__(counts.rules, lengths)
        self.stream, self.starts, self.make = stream, starts, make
        self._counts[repr(counts.rules)] = counts
        self._lock = threading.Lock()
        weakref.finalize(self, stream.close)

    def example(self, index: int) -> Example:
        """Read a record and return its example; threads and forked processes may do so at the same time."""
        start, stop = self.starts[index : index + 2].tolist()
        if hasattr(os, "pread"):  # it has no position that forked processes would share
            return self.make(os.pread(self.stream.fileno(), stop - start, start))
        with self._lock:
            self.stream.seek(start)
            data = self.stream.read(stop - start)
        return self.make(data)


def has_words(doc: Doc) -> bool:
    """Whether a document has a token that is not white space."""
    return any(not token.is_space for token in doc)


def is_large(reader: object) -> bool:
    """Whether the data of a reader are better kept on disk, by the size of its files or its number of rows."""
    if not isinstance(reader, Reader):
        return False
    if is_dataset(reader.path) and not isinstance(reader.path, dict):
        return hasattr(reader.path, "__len__") and len(reader.path) * 400 > LARGE
    sizes = (
        file.stat().st_size * (COMPRESSED if file.suffix.lower() in (".gz", ".parquet", ".arrow") else 1)
        for file in _files(reader.path)
    )
    return sum(sizes) > LARGE


def on_disk(reader: Any, nlp: Language, storage: Storage, limit: int | None = None) -> DiskExamples:
    """Return the examples of a reader that have words, from the file of an earlier call if there is one.

    Parameters
    ----------
    reader
        A reader, or another function that takes the pipeline and yields examples.
    nlp
        Provides vocabulary and tokenizer.
    storage
        Where the examples are written to.
    limit
        Maximum number of examples; None or 0 for all.

    Raises
    ------
    DataError
        Of the reader, with file and line, as if the examples were held in memory.
    """
    own = isinstance(reader, Reader) and type(reader).__call__ is Reader.__call__
    form: _Form = _Records(reader, nlp) if own else _Documents(reader, nlp)
    storage.folder.mkdir(parents=True, exist_ok=True)
    with storage.turn():
        key = _key(reader, nlp, storage.rules, limit) if own else None
        if key is None:  # a file without a name, of which nothing remains after the training
            stream: IO[bytes] = tempfile.TemporaryFile(dir=storage.folder)  # noqa: SIM115
            _write(form, stream, storage.rules, limit)
            return _read(form, stream, storage.rules)
        path = storage.folder / f"{storage.name}-{key}.records"
        if not path.is_file():
            for old in storage.folder.glob(f"{storage.name}-*.records"):
                with suppress(OSError):
                    old.unlink()
            with replace_file(path) as new, new.open("wb") as stream:
                _write(form, stream, storage.rules, limit)
        return _read(form, path.open("rb"), storage.rules)


# -- forms of records --------------------------------------------------------------------------------------------------


class _Form(Protocol):
    """How examples are written, and made again."""

    reader: Any

    def read(self) -> Iterator[tuple[bytes, Example]]:
        """Yield the examples of the reader, each with its record."""

    def make(self, data: bytes) -> Example:
        """Return the example of a record."""


class _Records:
    """The records of a reader of this package, as JSON."""

    def __init__(self, reader: Reader, nlp: Language) -> None:
        self.reader, self.nlp = reader, nlp

    def read(self) -> Iterator[tuple[bytes, Example]]:
        return ((self.written(record), example) for record, example in self.reader.pairs(self.nlp))

    def written(self, record: Record) -> bytes:
        file = record.place.file.rpartition(os.sep)[2]
        values = [file, record.place.line, *(getattr(record, name) for name in _FIELDS)]
        return _encoded(values).encode("utf-8", "surrogatepass")

    def make(self, data: bytes) -> Example:
        file, line, *values = json.loads(data.decode("utf-8", "surrogatepass"))
        record = Record(Place(file, line), *values)
        return self.reader.to_example(self.nlp, record, Counter())


class _Documents:
    """The documents of any other reader, in the binary format of spaCy."""

    def __init__(self, reader: Callable[[Language], Iterable[Example]], nlp: Language) -> None:
        self.reader, self.nlp = reader, nlp

    def read(self) -> Iterator[tuple[bytes, Example]]:
        for example in self.reader(self.nlp):
            predicted = example.predicted.to_bytes()
            yield len(predicted).to_bytes(8, "little") + predicted + example.reference.to_bytes(), example

    def make(self, data: bytes) -> Example:
        end = 8 + int.from_bytes(data[:8], "little")
        predicted, reference = (Doc(self.nlp.vocab).from_bytes(part) for part in (data[8:end], data[end:]))
        return Example(predicted, reference)


# -- writing -----------------------------------------------------------------------------------------------------------


@dataclass
class _Block:
    """Some consecutive examples: their records, with sizes in bytes and in tokens, and counts."""

    counts: GoldCounts
    records: list[bytes] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    report: Report = field(default_factory=Report)
    #: Where the first record is, if there is any.
    place: Place | None = None
    #: What is wrong with the record after the last one.
    error: GlinerPipeError | None = None
    #: Whether the examples would be the same without the others of the file.
    alone: bool = True

    def add(self, record: bytes, example: Any, report: Counter[str] | None, text: str | None = None) -> None:
        """Add an example if it has words; `text` is its text, if it is known."""
        if has_words(example.reference):
            self.records.append(record)
            self.lengths.append(len(example.predicted))
            self.counts.add(example, text)
        elif report is not None:
            report["text without words (skipped)"] += 1


class _Gold(NamedTuple):
    """What is counted of an example: one document for both sides."""

    predicted: Doc
    reference: Doc


class _NotAloneError(Exception):
    """Some lines of a file cannot be read without the others."""


def _write(form: _Form, stream: IO[bytes], rules: CountRules, limit: int | None) -> None:
    """Write all examples, by several processes where each line is a record of its own."""
    if isinstance(form, _Records) and not limit and (blocks := _line_blocks(form.reader)):
        try:
            _write_blocks(_by_line(form, blocks, rules), stream, form, rules)
        except _NotAloneError:
            stream.seek(0)
            stream.truncate()
        else:
            return
    found = with_progress(_one_by_one(form, rules, limit), _TITLE, each=BLOCK)
    _write_blocks(found, stream, form, rules)


def _write_blocks(blocks: Iterable[_Block], stream: IO[bytes], form: _Form, rules: CountRules) -> None:
    starts, lengths = array("q", [0]), array("i")

    def counts() -> Iterator[GoldCounts]:
        for block in blocks:
            stream.write(b"".join(block.records))
            for record in block.records:
                starts.append(starts[-1] + len(record))
            lengths.extend(block.lengths)
            yield block.counts

    total = GoldCounts.merge(rules, counts())
    described: dict[str, Any] = {"examples": len(lengths), "counts": total.to_json()}
    if isinstance(report := getattr(form.reader, "report", None), Report):
        described["report"] = report.to_json()
    written = _encoded(described).encode("utf-8", "surrogatepass")
    stream.write(starts.tobytes() + lengths.tobytes() + written + len(written).to_bytes(8, "little"))
    stream.flush()


def _read(form: _Form, stream: IO[bytes], rules: CountRules) -> DiskExamples:
    """Return the examples in a file, and tell what the reader had to report when it was written."""
    stream.seek(-8, os.SEEK_END)
    size = int.from_bytes(stream.read(8), "little")
    end = stream.seek(-8 - size, os.SEEK_END)
    described = json.loads(stream.read(size).decode("utf-8", "surrogatepass"))
    number = described["examples"]
    stream.seek(end - 4 * number - 8 * (number + 1))
    starts = np.frombuffer(stream.read(8 * (number + 1)), np.int64)
    lengths = np.frombuffer(stream.read(4 * number), np.int32)
    if "report" in described:
        form.reader.report = Report.from_json(described["report"])
        form.reader.tell(form.reader.report)
    return DiskExamples(stream, starts, lengths, GoldCounts.from_json(rules, described["counts"]), form.make)


def _one_by_one(form: _Form, rules: CountRules, limit: int | None) -> Iterator[_Block]:
    """Yield the examples of a reader in blocks."""
    pairs, left = form.read(), limit or None
    block = _Block(GoldCounts(rules))
    for record, example in pairs:
        report = getattr(form.reader, "report", None)
        block.add(record, example, report if isinstance(report, Counter) else None)
        if len(block.records) == min(BLOCK, left or BLOCK):
            yield block
            left = None if left is None else left - len(block.records)
            if left == 0:
                return
            block = _Block(GoldCounts(rules))
    yield block


def _line_blocks(reader: Reader) -> list[LineBlock]:
    """Return blocks of the lines of all files of a reader; none if the files cannot be divided."""
    if type(reader) not in BY_LINE or are_records(reader.path) or reader.limit:
        return []
    try:
        return [block for file in reader.files() for block in line_blocks(file, BLOCK_BYTES)]
    except ValueError:  # another layout, or an error that is raised again where the file is read
        return []


def _by_line(form: _Records, blocks: list[LineBlock], rules: CountRules) -> Iterator[_Block]:
    """Yield the examples of lines that several processes read.

    Raises
    ------
    _NotAloneError
        The lines cannot be read without the others of their file.
    """
    reader: Any = form.reader
    nlp = form.nlp

    def read(lines: LineBlock) -> _Block:
        found = _Block(GoldCounts(rules))
        try:
            for record in reader.records_of(lines, found.report):
                found.place = found.place or record.place
                doc = reader.annotated(nlp, tokenized(nlp, record), record, found.report)
                found.report.settle(record.place)
                found.add(form.written(record), _Gold(doc, doc), found.report, record.running_text())
        except GlinerPipeError as error:
            found.error = error
        found.alone = reader.reads_alone
        return found

    report = Report()
    numbers = dict.fromkeys([lines.file for lines in blocks], 0)
    for lines, found in zip(blocks, in_order(read, blocks, _TITLE, len(blocks)), strict=True):
        if not found.alone:
            raise _NotAloneError
        if found.place is not None:
            report.settle(found.place)
        report.merge(found.report)
        reader.report = report
        if found.error is not None:
            reader.tell(report)
            raise found.error
        numbers[lines.file] += found.place is not None
        yield found
    if not all(numbers.values()):  # a file without a record may be an error
        raise _NotAloneError


# -- names of files ----------------------------------------------------------------------------------------------------


def _files(path: Any) -> list[Path]:
    """Return the files of a path as readers take it; none if it is something else, or has nothing on this disk."""
    found: list[Path] = []
    for part in path if isinstance(path, list) else [path]:
        if not isinstance(part, (str, Path)):
            return []
        here = Path(part).expanduser()
        if here.is_dir():
            found += [file for file in here.rglob("*") if file.is_file()]
        elif here.is_file():
            found.append(here)
        elif has_magic(str(here)):
            found += [Path(name) for name in glob(str(here), recursive=True) if Path(name).is_file()]  # noqa: PTH207
        else:
            return []
    return sorted(set(found))


def _version() -> str:
    try:
        return version("gliner_pipe")
    except PackageNotFoundError:  # the source without an installation
        return ""


def _key(reader: Reader, nlp: Language, rules: CountRules, limit: int | None) -> str | None:
    """Return a name for the data and options of a reader; None if its data may change without notice."""
    files = _files(reader.path)
    if not files or not hasattr(nlp.tokenizer, "to_bytes"):
        return None
    # formats of several files, such as standoff, are named by one of them
    names = defaultdict(set)
    for file in files:
        names[file.parent].add(file.stem)
    files = [file for folder, stems in names.items() for file in folder.iterdir() if file.stem in stems]
    stamps = [
        (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(files)
        if file.is_file()
    ]
    options = sorted((name, repr(value)) for name, value in vars(reader).items() if name not in _STATE)
    facts = (
        (_version(), spacy.__version__, type(reader).__qualname__, options),
        (stamps, nlp.tokenizer.to_bytes(), gold_place(nlp), rules, limit),
    )
    return hashlib.sha256(repr(facts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
