"""Detects the reader of annotated data by file name ending, columns and first record, for all commands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from glob import has_magic
from itertools import islice
from pathlib import Path
from typing import Any

from confit import Config
from spacy.language import Language
from spacy.training import Example

from gliner_pipe.data.exports import is_export, unwrapped
from gliner_pipe.data.files import JSON_SUFFIXES, find_files, read_json, read_lines
from gliner_pipe.data.readers.bio import BioReader
from gliner_pipe.data.readers.cells import TAGS_NAMES, TOKENS_NAMES, cell_of, guess_columns, is_one_word
from gliner_pipe.data.readers.conll import ConllReader
from gliner_pipe.data.readers.gliner2_json import Gliner2JsonReader, is_gliner2
from gliner_pipe.data.readers.json import GlinerJsonReader, JsonlReader
from gliner_pipe.data.readers.tables import (
    CSV_SUFFIXES,
    dataset_columns,
    dataset_rows,
    saved_dataset,
    splits_of,
    table_columns,
)
from gliner_pipe.data.spacy_files import CheckedCorpus
from gliner_pipe.data.tag_lists import is_tag_list
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.registry import registry

#: The contract of spaCy: a pipeline in, examples out.
ReaderLike = Callable[[Language], Iterable[Example]]

SPACY = "spacy.Corpus.v1"
#: The name of a built-in reader by file name ending, where the ending decides. Other readers are found by ``suffixes``.
READERS_BY_SUFFIX: Mapping[str, str] = {
    **dict.fromkeys(ConllReader.suffixes, "conll"),
    ".ann": "standoff",
    ".spacy": SPACY,
    ".csv": "bio",
    ".parquet": "bio",
}
#: Files that a folder may contain beside its data, so that they decide only if there is nothing else.
WEAK_SUFFIX = ".txt"
#: Number of records of a JSON file in which a known format is looked for.
FIRST_RECORDS = 100
#: Options of spaCy's reader that have no default.
SPACY_OPTIONS = {"gold_preproc": False, "max_length": 0, "limit": 0, "augmenter": None}
#: Names of the splits to train and to validate on, in order of preference.
TRAINING_SPLITS = ("train", "training")
VALIDATION_SPLITS = ("validation", "valid", "val", "dev", "eval")


def reader_of_path(
    path: str | Path | Sequence[str], *, validation: bool = False, name: str = "auto", **options: Any
) -> ReaderLike:
    """Return the reader of a file, a folder, a pattern, or a list of files of one format.

    Parameters
    ----------
    path
        File, folder or pattern, or a list of files; the first one decides.
    validation
        Whether to read the validation split of a folder with several splits, rather than the training split.
    name
        Name of the reader (``"spacy"`` is short for ``"spacy.Corpus.v1"``), or ``"auto"`` to detect it.
    options
        Options of the reader, such as ``span_setter``; spaCy's reader takes none.

    Raises
    ------
    DataError
        The file is missing, or its format cannot be detected.
    ConfigError
        There is no such reader, or a folder has several splits and none of them fits.
    """
    known = registry.readers.get_available()
    if name not in ("auto", "spacy", *known):
        ours = sorted({"auto", "spacy", *(one for one in known if "." not in one)})
        raise ConfigError("reader", f"is {name!r}", ", ".join(ours))
    if not isinstance(path, (str, Path)):
        if not path:
            raise ConfigError("reader.path", "is an empty list", "files")
        first = detect_reader(path[0], validation=validation) if name == "auto" else {"@readers": name}
        return _resolved({**first, "path": list(map(str, path)), **options})
    block: dict[str, Any] = {"@readers": SPACY if name == "spacy" else name, "path": str(path)}
    if name == "auto":
        block = detect_reader(path, validation=validation)
    elif name == "bio" and Path(path).exists():
        detected = detect_reader(path, validation=validation)
        block = detected if detected["@readers"] == "bio" else block
    if block["@readers"] != SPACY:
        return _resolved({**block, **options})
    block = {**SPACY_OPTIONS, **block}
    if Path(block["path"]).exists():
        return CheckedCorpus(_resolved(block))
    # The reader of spaCy takes no patterns.
    files = find_files(block["path"], (".spacy",))
    corpora = [CheckedCorpus(_resolved({**block, "path": str(file)})) for file in files]
    return lambda nlp: (example for corpus in corpora for example in corpus(nlp))


def detect_reader(path: str | Path, *, validation: bool = False) -> dict[str, Any]:
    """Return the config block of the reader of a file, a folder or a pattern: ``@readers``, ``path`` and options.

    Parameters
    ----------
    path
        File, folder or pattern. The first file of a known format decides.
    validation
        Whether to read the validation split of a folder with several splits, rather than the training split.

    Raises
    ------
    DataError
        The file is missing, or its format cannot be detected.
    ConfigError
        A folder has several splits, and none of them fits.
    """
    here = Path(path).expanduser()
    if not here.exists() and not has_magic(str(path)):
        do = (
            f'Check the path; the working folder is {Path.cwd()}. For a data set of the hub: @readers = "bio"'
        )
        raise DataError(str(path), "does not exist", "a file, a folder or a pattern", do)
    if saved_dataset(here):
        split = _choose_split(splits_of(here), str(path), validation)
        return {**_table_block(here / split if split else here, split), "path": str(path)}
    suffixes = (*JSON_SUFFIXES, *CSV_SUFFIXES, *READERS_BY_SUFFIX)
    if here.suffix.lower() not in suffixes:  # packages with readers are imported where one may be needed only
        suffixes += tuple(_further_readers())
    if here.is_dir() and (file := _file_of_split(here, validation)) is not None:
        here = file
    files = [file for file in find_files(here, suffixes) if file.suffix.lower() in suffixes]
    if not files:
        allowed = f"files ending in {', '.join(dict.fromkeys(suffixes))}"
        raise DataError(str(path), "has no known format", allowed, "Name a reader: @readers = ...")
    block = _file_block(min(files, key=lambda file: file.suffix.lower() == WEAK_SUFFIX))
    if block["@readers"] == "bio" and here.is_dir():
        block["split"] = _choose_split(splits_of(here), str(path), validation) or "train"
    return {**block, "path": str(here)}


def reader_of_records(records: Sequence[Any]) -> ReaderLike:
    """Return the reader of records in memory: GLiNER's, GLiNER2's, texts with offsets, or words with tags.

    Parameters
    ----------
    records
        Mappings, or spaCy's pairs of a text and its annotations.

    Raises
    ------
    DataError
        The first records have none of these forms.
    """
    number, record = next(
        ((i, one) for i, one in enumerate(records[:FIRST_RECORDS]) if is_known(one)), (0, records[0])
    )
    block = _record_block(f"record {number}", record, "Name the fields: gliner_json(records, fields={...})")
    if block["@readers"] in ("jsonl", "gliner2_json"):
        return (JsonlReader if block["@readers"] == "jsonl" else Gliner2JsonReader)(records)
    items = [dict(record) for record in records]
    fields = block.get("fields")
    if block["@readers"] == "bio":
        fields = {"tokens": block["tokens_column"], "ner": block["tags_column"]}
        # One word in each row, or lists in an object.
        if not isinstance(records[0].get(fields["tokens"]), list):
            return BioReader(items, tokens_column=fields["tokens"], tags_column=fields["ner"])
    return GlinerJsonReader(items, fields=fields)


def reader_of_dataset(data: Any, *, validation: bool = False) -> ReaderLike:
    """Return the reader of a table in memory: a data set of the package datasets, a data frame, or a mapping of these.

    Rows without a column of tags that are records, such as texts with entities, are read as records.

    Raises
    ------
    DataError
        The columns of words and tags cannot be detected.
    ConfigError
        There are several splits, and none of them fits.
    """
    split = _choose_split(splits_of(data), "the data set", validation)
    part = data[split] if isinstance(data, dict) else data
    if _record_reader(next(dataset_rows(part), {})) != "bio":
        return reader_of_records(list(dataset_rows(part)))
    tokens, tags = _columns("the data set", dataset_columns(part))
    return BioReader(part, tokens_column=tokens, tags_column=tags)


def is_known(record: Any) -> bool:
    """Whether a reader exists for `record`, a mapping or a pair of a text and its annotations."""
    if is_export(record) or is_gliner2(record):
        return True
    return isinstance(record, Mapping) and (
        bool({"tokenized_text", "text"} & record.keys()) or guess_columns(record) is not None
    )


def _file_block(file: Path) -> dict[str, Any]:
    """Return the reader of one file with a known ending, and its options."""
    suffix = file.suffix.lower()
    if suffix in JSON_SUFFIXES:
        read = (one for place, value in read_json(file) for one in unwrapped(place, value))
        records = islice(read, FIRST_RECORDS)
        first = next(records)
        # Tools leave out fields that are empty, so the first record may tell nothing.
        place, record = (
            first if is_known(first[1]) else next((one for one in records if is_known(one[1])), first)
        )
        return _record_block(str(place), record, "Name a reader: @readers = ...")
    if suffix == ".txt" and file.with_suffix(".ann").exists():
        return {"@readers": "standoff"}
    if suffix in (*CSV_SUFFIXES, ".parquet") and not _is_column_file(file):
        return _table_block(file)
    return {"@readers": READERS_BY_SUFFIX.get(suffix) or _further_readers()[suffix]}


def _further_readers() -> dict[str, str]:
    """Return the names of all registered readers by the endings of their files."""
    registered = registry.readers.get_all().items()
    return {suffix: name for name, reader in registered for suffix in getattr(reader, "suffixes", ())}


def _record_block(where: str, record: Any, do: str) -> dict[str, Any]:
    """Return the reader of records like `record`, and its options."""
    if not is_known(record):
        fields = ", ".join(map(str, record)) if isinstance(record, Mapping) else ""
        found = f"has the fields {fields or '(none)'}" if isinstance(record, Mapping) else "is not an object"
        allowed = (
            "tokenized_text and ner, text and entities, input and output, tokens and tags, or the export of an "
            "annotation tool"
        )
        raise DataError(where, found, allowed, do)
    if is_gliner2(record):
        return {"@readers": "gliner2_json"}
    guessed = guess_columns(record) if isinstance(record, Mapping) else None
    if "ner" in record and "tokenized_text" in record:
        return {"@readers": "gliner_json"}
    if guessed is not None and ("text" not in record or _are_words(cell_of(record, guessed[0]))):
        tokens, tags = guessed
        if is_tag_list(cell_of(record, tags)) or tags != "ner":
            return {"@readers": "bio", "tokens_column": tokens, "tags_column": tags}
        return {"@readers": "gliner_json", "fields": {"tokens": tokens, "ner": tags}}
    return {"@readers": "gliner_json" if "tokenized_text" in record else "jsonl"}


def _record_reader(record: Mapping[str, Any]) -> str:
    """Return the name of the reader of records like `record`; ``"bio"`` for a row of a table."""
    if not is_known(record):
        return "bio"
    name: str = _record_block("", record, "")["@readers"]
    return name


def _are_words(value: Any) -> bool:
    """Whether `value` may be a list of words; the tokens of Prodigy are mappings."""
    return isinstance(value, list) and not any(isinstance(item, Mapping) for item in value)


def _table_block(path: Path, split: str = "") -> dict[str, Any]:
    tokens, tags = _columns(str(path), table_columns(path))
    block = {"@readers": "bio", "tokens_column": tokens, "tags_column": tags}
    return {**block, "split": split} if split else block


def _columns(where: str, columns: Sequence[str]) -> tuple[str, str]:
    """Return the columns of words and of tags."""
    guessed = guess_columns(columns)
    if guessed is None:
        raise DataError(
            where,
            f"has the columns {_some(columns)}, from which words and tags cannot be told apart",
            f"one of {', '.join(TOKENS_NAMES)} and one of {', '.join(TAGS_NAMES)}",
            'Name them: @readers = "bio", tokens_column = ..., tags_column = ...',
        )
    return guessed


def _some(names: Sequence[str]) -> str:
    """Return names for a message, without those that are too many."""
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _is_column_file(file: Path) -> bool:
    """Whether a .tsv file has one word on each line, without numbers of sentences; a header may name its columns."""
    if file.suffix.lower() != ".tsv":
        return False
    lines = (line for _, line in read_lines(file) if line.strip())
    header, first = ([cell.strip() for cell in next(lines, "").split("\t")] for _ in range(2))
    guessed = guess_columns(header)
    if guessed is None:
        return True
    words = is_one_word(dict(zip(header, first, strict=False)).get(guessed[0]))
    return words and guessed == (header[0], header[-1])


def _file_of_split(folder: Path, validation: bool) -> Path | None:
    """Return the JSON file of the split to read, if the files of `folder` are named after several splits."""
    known = (*TRAINING_SPLITS, "test", *VALIDATION_SPLITS)
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in JSON_SUFFIXES]
    splits = {file.stem.lower(): file for file in files if file.stem.lower() in known}
    return splits[_choose_split(list(splits), str(folder), validation)] if len(splits) > 1 else None


def _choose_split(splits: Sequence[str], where: str, validation: bool) -> str:
    """Return the split to read; empty if the data has a single one."""
    wanted = VALIDATION_SPLITS if validation else TRAINING_SPLITS
    found = next((name for name in wanted if name in splits), None)
    if found is None and splits:
        purpose = "validate" if validation else "train"
        raise ConfigError(
            f"train.{'val_data' if validation else 'train_data'}",
            f"is {where}, which has the splits {', '.join(splits)}, none to {purpose} on",
            ", ".join(wanted),
            'Choose a split: @readers = "bio", split = ..., or name the file',
        )
    return found or ""


def _resolved(block: dict[str, Any]) -> ReaderLike:
    resolved: ReaderLike = Config({"reader": block}).resolve(registry=registry)["reader"]
    return resolved
