"""Which files, or parts of files, a path stands for as shards."""

from __future__ import annotations

import glob
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from gliner_pipe.data.files import find_files
from gliner_pipe.errors import DataError
from gliner_pipe.prediction.shards import BROKEN, SUFFIXES, Shard, ending, lines_of, open_bytes, open_table


def holds_shards(source: str | Path) -> bool:
    """Say whether a path is a shard, or a folder or pattern with shards among its files."""
    path = Path(source).expanduser()
    if path.is_dir() or (glob.has_magic(str(source)) and not path.exists()):
        try:
            return any(ending(file) for file in find_files(source, (".gz", *SUFFIXES)))
        except DataError:
            return False
    return ending(path) is not None


def find_shards(source: str | Path, format: str | None = None, shard_size: int | None = None) -> list[Shard]:
    """Return the shards that a path stands for.

    Parameters
    ----------
    source
        A file, a folder or a pattern such as ``"texts/**/*.parquet"``.
    format
        Of the output: ``"parquet"``, ``"jsonl"`` or ``"jsonl.gz"``; that of each file when not given.
    shard_size
        Rows of an output file at most.

    Returns
    -------
    list of Shard
        In order of their names.

    Raises
    ------
    DataError
        If there is none, or two files would become one.
    """
    path = Path(source).expanduser()
    files = [file for file in find_files(source, (".gz", *SUFFIXES)) if ending(file)]
    if not files:
        raise DataError(str(source), "holds no shards", f"files that end in {', '.join(SUFFIXES)}")
    root = path if path.is_dir() else _root(str(path)) if not path.exists() else path.parent
    shards: list[Shard] = []
    taken: dict[str, Path] = {}
    for file in files:
        suffix = ending(file) or ""
        stem = file.relative_to(root).as_posix()[: -len(suffix)]
        own = suffix.lstrip(".").replace("ndjson", "jsonl")
        name = f"{stem}.{format or own}"
        if name in taken:
            raise DataError(
                str(file),
                f"would become {name}, as would {taken[name]}",
                "files whose names differ by more than the ending",
                "Rename one, or give a pattern that matches one of them",
            )
        taken[name] = file
        shards += _cut(Shard(file, name), shard_size) if shard_size else [Shard(file, name)]
    return shards


def _root(pattern: str) -> Path:
    parts = Path(pattern).parts
    plain = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:plain])


def _cut(shard: Shard, size: int) -> list[Shard]:
    """Cut a shard into pieces of `size` rows."""
    starts = [(0, 0)]
    with suppress(*BROKEN):  # a damaged file is cut as far as it can be read; reading says what is wrong
        if ending(shard.path) == ".parquet":
            with open_table(shard.path) as table:
                starts = [(start, 0) for start in range(0, max(table.metadata.num_rows, 1), size)]
        else:
            offset = 0
            with open_bytes(shard.path) as (stream, _):
                for number, line in enumerate(lines_of(stream, shard.path)):
                    if number and number % size == 0:
                        starts.append((number, offset))
                    offset += len(line)
    suffix = next(suffix for suffix in SUFFIXES if shard.name.endswith(suffix))
    stem = shard.name[: -len(suffix)]
    ends: list[int | None] = [start for start, _ in starts[1:]]
    return [
        replace(shard, name=f"{stem}-{number:05d}{suffix}", start=start, stop=stop, offset=offset)
        for number, ((start, offset), stop) in enumerate(zip(starts, [*ends, None], strict=True))
    ]
