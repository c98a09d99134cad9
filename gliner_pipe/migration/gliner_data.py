"""The training and validation data that a GLiNER file names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.migration.names import unknown
from gliner_pipe.migration.routing import Routed
from gliner_pipe.migration.values import WrongValue, flag, whole
from gliner_pipe.migration.yaml_files import Document

#: Fields of a record, and their names by default.
FIELDS = {
    "tokens": "tokenized_text",
    **{name: name for name in ("ner", "relations", "text", "id")},
    **{name: name for name in ("ner_labels", "ner_negatives", "rel_labels", "rel_negatives")},
}


def data_sections(document: Document, routed: Routed, notes: list[str]) -> dict[str, Any]:
    """Return the sections of training and validation data.

    Raises
    ------
    ConfigError
        If there is no training data, or one of its options is wrong.
    """
    read = routed.read
    if "train_data" not in read:
        raise ConfigError(
            document.where(), "has no train_data", "a file or a folder", "Add train_data to data"
        )
    place = document.find("fields")
    kind, fields = read.get("format", "json"), _fields(document, read.get("fields", {}))
    train: dict[str, Any] = {"randomize": True, "reader": _reader(read["train_data"], kind, fields, place)}
    chunk = _chunk(document, read.get("long_doc_chunking", {}))
    train |= {"max_length": read.get("max_len", 384)} if chunk is None else {"chunk": chunk}
    if (
        "fields" in train["reader"]
        and "tag" in fields.get("ner", "")
        and not Path(read["train_data"]).is_file()
    ):
        notes.append(
            f"{read['train_data']} does not exist here: if {fields['ner']} holds one tag per word, convert again where "
            'the file is, or set @readers = "bio"'
        )
    sections = {"train_data": train}
    if validation := read.get("val_data", read.get("val_data_dir")):
        sections["val_data"] = {"reader": _reader(validation, kind, fields, place)}
    return sections


def _reader(path: str, kind: str, fields: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return the block of a reader.

    Parameters
    ----------
    path
        File or folder.
    kind
        GLiNER's name of the format.
    fields
        Names of the fields that were given.
    where
        Place of `fields`, for errors.
    """
    if kind in ("json", "jsonl") and _has_tags(path, fields):
        kind = "bio"
        fields = {"tokens": FIELDS["tokens"], "ner": FIELDS["ner"], **fields}
    if kind in ("bio", "csv", "tsv", "parquet"):
        columns = {"tokens": "tokens_column", "ner": "tags_column"}
        renamed = {column: fields[field] for field, column in columns.items() if field in fields}
        return {"@readers": "bio", "path": path, **renamed}
    if kind in ("json", "jsonl"):
        name = "jsonl" if "text" in fields and "tokens" not in fields else "gliner_json"
        renamed = {field: name for field, name in fields.items() if name != FIELDS[field]}
        return {"@readers": name, "path": path, **({"fields": renamed} if renamed else {})}
    if fields:
        raise ConfigError(where, f"is set, but the format {kind} has no fields", "nothing")
    if kind == "spacy":
        settings = {"gold_preproc": False, "max_length": 0, "limit": 0, "augmenter": None}
        return {"@readers": "spacy.Corpus.v1", "path": path, **settings}
    return {"@readers": "standoff" if kind == "brat" else kind, "path": path}


def _fields(document: Document, fields: Mapping[Any, Any]) -> dict[str, str]:
    """Return the names of fields that a file gives, checked."""
    for field, name in fields.items():
        where = document.find("fields", str(field))
        if field not in FIELDS:
            raise unknown(str(field), where, list(FIELDS), ", ".join(FIELDS))
        if not isinstance(name, str) or not name:
            raise ConfigError(where, f"is {name!r}", "the name of a field")
    return dict(fields)


def _has_tags(path: str, fields: Mapping[str, str]) -> bool:
    """Return whether the first record of a file has one tag per word; False if there is no file."""
    from gliner_pipe.data.files import read_json

    file = Path(path)
    if not file.is_file():
        return False
    try:
        _, record = next(iter(read_json(file)))
    except (DataError, StopIteration, json.JSONDecodeError):
        return False
    if not isinstance(record, dict):
        return False
    words, tags = (record.get(fields.get(field, FIELDS[field])) for field in ("tokens", "ner"))
    return (
        isinstance(words, list)
        and isinstance(tags, list)
        and bool(tags)
        and len(words) == len(tags)
        and all(isinstance(tag, (str, int)) for tag in tags)
    )


def _chunk(document: Document, given: Mapping[Any, Any]) -> dict[str, int] | None:
    """Return how long texts are split; None if they are not."""
    chunk: dict[str, Any] = {"enabled": bool(given), "max_words": 200, "stride": 50}
    readers = {"enabled": flag, "max_words": whole(), "stride": whole(0)}
    for key, value in given.items():
        where = document.find("long_doc_chunking", str(key))
        if key not in chunk:
            raise unknown(str(key), where, list(chunk), ", ".join(chunk))
        try:
            chunk[key] = readers[key](value)
        except WrongValue as error:
            raise error.at(where) from None
    if not chunk.pop("enabled"):
        return None
    if chunk["stride"] >= chunk["max_words"]:
        where = document.find("long_doc_chunking", "stride" if "stride" in given else "max_words")
        found = f"sets a stride of {chunk['stride']} and max_words = {chunk['max_words']}"
        raise ConfigError(where, found, "a stride below max_words")
    return chunk
