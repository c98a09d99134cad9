"""Every step and every validation as a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TextIO

from gliner_pipe.registry import registry
from gliner_pipe.training.loggers.base import RunInfo


@registry.loggers.register("jsonl")
class JsonlLogger:
    """Writes one JSON object a line, each flushed at once: nothing is lost when the process is killed.

    The lines have a ``type``: ``start`` (versions and config), ``step`` or ``validation``.

    Parameters
    ----------
    file_name
        Name of the file beside the models.
    """

    def __init__(self, file_name: str = "train_log.jsonl") -> None:
        self.file_name = file_name
        self._file: TextIO | None = None

    def start(self, run: RunInfo) -> None:
        """Begin a new file."""
        self._file = (run.folder / self.file_name).open("w", encoding="utf-8")
        self._write("start", {"max_steps": run.max_steps, "versions": run.versions, "config": run.config})

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
            self._file.write(json.dumps({"type": kind, **record}, ensure_ascii=False, default=_plain) + "\n")
            self._file.flush()


def _plain(value: Any) -> Any:
    """Turn what json does not know (numpy scalars, paths, mappings) into what it does."""
    if isinstance(value, Mapping):
        return dict(value)
    return value.item() if hasattr(value, "item") else str(value)
