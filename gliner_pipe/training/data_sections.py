"""The forms of training and validation data: sections, paths, readers and lists of examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from confit import Config
from confit.typing import Validatable
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from spacy.language import Language
from spacy.training import Corpus, Example

from gliner_pipe.data.detect import (
    FIRST_RECORDS,
    ReaderLike,
    is_known,
    reader_of_dataset,
    reader_of_path,
    reader_of_records,
)
from gliner_pipe.data.on_disk import Storage, has_words, is_large, on_disk
from gliner_pipe.data.readers.json_records import are_records, tagged_sentences
from gliner_pipe.data.readers.tables import is_dataset
from gliner_pipe.data.spacy_files import CheckedCorpus
from gliner_pipe.data.splitting import Chunk
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.registry import registry
from gliner_pipe.util.options import checked, refuse_unknown
from gliner_pipe.util.ranges import Amount, Positive, Share

Examples = TypeVar("Examples", bound=Sequence[Example])


@dataclass(frozen=True, config=ConfigDict(arbitrary_types_allowed=True, strict=True))
class Section:
    """A section of data, ``[train.train_data]`` or ``[train.val_data]``.

    Parameters
    ----------
    reader
        Called with the pipeline, yields examples.
    randomize
        Shuffle before every pass, and split long texts at other points in every pass; true by default for training.
    max_length
        Split texts of more words than this; null does not split.
    multi_sentence
        Fill each part with as many sentences as fit; false makes every sentence a part.
    limit
        Maximum number of documents to read.
    batch_size
        Size of the batches drawn from this data, e.g. ``"2000 words"``; the ``batch_size`` of the training by default.
    punct_chars
        Characters that may end a sentence, for documents without sentence boundaries.
    check_capitalized
        Start a sentence only at a capital letter.
    min_newline_count
        Number of line breaks that end a sentence.
    labels
        Validation only: labels to predict and to score.
    chunk
        Training only: split documents into chunks of ``max_words`` words; neighbouring chunks share ``stride`` words.
        ``max_length`` and the other options above then apply to the chunks.
    weight
        Training only: frequency of draws from this data relative to the other data (1 where it is not given). Without
        any weight each step draws one batch of each.
    keep_in_memory
        Training only: whether to hold all examples in memory, or to keep them on disk and make them when they are
        drawn, with the same result. By default on disk where the data files have more than 20 MB.
    empty_texts
        Training only: share of the texts without entities that each pass draws, others in every pass. By default all.
    """

    reader: Any
    randomize: bool | None = None
    max_length: Amount | None = None
    multi_sentence: bool = True
    limit: Amount | None = None
    batch_size: Any = None
    punct_chars: Any = None
    check_capitalized: bool = True
    min_newline_count: Amount = 1
    labels: Any = None
    chunk: Chunk | None = None
    weight: Positive | None = None
    keep_in_memory: bool | None = None
    empty_texts: Share | None = None

    def __post_init__(self) -> None:
        if isinstance(self.reader, Corpus):
            object.__setattr__(self, "reader", CheckedCorpus(self.reader))

    def read(self, nlp: Language, where: str) -> list[Example]:
        """Return the examples that have words; the report of the reader counts the others.

        Raises
        ------
        DataError
            If there are none.
        """
        examples: list[Example] = []
        for example in self.reader(nlp):
            if self.limit and len(examples) >= self.limit:
                break
            if has_words(example.reference):
                examples.append(example)
            elif isinstance(report := getattr(self.reader, "report", None), Counter):
                report["text without words (skipped)"] += 1
        return _some(examples, where)

    def open(self, nlp: Language, where: str, storage: Storage) -> Sequence[Example]:
        """Return what `read` returns, in memory or on disk, as ``keep_in_memory`` says.

        Parameters
        ----------
        nlp
            The pipeline.
        where
            The section, for messages.
        storage
            Where examples on disk are written to.
        """
        in_memory = self.keep_in_memory
        if not (in_memory is False or (in_memory is None and is_large(self.reader))):
            return self.read(nlp, where)
        # longer documents may be split
        whole = None if self.chunk is None else self.chunk.max_words
        if self.max_length:
            whole = min(self.max_length, whole or self.max_length)
        rules = storage.rules._replace(whole=whole if self.multi_sentence else 0)
        return _some(on_disk(self.reader, nlp, replace(storage, rules=rules), self.limit), where)


def _some(examples: Examples, where: str) -> Examples:
    if not len(examples):
        raise DataError(
            f"[{where}]", "has no document with words", "at least one", "Check the path and the reader"
        )
    return examples


class DataArg(Validatable):  # type: ignore[misc]
    """Annotation of an argument that accepts data in any of these forms, and converts it to a list of sections."""

    where = "train.train_data"

    @classmethod
    def validate(cls, value: Any, config: Any = None) -> list[Section] | None:
        """Return the sections for `value`; None for None."""
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
    """Return the section with the given options.

    Raises
    ------
    ConfigError
        If an option is unknown, missing or invalid.
    """
    refuse_unknown(Section, options, where)
    if "reader" not in options:
        raise ConfigError(
            where, "has no reader", 'a section with e.g. @readers = "gliner_json"', f"Add [{where}.reader]"
        )
    values = {name: value for name, value in options.items() if value is not None}
    if "chunk" in values:
        values["chunk"] = checked(Chunk, values["chunk"], f"{where}.chunk")
    values["reader"] = make_reader(options["reader"], f"{where}.reader")
    return checked(Section, values, where)


def make_reader(value: Any, where: str) -> ReaderLike:
    """Return the reader for `value`.

    Parameters
    ----------
    value
        A block, a path, a list of examples or of records, a data set of the package datasets, or a reader.
        Of a folder or data set with several splits, training reads ``train`` and validation reads
        ``validation`` (or ``valid``, ``val``, ``dev``).
    where
        The section, for messages; its name says whether it is for validation.

    Raises
    ------
    ConfigError
        If `value` is none of these.
    """
    validation = "val_data" in where
    value = tagged_sentences(value) or value
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
    """Return whether a list holds the data itself, and not sections, paths or readers."""
    if _are_examples(value) or tagged_sentences(value) is not None:
        return True
    return are_records(value) and "reader" not in value[0] and any(map(is_known, value[:FIRST_RECORDS]))


def _are_examples(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Example) for item in value)
    )
