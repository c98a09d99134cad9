"""Every step and every validation as a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from gliner_pipe.registry import registry
from gliner_pipe.saving import replace_file
from gliner_pipe.secrets import redacted_config
from gliner_pipe.training.loggers.base import RunInfo


@registry.loggers.register("jsonl")
class JsonlLogger:
    """Writes one JSON object a line, each flushed at once: nothing is lost when the process is killed.

    The lines have a ``type``: ``start`` (versions and config), ``step`` or ``validation``. A resumed training
    keeps the lines up to the step that it goes on from, drops later ones, and adds a ``start`` with its
    ``resumed_step``. Also called ``json``.

    Parameters
    ----------
    file_name
        Name of the file beside the models.
    """

    def __init__(self, file_name: str = "train_log.jsonl") -> None:
        self.file_name = file_name
        self._file: TextIO | None = None

    def start(self, run: RunInfo) -> None:
        """Begin a new file, or go on with that of the training that is resumed."""
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

    def finish(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, kind: str, record: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(_line({"type": kind, **record}))
            self._file.flush()


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log file; a line that a killed process left unfinished is passed over."""
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
    """Turn what json does not know (numpy scalars, paths, mappings) into what it does."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.item() if hasattr(value, "item") else str(value)


registry.loggers.register("json", func=JsonlLogger)
