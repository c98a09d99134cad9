"""Checks files of spaCy's binary format (``.spacy``) while spaCy's reader reads them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import srsly
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Corpus, Example
from spacy.training.corpus import walk_corpus

from gliner_pipe.data.annotations import USER_DATA_KEY, Supervision, supervision
from gliner_pipe.data.fields import shown, text_problem
from gliner_pipe.data.files import LONGEST_RECORD, MOST_EXPANSION, Place, open_bytes
from gliner_pipe.errors import DataError

_SUFFIX = ".spacy"
_DO = "Write the file again with DocBin.to_disk"


class CheckedCorpus:
    """Reads what spaCy's reader reads; files that it cannot read are a DataError.

    Parameters
    ----------
    corpus
        spaCy's reader.
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus, self.path = corpus, corpus.path

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """Yield the examples.

        Raises
        ------
        DataError
            If a file is damaged or has another format, or annotations of this package in it have wrong types.
        """
        for file in walk_corpus(self.path, _SUFFIX):
            check_file(Path(file))
        examples, number = iter(self.corpus(nlp)), 0
        while (example := self._next(examples)) is not None:
            number += 1
            place = Place(f"{self.path} (document {number})")
            if problem := text_problem(example.reference.text):
                raise place.error("text", *problem)
            check_supervision(place, example.reference)
            yield example

    def _next(self, examples: Iterator[Example]) -> Example | None:
        try:
            return next(examples, None)
        except Exception as error:  # of any kind, depending on what is wrong with the file
            found = f"cannot be read: {type(error).__name__}: {error}"
            raise DataError(str(self.path), found, "documents of spaCy", _DO) from error


def check_file(file: Path) -> None:
    """Refuse a file of documents that is damaged.

    Raises
    ------
    DataError
        If it is incomplete or too large after decompression, or its parts do not fit each other.
    """
    with open_bytes(file) as stream:
        data = stream.read()
    most = max(LONGEST_RECORD, MOST_EXPANSION * len(data))
    zipped = zlib.decompressobj()
    try:
        content = zipped.decompress(data, most)
        found: Any = srsly.msgpack_loads(content) if zipped.eof else None
    except Exception as error:  # srsly raises errors of many kinds
        allowed = "documents of spaCy"
        raise DataError(str(file), f"is no file of {allowed}: {error}", allowed, _DO) from None
    if zipped.unconsumed_tail:
        raise DataError(str(file), f"has more than {most:,} bytes after decompression", "documents", _DO)
    if problem := "is cut off" if found is None else _problem(found):
        raise DataError(str(file), problem, "documents of spaCy", _DO)


def _problem(found: Any) -> str:
    """Return what is wrong with the content of a file; empty if nothing is."""
    kinds = {"attrs": list, "tokens": bytes, "spaces": bytes, "lengths": bytes, "strings": list, "cats": list}
    if not isinstance(found, Mapping):
        return f"holds {shown(found)}"
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            return f"has {shown(found.get(name))} as {name}"
    if not found["attrs"] or len(found["lengths"]) % 4:
        return "has no attributes of tokens, or a damaged list of lengths"
    lengths = np.frombuffer(found["lengths"], dtype="int32").astype("int64")
    total = int(lengths.sum())
    if (
        (lengths < 0).any()
        or len(found["tokens"]) != 8 * total * len(found["attrs"])
        or len(found["spaces"]) != total
    ):
        return f"has lengths of documents that do not fit its tokens ({total:,})"
    for name in ("cats", "flags", "span_groups", "user_data"):
        if name in found and len(found[name]) != len(lengths):
            return f"has {len(found[name])} {name} for {len(lengths)} documents"
    return ""


@cache
def _schema() -> type[BaseModel]:
    """Return the types of :class:`Supervision` as a model that refuses others."""
    fields: dict[str, Any] = {name: (kind | None, None) for name, kind in get_type_hints(Supervision).items()}
    return create_model("Supervision", __config__=ConfigDict(strict=True, extra="forbid"), **fields)


def check_supervision(place: Place, doc: Doc) -> None:
    """Refuse annotations of this package in ``doc.user_data`` that have other types, or name entities that are none.

    Raises
    ------
    DataError
        With the name of the annotation.
    """
    stored = doc.user_data.get(USER_DATA_KEY)
    if stored is None:
        return
    where = f"user_data.{USER_DATA_KEY}"
    if not isinstance(stored, dict):
        raise place.error(where, f"is {shown(stored)}", "a mapping", _DO)
    known = supervision(doc)
    try:
        _schema().model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, (where, *first["loc"])))
        raise place.error(name, f"is {shown(first['input'])}", first["msg"], _DO) from None
    groups = [len(group) for group in doc.spans.values()]
    entities = max([len(doc.ents), *groups])
    _check_items(place, f"{where}.relations", known.get("relations") or [], 2, entities, "entities")
    _check_items(place, f"{where}.links", known.get("links") or [], 4, len(doc) + 1, "tokens")


def _check_items(place: Place, name: str, items: list[list[Any]], ends: int, most: int, counted: str) -> None:
    for number, item in enumerate(items):
        numbers = item[:ends]
        right = all(type(one) is int and 0 <= one < most for one in numbers)
        if len(item) != ends + 1 or not right or not isinstance(item[-1], str):
            allowed = f"{ends} numbers of {counted} from 0 to {most - 1}, and a label"
            raise place.error(f"{name}[{number}]", f"is {shown(item)}", allowed, _DO)
