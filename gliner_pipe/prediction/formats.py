"""The two formats of shards: how rows with their predictions are written, and parts of a file joined."""

from __future__ import annotations

import base64
import gzip
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gliner_pipe.data.tables import open_parquet, optional_package
from gliner_pipe.prediction.arrow import Schema, arrow, batch_of, common_schema, fitted, groups, plain_rows
from gliner_pipe.prediction.chunks import Outcome, fields_of

#: What shards may be written as.
SHARD_FORMATS = ("parquet", "jsonl", "jsonl.gz")


class Piece(NamedTuple):
    """Rows (dictionaries, or a ``pyarrow.RecordBatch``) and what became of each."""

    rows: Any
    found: Sequence[Outcome]


def format_of(name: str) -> JsonLines | Parquet:
    """Return the format of a file by its ending."""
    return Parquet() if name.endswith(".parquet") else JsonLines(packed=name.endswith(".gz"))


@dataclass(frozen=True)
class JsonLines:
    """One object a line: the fields of the row, and those of the prediction.

    Values that JSON does not know are written as text: times in ISO format, bytes in base64; numbers that are none as
    null.
    """

    packed: bool = False

    def write(self, pieces: Sequence[Piece], path: Path, schema: Schema) -> None:
        """Write rows to a file."""
        with gzip.open(path, "wb") if self.packed else path.open("wb") as stream:
            for line in _lines(pieces):
                stream.write(line.encode())

    def join(self, parts: Sequence[Path], path: Path, schema: Schema) -> None:
        """Join files to one. Packed files may stand behind one another."""
        with path.open("wb") as stream:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, stream)


def _lines(pieces: Sequence[Piece]) -> Iterator[str]:
    for rows, found in pieces:
        for row, one in zip(rows if isinstance(rows, list) else plain_rows(rows), found, strict=True):
            record = {**row, **fields_of(one)}
            try:
                yield json.dumps(record, ensure_ascii=False, allow_nan=False, default=_as_text) + "\n"
            except ValueError:
                yield json.dumps(_without_nan(record), ensure_ascii=False, default=_as_text) + "\n"


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Parquet:
    """A table with the columns of the rows, in their types, and those of `Schema`."""

    def write(self, pieces: Sequence[Piece], path: Path, schema: Schema) -> None:
        """Write rows to a file."""
        batches = [schema.extend(_batch(piece.rows), piece.found) for piece in pieces]
        common = common_schema([batch.schema.remove_metadata() for batch in batches])
        tables = [fitted(arrow().Table.from_batches([batch]), common) for batch in batches]
        optional_package("pyarrow.parquet", "predict", "parquet").write_table(
            arrow().concat_tables(tables), str(path)
        )

    def join(self, parts: Sequence[Path], path: Path, schema: Schema) -> None:
        """Join files to one, a group of rows at a time."""
        parquet = optional_package("pyarrow.parquet", "predict", "parquet")
        common = common_schema([_schema(part) for part in parts])
        tables = (fitted(_read(part), common) for part in parts)
        with parquet.ParquetWriter(str(path), common) as writer:
            for table in groups(tables):
                writer.write_table(table)


def _batch(rows: Any) -> Any:
    return batch_of(rows) if isinstance(rows, list) else rows


def _schema(path: Path) -> Any:
    with open_parquet(path, "predict", "parquet") as table:
        return table.schema_arrow.remove_metadata()


def _read(path: Path) -> Any:
    with open_parquet(path, "predict", "parquet") as table:
        return table.read()
