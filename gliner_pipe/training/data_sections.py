"""What may stand for training and validation data: sections, paths, readers and lists of examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from confit import Config
from confit.typing import Validatable
from spacy.language import Language
from spacy.training import Example

import gliner_pipe.data.readers  # noqa: F401 (registers the readers)
from gliner_pipe.data.detect import ReaderLike, is_known, reader_of_dataset, reader_of_path, reader_of_records
from gliner_pipe.data.readers.json import are_records
from gliner_pipe.data.readers.tables import is_dataset
from gliner_pipe.data.splitting import Chunk
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.registry import registry


@dataclass(frozen=True)
class Section:
    """A section of data, ``[train.train_data]`` or ``[train.val_data]``.

    Parameters
    ----------
    reader
        Called with the pipeline, yields examples.
    randomize
        Shuffle before every pass, and split long texts at other places in every pass; true by default when
        training.
    max_length
        Split texts of more words than this; null leaves them whole.
    multi_sentence
        Fill the parts with as many sentences as fit; false makes every sentence a part.
    limit
        Number of documents to read.
    batch_size
        What a step draws from this data, e.g. ``"2000 words"``; the ``batch_size`` of the training by
        default.
    punct_chars
        Characters that may end a sentence, where the documents do not say where sentences begin.
    check_capitalized
        A sentence begins with a capital letter.
    min_newline_count
        So many line breaks end a sentence.
    labels
        Validation only: labels to ask for and to score.
    chunk
        Training only: cut documents into chunks of ``max_words`` words, of which two neighbours share ``stride``
        words; ``max_length`` and the other options above then hold for the chunks.
    weight
        Training only: how often a step draws from this data, relative to the other data (1 where it is not
        given). Without any weight each step draws one batch of each.
    """

    reader: ReaderLike
    randomize: bool | None = None
    max_length: int | None = None
    multi_sentence: bool = True
    limit: int | None = None
    batch_size: int | str | None = None
    punct_chars: Sequence[str] | None = None
    check_capitalized: bool = True
    min_newline_count: int = 1
    labels: Sequence[Any] | None = None
    chunk: Chunk | None = None
    weight: float | None = None

    def read(self, nlp: Language, where: str) -> list[Example]:
        """Return the examples, those without words left out.

        Raises
        ------
        DataError
            If there are none.
        """
        examples: list[Example] = []
        for example in self.reader(nlp):
            if self.limit and len(examples) >= self.limit:
                break
            if any(not token.is_space for token in example.reference):
                examples.append(example)
        if not examples:
            raise DataError(
                f"[{where}]", "holds no document with words", "at least one", "Check the path and the reader"
            )
        return examples


class DataArg(Validatable):  # type: ignore[misc]
    """Annotation of an argument that takes data in any of these forms; it becomes a list of sections."""

    where = "train.train_data"

    @classmethod
    def validate(cls, value: Any, config: Any = None) -> list[Section] | None:
        """Return the sections that `value` stands for; None for None."""
        if value is None:
            return None
        if isinstance(value, (list, tuple)) and not _are_data(value):
            if not value:
                raise ConfigError(
                    cls.where, "is an empty list", "examples, records, paths, readers or sections"
                )
            return [section for item in value for section in cls.validate(item) or []]
        if isinstance(value, Mapping) and not is_dataset(value) and "@readers" not in value:
            return [make_section(value, cls.where)]
        return [Section(make_reader(value, cls.where))]


class TrainData(DataArg):
    """Training data in any form."""


class ValidationData(DataArg):
    """Validation data in any form."""

    where = "train.val_data"


def make_section(options: Mapping[str, Any], where: str) -> Section:
    """Return the section that its options describe.

    Raises
    ------
    ConfigError
        If an option is unknown, missing or of the wrong kind.
    """
    known = [field.name for field in fields(Section)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigError(f"{where}.{unknown[0]}", "is no option of this section", ", ".join(known))
    if "reader" not in options:
        raise ConfigError(
            where, "has no reader", 'a section with e.g. @readers = "gliner_json"', f"Add [{where}.reader]"
        )
    for name, kinds in _KINDS.items():
        value = options.get(name)
        if value is not None and (
            not isinstance(value, kinds) or isinstance(value, bool) is not (kinds is bool)
        ):
            allowed = "true or false" if kinds is bool else "a whole number or null"
            raise ConfigError(f"{where}.{name}", f"is {value!r}", allowed)
        if isinstance(value, int) and value < 0:
            raise ConfigError(f"{where}.{name}", f"is {value}", "a whole number or null")
    values = {name: value for name, value in options.items() if value is not None}
    if "chunk" in values:
        values["chunk"] = Chunk.of(values["chunk"], f"{where}.chunk")
    weight = values.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < math.inf:
        raise ConfigError(f"{where}.weight", f"is {weight!r}", "a number above 0")
    return Section(**{**values, "reader": make_reader(options["reader"], f"{where}.reader")})


_KINDS: Mapping[str, type] = {
    "randomize": bool,
    "max_length": int,
    "multi_sentence": bool,
    "limit": int,
    "check_capitalized": bool,
    "min_newline_count": int,
}


def make_reader(value: Any, where: str) -> ReaderLike:
    """Return the reader that `value` stands for.

    Parameters
    ----------
    value
        A block, a path, a list of examples or of records, a data set of the package datasets, or a reader
        already. Of a folder or data set with several splits, training takes ``train`` and validation
        ``validation`` (or ``valid``, ``val``, ``dev``).
    where
        The section, for messages; whether it is for validation shows in its name.

    Raises
    ------
    ConfigError
        If it is nothing of that kind.
    """
    validation = "val_data" in where
    if is_dataset(value):
        return reader_of_dataset(value, validation=validation)
    if isinstance(value, Mapping):
        value = Config(value).resolve(registry=registry)
    if isinstance(value, (str, Path)):
        return reader_of_path(value, validation=validation)
    if _are_examples(value):
        examples = list(value)
        return lambda nlp: examples
    if are_records(value):
        return reader_of_records(value)
    if callable(value):
        made: ReaderLike = value
        return made
    raise ConfigError(
        where,
        f"is {type(value).__name__}",
        "a block of @readers, a path, a list of spaCy Examples or of records, a Dataset, or a function",
    )


def _are_data(value: Any) -> bool:
    """Say whether a list holds the data itself, and not sections, paths or readers."""
    return _are_examples(value) or (are_records(value) and is_known(value[0]) and "reader" not in value[0])


def _are_examples(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Example) for item in value)
    )
