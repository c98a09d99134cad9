"""A cache of label vectors on disk, for any number of processes at once."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gliner_pipe.errors import ConfigError

#: Largest number of texts in a query; SQLite supports at least 999.
TEXTS_AT_ONCE = 500
#: Seconds to wait while another process writes.
PATIENCE = 60.0


class VectorStore:
    """An SQLite file with the vectors of one set of weights.

    If a process is killed while writing, the earlier content is preserved. The file is opened for each call, so that a
    forked process does not share the connection of its parent.

    Parameters
    ----------
    folder
        Created if missing.
    key
        Name of the file, different for each set of weights.
    size
        Width of the vectors.
    where
        Section, for errors.
    """

    def __init__(self, folder: Path, key: str, size: int, where: str) -> None:
        self.path = folder.expanduser() / f"{key}.sqlite"
        self.size = size
        self.where = where

    def get(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the stored vectors of texts, on the CPU."""
        found: dict[str, Tensor] = {}
        with self._open() as file:
            for at in range(0, len(texts), TEXTS_AT_ONCE):
                part = texts[at : at + TEXTS_AT_ONCE]
                placeholders = ",".join("?" * len(part))
                rows = file.execute(
                    f"SELECT text, vector FROM vectors WHERE text IN ({placeholders})",  # noqa: S608 (? only)
                    part,
                ).fetchall()
                vectors = np.frombuffer(b"".join(blob for _, blob in rows), "<f4").reshape(
                    len(rows), self.size
                )
                found.update(zip((text for text, _ in rows), torch.from_numpy(vectors.copy()), strict=True))
        return found

    def put(self, texts: Sequence[str], vectors: Tensor) -> None:
        """Store the vectors of texts, ``(texts, hidden)``, in one transaction."""
        array = vectors.detach().float().cpu().numpy().astype("<f4")
        rows = ((text, row.tobytes()) for text, row in zip(texts, array, strict=True))
        with self._open() as file:
            file.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self.path.touch()  # sqlite would create it without group access, whatever the umask
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as file, file:
                file.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (text TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"
                )
                yield file
        except (OSError, sqlite3.Error, ValueError) as error:
            raise ConfigError(
                self.where,
                f"{self.path} cannot be used ({error})",
                "a writable folder, or null",
                "Delete the file if it is damaged: the vectors are then computed again",
            ) from error
