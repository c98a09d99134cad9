"""Every validation as a row of a table."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from gliner_pipe.registry import registry
from gliner_pipe.training.loggers.base import RunInfo, flatten


@registry.loggers.register("csv")
class CsvLogger:
    """Writes one row a validation: step, mean loss, learning rates, speed and all scores, e.g.
    ``scores.ner.micro.f``.

    The first validation sets the columns. Should a later one bring others, the file is written anew with them
    at the end, so that every row has the columns of the header. A resumed training keeps the rows up to the step
    that it goes on from and drops later ones.

    Parameters
    ----------
    file_name
        Name of the file beside the models.
    """

    def __init__(self, file_name: str = "train_log.csv") -> None:
        self.file_name = file_name
        self._path: Path | None = None
        self._file: TextIO | None = None
        self._columns: list[str] = []
        self._rows: list[dict[str, Any]] = []

    def start(self, run: RunInfo) -> None:
        """Begin a new file, or go on with that of the training that is resumed."""
        self._path = run.folder / self.file_name
        self._columns, self._rows = _read(self._path, run.resumed_step) if run.resumed_step else ([], [])
        self._rewrite()

    def step(self, record: Mapping[str, Any]) -> None:
        """Do nothing: a row stands for all steps since the last one."""

    def validation(self, record: Mapping[str, Any]) -> None:
        """Write a row."""
        row = {name: value for name, value in flatten(record) if not isinstance(value, (list, tuple))}
        self._rows.append(row)
        added = [name for name in row if name not in self._columns]
        if added:
            self._columns += added
            self._rewrite()
        elif self._file is not None:
            csv.DictWriter(self._file, self._columns).writerow(row)
            self._file.flush()

    def finish(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rewrite(self) -> None:
        self.finish()
        if self._path is not None:
            self._file = self._path.open("w", encoding="utf-8", newline="")
            writer = csv.DictWriter(self._file, self._columns)
            if self._columns:
                writer.writeheader()
            writer.writerows(self._rows)
            self._file.flush()


def _read(path: Path, last_step: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns of a table and its rows up to a step; a row that was left unfinished is passed over."""
    if not path.is_file():
        return [], []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        rows = [row for row in reader if None not in row and None not in row.values()]
    steps = [(row, row.get("step", "")) for row in rows]
    return columns, [row for row, step in steps if step.isdigit() and int(step) <= last_step]
