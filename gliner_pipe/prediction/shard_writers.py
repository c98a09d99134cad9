"""Writes predictions as Parquet or JSON Lines, in the columns that Ray and Spark use too."""

from __future__ import annotations

import base64
import gzip
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spacy.language import Language
from spacy.util import raise_error

from gliner_pipe.data.readers.tables import open_parquet, optional_package
from gliner_pipe.pipeline.overrides import gliner_components
from gliner_pipe.prediction.chunks import Found, Missed, Outcome, fields_of

if TYPE_CHECKING:
    import pyarrow as pa


#: Rows of a group in a Parquet file at most, and bytes after which it ends.
GROUP_ROWS, GROUP_BYTES = 65536, 64 << 20
#: Marks a column of JSON texts, into which values of several types were turned.
_AS_JSON = {b"gliner_pipe": b"json"}


def arrow() -> Any:
    """Import pyarrow.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    return optional_package("pyarrow", "predict", "parquet")


@dataclass(frozen=True)
class Schema:
    """Which columns a pipeline adds to its texts: ``entities``, and what else it finds.

    ``entities`` is ``list<struct<start, end, text, label, score>>``: characters, the end exclusive; ``score`` is null
    where the pipeline gives none. The list is null for a text that was not predicted on, empty where nothing was found.

    Parameters
    ----------
    relations
        Whether there is ``relations``, ``list<struct<head, tail, label, score>>``; head and tail are positions in
        ``entities``, counted from 0.
    generated
        Whether an entity has ``generated_labels``, a list of strings.
    errors
        Whether there is ``error``, which says why a text was not predicted on.
    """

    relations: bool = False
    generated: bool = False
    errors: bool = False

    @classmethod
    def of(cls, nlp: Language, *, skip: bool = False) -> Schema:
        """Return that of a pipeline, with the relations that it is asked for; `skip` if it is to skip bad rows."""
        components = gliner_components(nlp)
        return cls(
            relations=any(one.finds_relations and one.relation_items for one in components),
            generated=any(one.gliner.label_generator is not None for one in components),
            errors=skip or nlp.default_error_handler is not raise_error,
        )

    def fields(self) -> list[pa.Field]:
        """Return the fields of the columns."""
        pa = arrow()
        parts = {
            "start": pa.int32(),
            "end": pa.int32(),
            "text": pa.string(),
            "label": pa.string(),
            "score": pa.float64(),
        }
        if self.generated:
            parts["generated_labels"] = pa.list_(pa.string())
        fields = [pa.field("entities", pa.list_(pa.struct(list(parts.items()))))]
        if self.relations:
            relation = {"head": pa.int32(), "tail": pa.int32(), "label": pa.string(), "score": pa.float64()}
            fields.append(pa.field("relations", pa.list_(pa.struct(list(relation.items())))))
        if self.errors:
            fields.append(pa.field("error", pa.string()))
        return fields

    def columns(self, found: Sequence[Outcome]) -> list[pa.Array]:
        """Return what was found in some texts as columns."""
        pa = arrow()
        values: list[list[Any]] = [[one.entities if isinstance(one, Found) else None for one in found]]
        if self.relations:
            values.append([_relations(one) for one in found])
        if self.errors:
            values.append([one.reason if isinstance(one, Missed) else None for one in found])
        return [pa.array(value, field.type) for value, field in zip(values, self.fields(), strict=True)]

    def extend(self, batch: pa.RecordBatch, found: Sequence[Outcome]) -> pa.RecordBatch:
        """Return a batch with the columns of what was found in its rows."""
        pa = arrow()
        fields = [*batch.schema, *self.fields()]
        return pa.RecordBatch.from_arrays([*batch.columns, *self.columns(found)], schema=pa.schema(fields))


def _relations(found: Outcome) -> list[dict[str, Any]] | None:
    if isinstance(found, Missed) or found.relations is None:
        return None
    return [relation._asdict() for relation in found.relations]


def to_values(column: pa.Array) -> list[Any]:
    """Return the values of a column; where one is no UTF-8, the error that says so."""
    try:
        values: list[Any] = column.to_pylist()
        return values
    except UnicodeDecodeError:
        return [_value_or_error(scalar) for scalar in column]


def _value_or_error(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return error


def with_valid_texts(batch: pa.RecordBatch) -> tuple[pa.RecordBatch, set[int]]:
    """Return a batch with U+FFFD for bytes in its texts that are not UTF-8, and the rows in which there are some."""
    pa = arrow()
    columns: list[Any] = []
    replaced: set[int] = set()
    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            bad = {
                row for row, value in enumerate(to_values(column)) if isinstance(value, UnicodeDecodeError)
            }
            replaced |= bad
            values = [_decoded(one) if row in bad else one.as_py() for row, one in enumerate(column)]
            column = pa.array(values, column.type)
        columns.append(column)
    return (pa.RecordBatch.from_arrays(columns, schema=batch.schema) if replaced else batch), replaced


def _decoded(scalar: Any) -> Any:
    """Return the value of a scalar, with U+FFFD for bytes that are not UTF-8."""
    pa = arrow()
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.DictionaryScalar):
        return _decoded(scalar.value)
    if isinstance(scalar, (pa.StringScalar, pa.LargeStringScalar, pa.StringViewScalar)):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "replace")
    if isinstance(scalar, pa.MapScalar):
        return [tuple(_decoded(one[name]) for name in one.type.names) for one in scalar.values]
    if isinstance(scalar, pa.ListScalar):  # of all kinds
        return [_decoded(one) for one in scalar.values]
    if isinstance(scalar, pa.StructScalar):
        return {name: _decoded(scalar[name]) for name in scalar}
    return scalar.as_py()


def plain_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of a batch as dictionaries; columns with values that Python does not have become texts."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
        return rows
    except (ValueError, OverflowError):  # times beyond Python's years, or finer than its microseconds
        columns = [_plain_values(column) for column in batch.columns]
        return [dict(zip(batch.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain_values(column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):
        values = column.cast(arrow().string()).to_pylist()
    return values


def batch_of(rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Return rows as a batch; columns in order of first appearance, their types inferred.

    A column of values that have no type in common, or none that Parquet knows, becomes one of JSON texts.
    """
    pa = arrow()
    names = list(dict.fromkeys(name for row in rows for name in row))
    pairs = [_inferred(name, [row.get(name) for row in rows]) for name in names]
    schema = pa.schema([field for field, _ in pairs])
    if not names:  # a batch without columns has no rows either, unless it is made of structs
        return pa.RecordBatch.from_struct_array(pa.array([{} for _ in rows], pa.struct([])))
    return pa.RecordBatch.from_arrays([column for _, column in pairs], schema=schema)


def _inferred(name: str, values: list[Any]) -> tuple[pa.Field, pa.Array]:
    pa = arrow()
    try:
        column = pa.array(values)
        if not _has_empty_struct(column.type):
            return pa.field(name, column.type), column
    except (pa.ArrowException, OverflowError):
        pass
    return pa.field(name, pa.string(), metadata=_AS_JSON), _json_texts(values)


def _has_empty_struct(kind: Any) -> bool:
    if arrow().types.is_struct(kind) and not kind.num_fields:
        return True
    return any(_has_empty_struct(kind.field(place).type) for place in range(kind.num_fields))


def _json_texts(values: Sequence[Any]) -> pa.Array:
    texts = [
        None if value is None else json.dumps(value, ensure_ascii=False, default=str) for value in values
    ]
    return arrow().array(texts, arrow().string())


def common_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the schema that fits all; fields of types that have none in common become JSON texts."""
    pa = arrow()
    fields: dict[str, Any] = {}
    for schema in schemas:
        for field in schema:
            fields[field.name] = _common(fields[field.name], field) if field.name in fields else field
    return pa.schema([field for name, field in sorted(fields.items(), key=lambda item: item[0] in _LAST)])


#: Columns that stand behind those of the data.
_LAST = ("entities", "relations", "error")


def _common(one: pa.Field, other: pa.Field) -> pa.Field:
    pa = arrow()
    if _is_json(one) or (_is_json(other) is False and one.type == other.type):
        return one
    text = pa.field(one.name, pa.string(), metadata=_AS_JSON)
    if _is_json(other):
        return text
    try:
        return pa.unify_schemas([pa.schema([one]), pa.schema([other])], promote_options="permissive").field(0)
    except pa.ArrowException:
        return text


def _is_json(field: pa.Field) -> bool:
    return _AS_JSON.items() <= (field.metadata or {}).items()


def fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns of `schema`, which `common_schema` gave."""
    pa = arrow()
    columns = []
    for field in schema:
        if field.name not in table.schema.names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        column = table.column(field.name)
        if _is_json(field) and not _is_json(table.schema.field(field.name)):
            column = _json_texts(column.to_pylist())
        elif column.type != field.type:
            one = pa.table({"x": column})
            column = pa.concat_tables(
                [one, pa.schema([pa.field("x", field.type)]).empty_table()], promote_options="permissive"
            ).column(0)
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)


def groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Join tables of one schema to larger ones, so that a Parquet file has few groups of rows."""
    pa = arrow()
    held: list[Any] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= GROUP_ROWS or sum(one.nbytes for one in held) >= GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


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
