"""The data that another system's configuration names, as ``[train.train_data]`` and ``[train.val_data]``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.migration.names import Routed, unknown
from gliner_pipe.migration.values import WrongValue, flag, whole
from gliner_pipe.migration.yaml_files import Document

#: Roles of fields, and the names they have by default in GLiNER's format.
FIELDS = {
    "tokens": "tokenized_text",
    "ner": "ner",
    "relations": "relations",
    "ner_labels": "ner_labels",
    "ner_negatives": "ner_negatives",
    "rel_labels": "rel_labels",
    "rel_negatives": "rel_negatives",
    "text": "text",
    "id": "id",
}
#: Options of long_doc_chunking.
CHUNKING = ("enabled", "max_words", "stride")


def data_sections(
    document: Document, checked: Mapping[str, Any], routed: Routed, notes: list[str]
) -> dict[str, Any]:
    """Return the sections of training and validation data.

    Raises
    ------
    ConfigError
        If there is no training data, or an option of it cannot be.
    """
    place = routed.place("train.train_data.reader.path")
    if "train_data" not in checked:
        raise ConfigError(
            document.where(), "has no train_data", "a file or a folder", "Add train_data to data:"
        )
    kind = checked.get("format", "json")
    fields = _fields(checked.get("fields"), routed)
    train: dict[str, Any] = {"randomize": True, "reader": reader(checked["train_data"], kind, fields, place)}
    chunk = _chunk(checked.get("long_doc_chunking"), routed)
    if chunk is not None:
        train["chunk"] = chunk
    else:
        train["max_length"] = checked.get("max_len", 384)
    sections = {"train_data": train}
    if (
        "fields" in train["reader"]
        and not Path(checked["train_data"]).is_file()
        and "tag" in fields.get("ner", "")
    ):
        notes.append(
            f"{checked['train_data']} is not there to look into: if {fields['ner']} holds one tag a word, convert "
            'again where it is, or take @readers = "bio"'
        )
    validation = checked.get("val_data", checked.get("val_data_dir"))
    if validation:
        sections["val_data"] = {"reader": reader(validation, kind, fields, place)}
    return sections


def reader(path: str, kind: str, fields: Mapping[str, str], where: str) -> dict[str, Any]:
    """Return the block of a reader.

    Parameters
    ----------
    path
        File or folder.
    kind
        Format, as it is named there.
    fields
        Names of the fields, by role.
    where
        For messages.
    """
    if kind in ("json", "jsonl") and _holds_tags(path, fields):
        kind = "bio"
        fields = {"tokens": FIELDS["tokens"], "ner": FIELDS["ner"], **fields}
    if kind in ("bio", "csv", "tsv", "parquet"):
        columns = {
            f"{ours}_column": fields[role]
            for role, ours in (("tokens", "tokens"), ("ner", "tags"))
            if role in fields
        }
        return {"@readers": "bio", "path": path, **columns}
    if kind in ("json", "jsonl"):
        name = "jsonl" if "text" in fields and "tokens" not in fields else "gliner_json"
        renamed = {role: name for role, name in fields.items() if name != FIELDS[role]}
        return {"@readers": name, "path": path, **({"fields": renamed} if renamed else {})}
    if fields:
        raise ConfigError(where, f"has fields, which the format {kind} has not", "no fields")
    if kind == "spacy":
        settings = {"gold_preproc": False, "max_length": 0, "limit": 0, "augmenter": None}
        return {"@readers": "spacy.Corpus.v1", "path": path, **settings}
    return {"@readers": "standoff" if kind == "brat" else kind, "path": path}


def _fields(value: Any, routed: Routed) -> dict[str, str]:
    where = routed.place("train.train_data.reader.fields")
    for role, name in (value or {}).items():
        if role not in FIELDS:
            raise unknown(str(role), where, list(FIELDS), ", ".join(FIELDS))
        if not isinstance(name, str) or not name:
            raise ConfigError(where, f"has {role}: {name!r}", "the name of a field")
    return dict(value or {})


def _holds_tags(path: str, fields: Mapping[str, str]) -> bool:
    """Tell whether the entities of a file are one tag a word, by its first record; False where it is not there."""
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
    words, found = (
        record.get(fields.get("tokens", FIELDS["tokens"])),
        record.get(fields.get("ner", FIELDS["ner"])),
    )
    return (
        isinstance(words, list)
        and isinstance(found, list)
        and bool(found)
        and len(words) == len(found)
        and all(isinstance(item, (str, int)) for item in found)
    )


def _chunk(value: Any, routed: Routed) -> dict[str, int] | None:
    """Return how long texts are cut, None where they are not."""
    where = routed.place("train.train_data.chunk")
    for key in value or {}:
        if key not in CHUNKING:
            raise unknown(str(key), where, list(CHUNKING), ", ".join(CHUNKING))
    try:
        if not value or not flag(value.get("enabled", True)):
            return None
        chunk = {
            "max_words": whole()(value.get("max_words", 200)),
            "stride": whole(0)(value.get("stride", 50)),
        }
    except WrongValue as error:
        raise error.at(where) from None
    if chunk["stride"] >= chunk["max_words"]:
        raise ConfigError(
            where, f"has a stride of {chunk['stride']}", f"less than max_words ({chunk['max_words']})"
        )
    return chunk
