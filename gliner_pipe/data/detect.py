"""Which reader reads what: chosen by the ends of file names, by columns, and by the first record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from confit import Config
from spacy.language import Language
from spacy.training import Example

from gliner_pipe.data.files import read_json, read_lines
from gliner_pipe.data.readers.bio import BioReader
from gliner_pipe.data.readers.conll import ConllReader
from gliner_pipe.data.readers.json import GlinerJsonReader, JsonlReader
from gliner_pipe.data.readers.tables import (
    CSV_SUFFIXES,
    TAGS_NAMES,
    TOKENS_NAMES,
    guess_columns,
    saved_dataset,
    splits_of,
    table_columns,
)
from gliner_pipe.data.tags import is_tag_list
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.registry import registry

#: spaCy's contract: a pipeline in, examples out.
ReaderLike = Callable[[Language], Iterable[Example]]

#: Name of the reader by the end of a file's name.
READERS_BY_SUFFIX: Mapping[str, str] = {
    **dict.fromkeys(ConllReader.suffixes, "conll"),
    ".ann": "standoff",
    ".spacy": "spacy.Corpus.v1",
    ".csv": "bio",
    ".parquet": "bio",
}
#: Options that spaCy's reader has no defaults for.
READER_OPTIONS = {"spacy.Corpus.v1": {"gold_preproc": False, "max_length": 0, "limit": 0, "augmenter": None}}
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
#: What the validation part of a data set may be called, the first that is there is taken.
VALIDATION_SPLITS = ("validation", "valid", "val", "dev", "eval")


def reader_of_path(path: Path, *, validation: bool = False) -> ReaderLike:
    """Return the reader for a file or folder.

    Parameters
    ----------
    path
        File or folder.
    validation
        Whether the validation part is wanted, where a folder holds several parts of one data set.

    Raises
    ------
    DataError
        If the file is missing, or its format cannot be told.
    """
    if not path.exists():
        do = f'The working folder is {Path.cwd()}. Data sets of the hub: @readers = "bio", path = "name"'
        raise DataError(str(path), "does not exist", "a file or a folder", do)
    path = _part(path, validation)
    block = _block(path, validation)
    made: ReaderLike = Config({"reader": {**block, "path": str(path)}}).resolve(registry=registry)["reader"]
    return made


def reader_of_records(records: Sequence[Mapping[str, Any]]) -> ReaderLike:
    """Return the reader for records in memory: those of GLiNER, texts with offsets, or words with tags.

    Raises
    ------
    DataError
        If the first record is of another kind.
    """
    if not is_known(records[0]):
        found = f"has the fields {', '.join(map(str, records[0])) or '(none)'}"
        allowed = "tokenized_text and ner, text and entities, or tokens and tags"
        raise DataError("record 0", found, allowed, "Name the fields: gliner_json(records, fields={...})")
    block = record_block(records[0])
    items: list[dict[str, Any]] = [dict(record) for record in records]
    if block.pop("@readers") == "jsonl":
        return JsonlReader(items, **block)
    if "tokens_column" in block:
        block = {"fields": {"tokens": block["tokens_column"], "ner": block["tags_column"]}}
    return GlinerJsonReader(items, **block)


def reader_of_dataset(data: Any, *, validation: bool = False) -> ReaderLike:
    """Return the reader for a ``Dataset`` or ``DatasetDict`` of the package datasets.

    Raises
    ------
    DataError
        If it has no split to train or validate on, or its columns cannot be told.
    """
    split = _split(splits_of(data), "the data set", validation)
    part = data[split] if isinstance(data, dict) else data
    guessed = guess_columns(part.column_names)
    if guessed is None:
        raise _unclear("the data set", part.column_names)
    return BioReader(part, tokens_column=guessed[0], tags_column=guessed[1])


def _part(path: Path, validation: bool) -> Path:
    """Return the file of the part that is wanted, where a folder holds JSON files of several."""
    if not path.is_dir() or saved_dataset(path):
        return path
    known = ("train", "training", "test", *VALIDATION_SPLITS)
    files = [file for file in sorted(path.iterdir()) if file.suffix.lower() in JSON_SUFFIXES]
    parts = {file.stem.lower(): file for file in files if file.stem.lower() in known}
    if len(parts) < 2:
        return path
    return parts[_split(list(parts), str(path), validation)]


def tagged_block(path: Path) -> dict[str, Any] | None:
    """Return the block of the reader ``bio`` for a file or folder of words with tags, None for anything else."""
    if not path.exists():
        return None
    try:
        block = _block(path, validation=True)
    except DataError:
        return None
    except ConfigError as error:  # its parts have names of which none is known
        raise DataError(str(path), error.found, error.allowed, "Name the file of the part") from None
    return block if block["@readers"] == "bio" else None


def is_known(record: Mapping[str, Any]) -> bool:
    """Say whether some reader reads `record`."""
    return bool({"tokenized_text", "text"} & record.keys()) or guess_columns(record) is not None


def record_block(record: Any) -> dict[str, Any]:
    """Return the reader for a JSON record, with its options."""
    if not isinstance(record, Mapping):
        return {"@readers": "jsonl"}
    if "tokenized_text" in record and "ner" in record:
        return {"@readers": "gliner_json"}
    guessed = guess_columns(record)
    if guessed is not None and isinstance(record[guessed[0]], list):
        tokens, tags = guessed
        if is_tag_list(record[tags]) or tags != "ner":
            return {"@readers": "bio", "tokens_column": tokens, "tags_column": tags}
        return {"@readers": "gliner_json", "fields": {"tokens": tokens, "ner": tags}}
    return {"@readers": "gliner_json" if "tokenized_text" in record else "jsonl"}


def _block(path: Path, validation: bool) -> dict[str, Any]:
    if saved_dataset(path):
        split = _split(splits_of(path), str(path), validation)
        return _table_block(path / split if split else path, split)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        suffix = file.suffix.lower()
        if suffix in JSON_SUFFIXES:
            block = record_block(next(iter(read_json(file)))[1])
        elif suffix == ".txt" and file.with_suffix(".ann").exists():
            block = {"@readers": "standoff"}
        elif suffix in (*CSV_SUFFIXES, ".parquet") and not _is_column_file(file):
            block = _table_block(file)
        elif suffix in READERS_BY_SUFFIX:
            name = READERS_BY_SUFFIX[suffix]
            block = {"@readers": name, **READER_OPTIONS.get(name, {})}
        else:
            continue
        if block["@readers"] == "bio" and path.is_dir():
            block["split"] = _split(splits_of(path), str(path), validation) or "train"
        return block
    suffixes = ", ".join([*JSON_SUFFIXES, *READERS_BY_SUFFIX])
    raise DataError(
        str(path), "has no known format", f"files that end in {suffixes}", "Name a reader: @readers = ..."
    )


def _table_block(path: Path, split: str = "") -> dict[str, Any]:
    columns = table_columns(path)
    guessed = guess_columns(columns)
    if guessed is None:
        raise _unclear(str(path), columns)
    block = {"@readers": "bio", "tokens_column": guessed[0], "tags_column": guessed[1]}
    return {**block, "split": split} if split else block


def _is_column_file(file: Path) -> bool:
    """Say whether a .tsv file has a word a line and not a header with names of columns."""
    if file.suffix.lower() != ".tsv":
        return False
    header = next((line for _, line in read_lines(file) if line.strip()), "")
    return guess_columns(name.strip() for name in header.split("\t")) is None


def _unclear(where: str, columns: Sequence[str]) -> DataError:
    return DataError(
        where,
        f"has the columns {', '.join(columns)}, of which it is not clear which hold words and tags",
        f"one of {', '.join(TOKENS_NAMES)} and one of {', '.join(TAGS_NAMES)}",
        'Name them: @readers = "bio", tokens_column = ..., tags_column = ...',
    )


def _split(splits: Sequence[str], where: str, validation: bool) -> str:
    """Return the split to read; empty where the data has but one part.

    Raises
    ------
    ConfigError
        If none of the splits is for this.
    """
    wanted = VALIDATION_SPLITS if validation else ("train", "training")
    found = next((name for name in wanted if name in splits), None)
    if found is None and splits:
        purpose = "validate" if validation else "train"
        raise ConfigError(
            f"train.{'val_data' if validation else 'train_data'}",
            f"is {where}, which has the splits {', '.join(splits)}, none to {purpose} on",
            ", ".join(wanted),
            'Choose one: @readers = "bio", split = ...',
        )
    return found or ""
