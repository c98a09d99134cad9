"""Vectors of short texts on disk, for any number of processes at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gliner_pipe.errors import ConfigError

#: Texts that are asked for at once; SQLite takes at least 999.
TEXTS_AT_ONCE = 500
#: Seconds that a process waits for another one that writes.
PATIENCE = 60.0


class VectorStore:
    """One SQLite file with the vectors that one set of weights makes.

    A process that is killed while it writes leaves what was there before. The file is opened for each call, so that a
    forked process has none of its parent's.

    Parameters
    ----------
    folder
        Made if it is not there.
    key
        Tells the weights from others: the name of the file.
    size
        Width of the vectors.
    where
        Section that errors name.
    """

    def __init__(self, folder: Path, key: str, size: int, where: str) -> None:
        self.path = folder.expanduser() / f"{key}.sqlite"
        self.size = size
        self.where = where

    def get(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the vectors that are there, on the CPU."""
        found: dict[str, Tensor] = {}
        with self._open() as file:
            for at in range(0, len(texts), TEXTS_AT_ONCE):
                part = texts[at : at + TEXTS_AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = file.execute(
                    f"SELECT text, vector FROM vectors WHERE text IN ({marks})", part
                ).fetchall()
                numbers = np.frombuffer(b"".join(blob for _, blob in rows), "<f4").reshape(
                    len(rows), self.size
                )
                found.update(zip((text for text, _ in rows), torch.from_numpy(numbers.copy()), strict=True))
        return found

    def put(self, texts: Sequence[str], vectors: Tensor) -> None:
        """Add the vectors of texts, ``(texts, hidden)``, all of them or none."""
        numbers = vectors.detach().float().cpu().numpy().astype("<f4")
        rows = ((text, row.tobytes()) for text, row in zip(texts, numbers, strict=True))
        with self._open() as file:
            file.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self.path.touch()  # sqlite would keep a new file from a group that the umask lets write
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as file, file:
                file.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (text TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
                )
                yield file
        except (OSError, sqlite3.Error, ValueError) as error:
            raise ConfigError(
                self.where,
                f"{self.path} cannot be used ({error})",
                "a folder that can be written, or null",
                "Remove the file if it is damaged: it holds nothing that is not made again",
            ) from error
