"""The reader ``auto``: the reader of the format that files have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gliner_pipe.data.detect import ReaderLike, reader_of_path
from gliner_pipe.registry import registry


@registry.readers.register("auto")
def auto(path: str | Path | list[str], *, validation: bool = False, **options: Any) -> ReaderLike:
    """Detect the format of files by name ending, columns and first record, and return the reader for it.

    Parameters
    ----------
    path
        File, folder, pattern, or a list of files of one format.
    validation
        Whether to read the validation split of a folder with several splits, rather than the training split.
    options
        Options of the detected reader, such as ``span_setter``; spaCy's reader takes none.

    Raises
    ------
    DataError
        If a file is missing, or its format cannot be detected.
    ConfigError
        If the detected reader does not have one of the options.
    """
    return reader_of_path(path, validation=validation, **options)
