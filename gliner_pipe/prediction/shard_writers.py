"""Writes rows and their predictions as Parquet or JSON Lines, with the columns that Ray and Spark get too."""

from __future__ import annotations

import base64
import gzip
import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy.language import Language
from spacy.util import raise_error

from gliner_pipe.data.readers.tables import open_parquet
from gliner_pipe.errors import DataError
from gliner_pipe.pipeline.overrides import gliner_components
from gliner_pipe.pipeline.records import TASK_FIELDS
from gliner_pipe.prediction.chunks import NoPrediction, Outcome, json_fields
from gliner_pipe.util.optional import library

if TYPE_CHECKING:
    import pyarrow as pa

#: Formats of shards.
SHARD_FORMATS = ("parquet", "jsonl", "jsonl.gz")
#: Maximum number of rows of a Parquet row group, and bytes after which it ends.
GROUP_ROWS, GROUP_BYTES = 65536, 64 << 20


def arrow(module: str = "pyarrow") -> Any:
    """Import pyarrow, or one of its modules.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    return library(module, "predict", "parquet")


# -- columns of a prediction -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Schema:
    """The columns that a pipeline adds to its texts.

    ``entities`` is ``list<struct<start, end, text, label, score>>``: offsets in characters, the end exclusive;
    ``score`` is null if the pipeline sets none. The list is null for a text without prediction, and empty for a text
    without entities.

    Parameters
    ----------
    relations
        Whether there is ``relations``, ``list<struct<head, tail, label, score>>``; head and tail are positions in
        ``entities``, from 0.
    generated
        Whether entities have ``generated_labels``, a list of strings.
    class_scores
        Whether entities have ``class_scores``, a map from labels to scores.
    tasks
        Names of further columns, of `TASK_FIELDS`: JSON texts.
    errors
        Whether there is ``error``, the reason why a text has no prediction.
    """

    relations: bool = False
    generated: bool = False
    errors: bool = False
    class_scores: bool = False
    tasks: tuple[str, ...] = ()

    @classmethod
    def of(cls, nlp: Language, *, skip: bool = False) -> Schema:
        """Return the schema of a pipeline with its current relation labels; `skip` if bad rows are skipped."""
        components = gliner_components(nlp)
        return cls(
            relations=any(one.finds_relations and one.relation_items for one in components),
            generated=any(one.gliner.label_generator is not None for one in components),
            errors=skip or nlp.default_error_handler is not raise_error,
            class_scores=any(one.cfg["class_scores"] for one in components),
            tasks=tuple(name for one in components for name in _task_columns(one)),
        )

    def fields(self) -> list[pa.Field]:
        """Return the fields of the columns."""
        pa = arrow()
        entity = {
            "start": pa.int32(),
            "end": pa.int32(),
            "text": pa.string(),
            "label": pa.string(),
            "score": pa.float64(),
        }
        if self.generated:
            entity["generated_labels"] = pa.list_(pa.string())
        if self.class_scores:
            entity["class_scores"] = pa.map_(pa.string(), pa.float64())
        fields = [pa.field("entities", pa.list_(pa.struct(list(entity.items()))))]
        if self.relations:
            relation = {"head": pa.int32(), "tail": pa.int32(), "label": pa.string(), "score": pa.float64()}
            fields.append(pa.field("relations", pa.list_(pa.struct(list(relation.items())))))
        fields += [pa.field(name, pa.string(), metadata=_AS_JSON) for name in dict.fromkeys(self.tasks)]
        if self.errors:
            fields.append(pa.field("error", pa.string()))
        return fields

    def extend(self, batch: pa.RecordBatch, outcomes: Sequence[Outcome]) -> pa.RecordBatch:
        """Return a batch with the columns of the predictions of its rows."""
        pa = arrow()
        values: list[list[Any]] = [[self._entities(one) for one in outcomes]]
        if self.relations:
            values.append([_relations(one) for one in outcomes])
        refuse_task_names(self.tasks, batch.schema.names)
        for name in dict.fromkeys(self.tasks):
            found = [None if isinstance(one, NoPrediction) else one.tasks.get(name) for one in outcomes]
            values.append(_json_texts(found).to_pylist())
        if self.errors:
            values.append([one.reason if isinstance(one, NoPrediction) else None for one in outcomes])
        fields = self.fields()
        added = [pa.array(value, field.type) for value, field in zip(values, fields, strict=True)]
        schema = pa.schema([*batch.schema, *fields])
        return pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema)

    def _entities(self, outcome: Outcome) -> list[Any] | None:
        if isinstance(outcome, NoPrediction):
            return None
        if not self.class_scores:
            return list(outcome.entities)
        return [
            {**one, "class_scores": list(one["class_scores"].items()) if "class_scores" in one else None}
            for one in outcome.entities
        ]


def refuse_task_names(fields: Iterable[str], names: Iterable[str]) -> None:
    """Raise DataError if a field of a prediction, of `TASK_FIELDS`, has the name of a column of the data."""
    if both := sorted({*fields} & {*names}):
        raise DataError(
            f"column {both[0]!r} of the data",
            "has the name of a field of the prediction",
            f"data without {', '.join(fields)}",
            "Choose the columns to keep: --keep id,date",
        )


def _task_columns(component: Any) -> Iterator[str]:
    """Yield the columns for what a component predicts as tasks."""
    if component.class_items:
        yield from ("classes", "cats")
    if component.record_items:
        yield from ("records", "record_scores")
    if component.relation_items and component.gliner.relation_finder is not None:
        yield from ("links", "link_scores")


def _relations(outcome: Outcome) -> list[dict[str, Any]] | None:
    if isinstance(outcome, NoPrediction) or outcome.relations is None:
        return None
    return [relation._asdict() for relation in outcome.relations]


# -- values that are not UTF-8, or have no type in Python --------------------------------------------------------


def to_values(column: pa.Array) -> list[Any]:
    """Return the values of a column; in place of a value that is not UTF-8, the ``UnicodeDecodeError``."""
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
    """Return a batch with U+FFFD in place of bytes that are not UTF-8, and the rows that were changed."""
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
    """Return the value of a scalar, with U+FFFD in place of bytes that are not UTF-8."""
    pa = arrow()
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.DictionaryScalar):
        return _decoded(scalar.value)
    if isinstance(scalar, (pa.StringScalar, pa.LargeStringScalar, pa.StringViewScalar)):
        return scalar.as_buffer().to_pybytes().decode("utf-8", "replace")
    if isinstance(scalar, pa.MapScalar):
        return [tuple(_decoded(one[name]) for name in one.type.names) for one in scalar.values]
    if isinstance(scalar, pa.ListScalar):  # lists of all kinds
        return [_decoded(one) for one in scalar.values]
    if isinstance(scalar, pa.StructScalar):
        return {name: _decoded(scalar[name]) for name in scalar}
    return scalar.as_py()


def _python_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of a batch as dictionaries; columns with values that Python cannot represent become strings."""
    rows: list[dict[str, Any]] = [{} for _ in range(len(batch))]
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            values = column.to_pylist()
        except (ValueError, OverflowError):  # times beyond Python's years, or finer than its microseconds
            values = column.cast(arrow().string()).to_pylist()
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


# -- from JSON to columns: one type per field, or JSON texts ------------------------------------------------------

#: Metadata of a column of JSON texts, to which values of several types were converted.
_AS_JSON = {b"gliner_pipe": b"json"}
#: Columns that come after those of the data.
_LAST = ("entities", "relations", *TASK_FIELDS, "error")


def _batch_of(rows: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Return rows as a batch, with inferred types; columns in order of first appearance.

    A column whose values have no common type, or no type that Parquet supports, becomes a column of JSON texts.
    """
    pa = arrow()
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not names:  # a batch without columns has no rows either, unless it is made of structs
        return pa.RecordBatch.from_struct_array(pa.array([{} for _ in rows], pa.struct([])))
    pairs = [_inferred(name, [row.get(name) for row in rows]) for name in names]
    schema = pa.schema([field for field, _ in pairs])
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


def _common_schema(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Return the schema that fits all; fields whose types have no common type become JSON texts."""
    pa = arrow()
    fields: dict[str, Any] = {}
    for schema in schemas:
        for field in schema:
            fields[field.name] = _common(fields[field.name], field) if field.name in fields else field
    return pa.schema([field for name, field in sorted(fields.items(), key=lambda item: item[0] in _LAST)])


def _common(one: pa.Field, other: pa.Field) -> pa.Field:
    pa = arrow()
    if _is_json(one) or (not _is_json(other) and one.type == other.type):
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


def _fitted(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table converted to a common schema."""
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


# -- files -------------------------------------------------------------------------------------------------------


#: Rows (dictionaries, or a ``pyarrow.RecordBatch``) and their outcomes.
Rows = tuple[Any, Sequence[Outcome]]


def format_of(name: str) -> JsonLines | Parquet:
    """Return the format of a file by its suffix."""
    return Parquet() if name.endswith(".parquet") else JsonLines(compressed=name.endswith(".gz"))


@dataclass(frozen=True)
class JsonLines:
    """One object per line: the fields of the row, then those of the prediction.

    Values without a JSON type are written as strings: times in ISO format, bytes in base64. NaN and infinity become
    null.
    """

    compressed: bool = False

    def write(self, parts: Sequence[Rows], path: Path, schema: Schema) -> None:
        """Write rows to a file."""
        with gzip.open(path, "wb") if self.compressed else path.open("wb") as stream:
            for line in _lines(parts):
                stream.write(line.encode())

    def join(self, files: Sequence[Path], path: Path, schema: Schema) -> None:
        """Concatenate files; gzip allows that too."""
        with path.open("wb") as stream:
            for file in files:
                with file.open("rb") as source:
                    shutil.copyfileobj(source, stream)


def _lines(parts: Sequence[Rows]) -> Iterator[str]:
    for rows, outcomes in parts:
        dictionaries = rows if isinstance(rows, list) else _python_rows(rows)
        for row, outcome in zip(dictionaries, outcomes, strict=True):
            fields = json_fields(outcome)
            refuse_task_names(fields.keys() & {*TASK_FIELDS}, row)
            record = {**row, **fields}
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
    """A table with the columns of the rows, in their types, then those of `Schema`."""

    def write(self, parts: Sequence[Rows], path: Path, schema: Schema) -> None:
        """Write rows to a file."""
        pa, parquet = arrow(), arrow("pyarrow.parquet")
        batches = [
            schema.extend(_batch_of(rows) if isinstance(rows, list) else rows, outcomes)
            for rows, outcomes in parts
        ]
        common = _common_schema([batch.schema.remove_metadata() for batch in batches])
        tables = [_fitted(pa.Table.from_batches([batch]), common) for batch in batches]
        parquet.write_table(pa.concat_tables(tables), str(path))

    def join(self, files: Sequence[Path], path: Path, schema: Schema) -> None:
        """Join files, one row group at a time."""
        parquet = arrow("pyarrow.parquet")
        common = _common_schema([_read_schema(file) for file in files])
        tables = (_fitted(_read(file), common) for file in files)
        with parquet.ParquetWriter(str(path), common) as writer:
            for table in _row_groups(tables):
                writer.write_table(table)


def _row_groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Join tables of one schema into larger ones, so that a Parquet file has few row groups."""
    pa = arrow()
    held: list[Any] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) >= GROUP_ROWS or sum(one.nbytes for one in held) >= GROUP_BYTES:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _read_schema(path: Path) -> Any:
    with open_parquet(path, "predict", "parquet") as table:
        return table.schema_arrow.remove_metadata()


def _read(path: Path) -> Any:
    with open_parquet(path, "predict", "parquet") as table:
        return table.read()
