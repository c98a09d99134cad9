"""Loggers that write files: ``jsonl`` and ``csv``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from gliner_pipe.registry import registry
from gliner_pipe.training.loggers.base import RunInfo, flatten
from gliner_pipe.util.atomic import replace_file
from gliner_pipe.util.secrets import redacted_config


class FileLogger:
    """Base class of the loggers that write one file beside the models.

    Parameters
    ----------
    file_name
        Name of the file.
    """

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self._file: TextIO | None = None

    def finish(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


@registry.loggers.register("jsonl")
class JsonlLogger(FileLogger):
    """Writes one JSON object a line, flushed at once, so that nothing is lost when the process is killed.

    Each line has a ``type``: ``start`` (versions and config), ``step`` or ``validation``. A resumed training
    keeps the lines up to the step of its checkpoint, removes later ones, and adds a ``start`` with its
    ``resumed_step``. Also registered as ``json``.

    Parameters
    ----------
    file_name
        Name of the file beside the models.
    """

    def __init__(self, file_name: str = "train_log.jsonl") -> None:
        super().__init__(file_name)

    def start(self, run: RunInfo) -> None:
        """Start a new file, or continue that of the resumed training."""
        path = run.folder / self.file_name
        kept = [record for record in read_log(path) if _is_before(record, run)] if run.resumed_step else []
        with replace_file(path) as sibling:
            sibling.write_text("".join(_line(_redacted(record)) for record in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        record = {"max_steps": run.max_steps, "versions": run.versions, "config": run.config}
        self._write("start", record | ({"resumed_step": run.resumed_step} if run.resumed_step else {}))

    def step(self, record: Mapping[str, Any]) -> None:
        """Write a step."""
        self._write("step", record)

    def validation(self, record: Mapping[str, Any]) -> None:
        """Write a validation."""
        self._write("validation", record)

    def _write(self, kind: str, record: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(_line({"type": kind, **record}))
            self._file.flush()


registry.loggers.register("json", func=JsonlLogger)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log file of ``JsonlLogger``; an incomplete line of a killed process is skipped."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def _is_before(record: Mapping[str, Any], run: RunInfo) -> bool:
    return int(record.get("step", record.get("resumed_step", 0))) <= run.resumed_step


def _redacted(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**record, "config": redacted_config(record["config"])} if "config" in record else record


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    """Convert a value that json cannot write (numpy scalars, paths, mappings)."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.item() if hasattr(value, "item") else str(value)


@registry.loggers.register("csv")
class CsvLogger(FileLogger):
    """Writes one row a validation: step, mean loss, learning rates, speed and all scores, e.g.
    ``scores.ner.micro.f``.

    The first validation sets the columns. If a later one has more, the file is written again with the new columns
    at the end. A resumed training keeps the rows up to the step of its checkpoint and removes later ones.

    Parameters
    ----------
    file_name
        Name of the file beside the models.
    """

    def __init__(self, file_name: str = "train_log.csv") -> None:
        super().__init__(file_name)
        self._path: Path | None = None
        self._columns: list[str] = []
        self._rows: list[dict[str, Any]] = []

    def start(self, run: RunInfo) -> None:
        """Start a new file, or continue that of the resumed training."""
        self._path = run.folder / self.file_name
        self._columns, self._rows = (
            _read_table(self._path, run.resumed_step) if run.resumed_step else ([], [])
        )
        self._rewrite()

    def step(self, record: Mapping[str, Any]) -> None:
        """Do nothing: only validations are written."""

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

    def _rewrite(self) -> None:
        self.finish()
        if self._path is not None:
            self._file = self._path.open("w", encoding="utf-8", newline="")
            table = csv.DictWriter(self._file, self._columns)
            if self._columns:
                table.writeheader()
            table.writerows(self._rows)
            self._file.flush()


def _read_table(path: Path, last_step: int) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the columns of a table and its rows up to a step; an incomplete row is skipped."""
    if not path.is_file():
        return [], []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        rows = [row for row in reader if None not in row and None not in row.values()]
    steps = [(row, row.get("step", "")) for row in rows]
    return columns, [row for row, step in steps if step.isdigit() and int(step) <= last_step]
