"""What may stand for training and validation data: sections, paths, readers and lists of examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from confit import Config
from confit.typing import Validatable
from spacy.language import Language
from spacy.training import Example

import gliner_pipe.data.readers  # noqa: F401 (registers the readers)
from gliner_pipe.data.files import read_json
from gliner_pipe.data.readers.conll import ConllReader
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.registry import registry

#: spaCy's contract: a pipeline in, examples out.
ReaderLike = Callable[[Language], Iterable[Example]]

#: Name of the reader by the end of a file's name.
READERS_BY_SUFFIX: Mapping[str, str] = {
    **dict.fromkeys(ConllReader.suffixes, "conll"),
    ".ann": "standoff",
    ".spacy": "spacy.Corpus.v1",
}
#: Options that spaCy's reader has no defaults for.
READER_OPTIONS = {"spacy.Corpus.v1": {"gold_preproc": False, "max_length": 0, "limit": 0, "augmenter": None}}
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")


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
            if len(example.reference):
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
        if isinstance(value, (list, tuple)) and not _are_examples(value):
            if not value:
                raise ConfigError(cls.where, "is an empty list", "examples, paths, readers or sections")
            return [section for item in value for section in cls.validate(item) or []]
        if isinstance(value, Mapping):
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
    """Return the reader that `value` stands for: a block, a path, a list of examples, or a reader already."""
    if isinstance(value, Mapping):
        value = Config(value).resolve(registry=registry)
    if isinstance(value, (str, Path)):
        return reader_of_path(Path(value))
    if _are_examples(value):
        examples = list(value)
        return lambda nlp: examples
    if callable(value):
        made: ReaderLike = value
        return made
    raise ConfigError(
        where,
        f"is {type(value).__name__}",
        "a block of @readers, a path, a list of spaCy Examples, or a function",
    )


def reader_of_path(path: Path) -> ReaderLike:
    """Return the reader for a file or folder, chosen by the ends of file names and the first record.

    Raises
    ------
    DataError
        If the file is missing, or its format cannot be told.
    """
    if not path.exists():
        raise DataError(
            str(path), "does not exist", "a file or a folder", f"The working folder is {Path.cwd()}"
        )
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        suffix = file.suffix.lower()
        if suffix in JSON_SUFFIXES:
            _, record = next(iter(read_json(file)))
            name = "gliner_json" if isinstance(record, dict) and "tokenized_text" in record else "jsonl"
        elif suffix == ".txt" and file.with_suffix(".ann").exists():
            name = "standoff"
        elif suffix in READERS_BY_SUFFIX:
            name = READERS_BY_SUFFIX[suffix]
        else:
            continue
        block = {"@readers": name, "path": str(path), **READER_OPTIONS.get(name, {})}
        made: ReaderLike = Config({"reader": block}).resolve(registry=registry)["reader"]
        return made
    suffixes = ", ".join([*JSON_SUFFIXES, *READERS_BY_SUFFIX])
    raise DataError(
        str(path), "has no known format", f"files that end in {suffixes}", "Name a reader: @readers = ..."
    )


def _are_examples(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Example) for item in value)
    )
