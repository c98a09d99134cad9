"""Tables of words and tags: CSV, JSON and Parquet files, saved data sets, data sets of the hub, tables in memory."""

from __future__ import annotations

import csv
import glob
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from gliner_pipe.data.fields import shown
from gliner_pipe.data.files import (
    Place,
    find_files,
    read_json,
    read_lines,
    read_text,
    refuse_changed,
    state_of,
)
from gliner_pipe.data.readers.cells import guess_columns, inner_names, plain_value, sentence_column
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.util.optional import library

CSV_SUFFIXES = (".csv", ".tsv")
TABLE_SUFFIXES = (*CSV_SUFFIXES, ".parquet", ".json", ".jsonl", ".ndjson")

#: Names of splits by which files of a folder are recognized.
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "eval", "test")
#: Files that ``save_to_disk`` of the package datasets writes, for several splits or for one.
SAVED_SPLITS, SAVED = "dataset_dict.json", "state.json"

#: The cells of a blank line.
BLANK_ROW: Mapping[str, Any] = MappingProxyType({})
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(:[\w.+-]+)?")
_SPLIT_NAME = re.compile(r"([A-Za-z]+)(?:[-_.]?\d.*)?")

#: A row: its location, and its cells by column.
Row = tuple[Place, Mapping[str, Any]]


@dataclass(frozen=True)
class Table:
    """The rows of one file or data set.

    Parameters
    ----------
    rows
        Called with the required columns, yields rows with at least these and a column of sentences. A name such as
        ``"data.tokens"`` is a field of the column ``"data"``.
    tag_names
        Called with a column of ids, returns their names if the data contains them.
    """

    rows: Callable[[Sequence[str]], Iterator[Row]]
    tag_names: Callable[[str], list[str] | None]


def open_tables(path: Any, split: str) -> list[Table]:
    """Return the tables of a path; rows are read later.

    Parameters
    ----------
    path
        File, folder, pattern or a list of these; a folder written by ``save_to_disk``; the name of a data set
        of the hub (``"name"`` or ``"name:configuration"``); in Python also a list of rows or a table of
        :func:`is_dataset`.
    split
        Split of a folder or data set with several splits; ignored for a single file.

    Raises
    ------
    DataError
        There is no table or no such split.
    ConfigError
        An optional package is missing.
    """
    if is_dataset(path):
        return [_in_memory(_part(path, split, "the data set"))]
    if isinstance(path, list) and path and all(isinstance(row, Mapping) for row in path):
        return [Table(lambda columns: ((Place(f"record {i}"), row) for i, row in enumerate(path)), _nameless)]
    tables: list[Table] = []
    for item in path if isinstance(path, list) else [path]:
        if item is not None and not isinstance(item, (str, Path)):
            allowed = (
                "a file, a folder, a pattern, the name of a data set of the hub, a Dataset or a DatasetDict, a data "
                "frame or a list of rows"
            )
            raise ConfigError("path", f"is {type(item).__name__}", allowed)
        here = Path(item).expanduser() if item else None
        if here is not None and saved_dataset(here):
            tables.append(_of_saved(here, split))
        elif here is not None and here.is_dir():
            tables += [_of_file(file) for file in _of_split(here, split)]
        elif isinstance(item, str) and here is not None and _is_hub_id(item, here):
            tables.append(_of_hub(item, split))
        else:
            tables += [_of_file(file) for file in find_files(item, TABLE_SUFFIXES)]
    return tables or [_of_file(file) for file in find_files(path, TABLE_SUFFIXES)]


def is_dataset(value: Any) -> bool:
    """Whether `value` is a table in memory: a data set of the package datasets (also a streamed one), a data frame of
    pandas or polars, a table of pyarrow, or a mapping from splits to these.
    """
    if isinstance(value, dict):
        return bool(value) and "reader" not in value and all(map(is_dataset, value.values()))
    return hasattr(value, "column_names") or (hasattr(value, "columns") and hasattr(value, "to_dict"))


def saved_dataset(folder: Path) -> bool:
    """Whether `folder` was written by ``save_to_disk``."""
    return (folder / SAVED_SPLITS).is_file() or (
        (folder / SAVED).is_file() and (folder / "dataset_info.json").is_file()
    )


def splits_of(path: Any) -> list[str]:
    """Return the splits of a folder or ``DatasetDict``; an empty list if it has a single one."""
    if is_dataset(path):
        return list(path) if isinstance(path, dict) else []
    if (path / SAVED_SPLITS).is_file():
        return [str(name) for name in json.loads(read_text(path / SAVED_SPLITS))["splits"]]
    if saved_dataset(path) or not path.is_dir():
        return []
    named = [_split_name(file, path, SPLITS) for file in find_files(path, TABLE_SUFFIXES)]
    return list(dict.fromkeys(name for name in named if name))


def table_columns(path: Path) -> list[str]:
    """Return the columns of a CSV or Parquet file, or of a saved data set with a single split.

    The fields of a column of objects follow it, as ``"column.field"``.
    """
    if path.is_dir():
        features = json.loads(read_text(path / "dataset_info.json")).get("features") or {}
        return [name for column in features for name in (column, *_inner_features(features, column))]
    if path.suffix.lower() == ".parquet":
        with open_parquet(path) as table:
            return [name for column in table.schema_arrow for name in (column.name, *_inner_fields(column))]
    head = next((line for _, line in read_lines(path) if line.strip()), "")
    rows = _parsed_csv(path, head)
    if not rows:
        raise _empty(path)
    return [cell.strip() for cell in rows[0][1]]


def dataset_columns(data: Any) -> list[str]:
    """Return the columns of a table in memory, as :func:`table_columns` does."""
    row = next((row for _, row in _in_memory(data).rows(())), {})
    return [name for column, cell in row.items() for name in (column, *inner_names(column, cell))]


def dataset_rows(data: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table in memory, with the values of classes and arrays as lists and plain values.

    An object of lists of one length, as ``Sequence`` of the package datasets stores a list of objects, is that list.
    """
    return ({name: _objects(cell) for name, cell in row.items()} for _, row in _in_memory(data).rows(()))


def _objects(cell: Any) -> Any:
    lists = list(cell.values()) if isinstance(cell, Mapping) else []
    if not lists or not all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists):
        return cell
    return [dict(zip(cell, values, strict=True)) for values in zip(*lists, strict=True)]


def _inner_features(features: Mapping[str, Any], column: str) -> list[str]:
    return inner_names(column, None if _is_leaf(inner := _unwrapped(features[column])) else inner)


def _inner_fields(column: Any) -> list[str]:
    kind = column.type
    while hasattr(kind, "value_type"):
        kind = kind.value_type
    fields = range(kind.num_fields) if str(kind).startswith("struct") else ()
    return [f"{column.name}.{kind.field(i).name}" for i in fields]


def _selected(columns: Sequence[str], there: Sequence[str]) -> list[str]:
    """Return the columns to read of those that are `there`; all if a required one is missing."""
    outer = [name if name in there else name.partition(".")[0] for name in columns]
    if not columns or not set(outer) <= set(there):
        return list(there)
    return list(dict.fromkeys([*outer, *filter(None, [sentence_column(there)])]))


def missing_column(place: Place, option: str, column: str, there: Sequence[str]) -> DataError:
    """Return the error about a missing column."""
    guessed = guess_columns(there)
    value = "" if guessed is None else f' = "{guessed[option == "tags_column"]}"'
    found = f"is missing (columns: {', '.join(there) or 'none'})"
    return place.error(column, found, "a column of lists", f"Set {option}{value}")


def _of_file(file: Path) -> Table:
    suffix = file.suffix.lower()
    if suffix in CSV_SUFFIXES:
        return Table(lambda columns: _csv_rows(file), _nameless)
    if suffix == ".parquet":
        return Table(
            lambda columns: _parquet_rows(file, columns), lambda column: _parquet_names(file, column)
        )
    return Table(lambda columns: _json_rows(file), _nameless)


def _nameless(column: str) -> None:
    return None


def _json_rows(file: Path) -> Iterator[Row]:
    for place, value in read_json(file):
        if not isinstance(value, dict):
            raise place.error("", f"is {shown(value)}", "a JSON object for each row")
        yield place, value


def _csv_rows(file: Path) -> Iterator[Row]:
    text = read_text(file)
    rows = _parsed_csv(file, text)
    if not rows:
        raise _empty(file)
    first, columns = rows[0]
    columns = [column.strip() for column in columns]
    twice = [column for column in columns if columns.count(column) > 1]
    if twice:
        raise first.error("", f"has the column {twice[0]!r} twice", "each column once")
    for place, cells in rows[1:]:
        if not cells:
            yield place, BLANK_ROW
            continue
        if len(cells) != len(columns):
            found = f"has {len(cells)} cells, the header has {len(columns)}"
            do = "Put lists in quotes: \"['John', 'Smith']\",\"[1, 2]\""
            raise place.error("", found, "as many cells as columns", do)
        yield place, dict(zip(columns, cells, strict=True))


def _empty(file: Path) -> DataError:
    return DataError(str(file), "is empty", "a line of column names, then one row on each line")


def _parsed_csv(file: Path, text: str) -> list[tuple[Place, list[str]]]:
    head = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    delimiter = "\t" if "\t" in head else ";" if ";" in head and "," not in head else ","
    rows: list[tuple[Place, list[str]]] = []
    line = 1
    limit = csv.field_size_limit(sys.maxsize)  # a cell may hold a long text
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            for cells in reader:
                if cells or rows:
                    rows.append((Place(str(file), line), cells))
                line = reader.line_num + 1
        except csv.Error as error:
            do = "Close each quote, and double quotes within quotes"
            raise Place(str(file), line).error(
                "", f"is not valid CSV: {error}", "cells in quotes", do
            ) from None
    finally:
        csv.field_size_limit(limit)
    return rows


def _parquet_rows(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    before = state_of(file)
    with open_parquet(file) as table:
        names = _selected(columns, table.schema_arrow.names)
        batches = iter(table.iter_batches(columns=names))
        while (rows := _parquet_batch(file, batches)) is not None:
            for row in rows:
                number += 1
                yield Place(str(file), number), row
    refuse_changed(file, before)


def _parquet_batch(file: Path, batches: Iterator[Any]) -> list[dict[str, Any]] | None:
    """Return the rows of the next batch of a file; None after the last one."""
    try:
        batch = next(batches, None)
        rows: list[dict[str, Any]] | None = None if batch is None else batch.to_pylist()
        return rows
    except (OSError, ValueError, OverflowError) as error:
        found = f"cannot be read to its end: {_first_line(error)}"
        raise DataError(str(file), found, "a complete Parquet file", "Replace the file") from None


def _parquet_names(file: Path, column: str) -> list[str] | None:
    with open_parquet(file) as table:
        return _arrow_names(table.schema_arrow, column)


def _arrow_names(schema: Any, column: str) -> list[str] | None:
    found: Any = None
    with suppress(ValueError, RecursionError):  # metadata that is damaged tells nothing
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    for name in ("info", "features"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return _class_names(found if isinstance(found, Mapping) else {}, column)


def _class_names(features: Mapping[str, Any], column: str) -> list[str] | None:
    """Return the names of the classes of a column; None if it has no classes."""
    feature: Any = features
    for name in [column] if column in features else column.split("."):
        inner = _unwrapped(feature)
        feature = inner.get(name) if isinstance(inner, Mapping) else None
    feature = _unwrapped(feature)
    names = feature.get("names") if _is_leaf(feature) else None
    usable = isinstance(names, list) and bool(names) and all(isinstance(name, str) for name in names)
    return names if usable else None


def _is_leaf(feature: Any) -> bool:
    return isinstance(feature, Mapping) and isinstance(feature.get("_type"), str)


def _unwrapped(feature: Any) -> Any:
    """Return the feature of the items of a list."""
    while isinstance(feature, list) or (
        _is_leaf(feature) and isinstance(feature.get("feature"), (dict, list))
    ):
        feature = (feature[0] if feature else None) if isinstance(feature, list) else feature["feature"]
    return feature


def open_parquet(file: Path, where: str = "readers.bio", extra: str = "datasets") -> Any:
    """Open a Parquet file as a ``pyarrow.parquet.ParquetFile``, for a ``with`` statement.

    Parameters
    ----------
    file
        The file.
    where, extra
        As for :func:`gliner_pipe.util.optional.library`.

    Raises
    ------
    DataError
        Not a Parquet file.
    """
    parquet = library("pyarrow.parquet", where, extra)
    try:
        return parquet.ParquetFile(str(file))
    except (OSError, ValueError) as error:
        raise DataError(str(file), f"is not a Parquet file: {_first_line(error)}", "a Parquet file") from None


def _of_split(folder: Path, split: str) -> list[Path]:
    files = find_files(folder, TABLE_SUFFIXES)
    names = {file: _split_name(file, folder, [*SPLITS, split]) for file in files}
    if split == "train" and not any(names.values()):
        return files  # shards of one split
    chosen = [file for file, name in names.items() if name == split.lower()]
    if not chosen:
        there = (
            ", ".join(dict.fromkeys(filter(None, names.values())))
            or "no split, only files without names of splits"
        )
        raise DataError(str(folder), f"has no split {split!r}", there, "Set split")
    return chosen


def _split_name(file: Path, folder: Path, known: Sequence[str]) -> str:
    """Return the split that `file` or else one of its folders is named after; empty if there is none."""
    *folders, name = file.relative_to(folder).parts
    for part in (name.split(".")[0], *reversed(folders)):
        match = _SPLIT_NAME.fullmatch(part)
        for candidate in (part.lower(), match[1].lower() if match else ""):
            if candidate in (item.lower() for item in known):
                return candidate
    return ""


def _is_hub_id(name: str, here: Path) -> bool:
    return (
        not here.exists()
        and not glob.has_magic(name)
        and here.suffix.lower() not in TABLE_SUFFIXES
        and _HUB_ID.fullmatch(name) is not None
    )


def _of_saved(folder: Path, split: str) -> Table:
    data = _load(str(folder), lambda package: package.load_from_disk(str(folder)))
    part = _part(data, split, str(folder))
    return _of_dataset(part, str(folder) if part is data else str(folder / split))


def _of_hub(name: str, split: str) -> Table:
    repository, configuration, split = _hub_place(name, split)
    data = _load(name, lambda package: package.load_dataset(repository, configuration, split=split), hub=True)
    return _of_dataset(data, f"{name}:{split}")


def _hub_place(name: str, split: str) -> tuple[str, str | None, str]:
    """Return repository, configuration and split; the name of either may end with a configuration."""
    repository, _, configuration = name.partition(":")
    if ":" in split:
        configuration, _, split = split.rpartition(":")
    return repository, configuration or None, split


def hub_tag_names(name: str, split: str, column: str) -> list[str] | None:
    """Return the names of the ids in a column of a data set of the hub, whose rows are not loaded.

    None if its page does not describe the columns, or this is no column of ids.

    Parameters
    ----------
    name, split
        As for :func:`open_tables`.
    column
        Name of the column.

    Raises
    ------
    DataError
        There is no such data set, or the hub cannot be reached.
    """
    repository, configuration, _ = _hub_place(name, split)
    data = _load(name, lambda package: package.load_dataset_builder(repository, configuration), hub=True)
    return _class_names(data.info.features.to_dict(), column) if data.info.features else None


def _load(name: str, load: Callable[[Any], Any], hub: bool = False) -> Any:
    package = library("datasets", "readers.bio", "datasets")
    try:
        return load(package)
    except Exception as error:  # of any kind, depending on what is wrong with the data or the network
        failed = "cannot be loaded from the hub" if hub else "cannot be loaded"
        found = f"{'is not a file or folder, and ' if hub else ''}{failed}: {_first_line(error)}"
        allowed = "a file, a folder, or the name of a data set of the hub" if hub else "a saved data set"
        raise DataError(name, found, allowed) from error


def _part(data: Any, split: str, name: str) -> Any:
    if not isinstance(data, dict):
        return data
    if split not in data:
        raise DataError(name, f"has no split {split!r}", ", ".join(map(str, data)), "Set split")
    return data[split]


def _in_memory(data: Any) -> Table:
    """Return the table of a data set, a data frame or a table of pyarrow."""
    if hasattr(data, "select_columns"):
        return _of_dataset(data, None)
    names = data.column_names if hasattr(data, "column_names") else data.columns

    def rows(columns: Sequence[str]) -> Iterator[Row]:
        wanted = _selected(columns, [str(name) for name in names])
        if hasattr(data, "to_pylist"):
            batches = data.to_batches() if hasattr(data, "to_batches") else [data]
            cells: Iterable[Mapping[str, Any]] = (
                row for batch in batches for row in batch.select(wanted).to_pylist()
            )
        else:
            series = [data[name] for name in names if str(name) in wanted]
            kept = [str(name) for name in names if str(name) in wanted]
            cells = (
                dict(zip(kept, map(plain_value, values), strict=True)) for values in zip(*series, strict=True)
            )
        return ((Place(f"record {number}"), row) for number, row in enumerate(cells))

    schema = getattr(data, "schema", None)
    return Table(rows, lambda column: _arrow_names(schema, column) if hasattr(data, "to_pylist") else None)


def _of_dataset(data: Any, name: str | None) -> Table:
    """Return the table of a ``Dataset`` or ``IterableDataset``; without `name`, messages count its rows from 0."""

    def rows(columns: Sequence[str]) -> Iterator[Row]:
        there = data.column_names
        plain = data.select_columns(_selected(columns, there)) if there else data
        for number, row in enumerate(plain.with_format(None)):
            yield (Place(f"record {number}") if name is None else Place(name, number + 1)), row

    def names(column: str) -> list[str] | None:
        return _class_names(data.features.to_dict(), column) if data.features else None

    return Table(rows, names)


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0][:200]}"
