"""Saves and loads components.

Blocks and settings are defined by ``nlp.config``. A component's folder holds the rest: weights, the backbone's
configuration and tokenizer, and settings changed at run time. A setting given to ``spacy.load(..., config=...)`` takes
precedence over a change made before saving.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import srsly
from safetensors import SafetensorError

from gliner_pipe.checkpoints.pretrained import Named
from gliner_pipe.errors import CheckpointError, ConfigError, reason_of
from gliner_pipe.util import consent
from gliner_pipe.util.atomic import inside
from gliner_pipe.util.secrets import redacted

CFG = "cfg.json"
BLOCKS = "blocks.json"


class Serializable(Protocol):
    """What saving and loading need of a component."""

    name: str
    model: Any
    #: The settings from ``nlp.config``, before any change at run time.
    configured: Mapping[str, Any]

    @property
    def factory(self) -> str:
        """Factory name, for messages."""

    @property
    def network(self) -> Any:
        """The blocks; a checkpoint given by name is loaded on first use."""

    def current_settings(self) -> dict[str, Any]:
        """Return the current settings, labels included, as JSON values."""

    def restore_settings(self, values: Mapping[str, Any]) -> None:
        """Set what ``current_settings`` returned."""

    def replace_model(self, model: Any) -> None:
        """Use another model."""


def to_disk(component: Serializable, path: Path, exclude: Iterable[str] = ()) -> None:
    """Write the component into the folder `path`."""
    exclude = set(exclude)
    path.mkdir(parents=True, exist_ok=True)
    has_weights = "model" not in exclude and component.network.is_built
    if "cfg" not in exclude:
        settings = {"configured": component.configured, "current": component.current_settings()}
        _write(path / CFG, {**settings, "weights": has_weights})
    if has_weights:
        model = component.network
        model.save(path / "model")
        if model.blocks is not None:
            blocks = {"blocks": consent.unstated(model.blocks), "word_splitter": model.word_splitter}
            _write(path / "model" / BLOCKS, blocks)


def from_disk(component: Serializable, path: Path, exclude: Iterable[str] = ()) -> None:
    """Load the component from the folder `path`."""
    exclude = set(exclude)
    folder = path / "model"
    consent.overrule(component.model)
    if "cfg" not in exclude:
        saved = _read(path / CFG, component.factory)
        _restore_changes(component, saved)
        if saved.get("weights") and "model" not in exclude and not folder.is_dir():
            raise CheckpointError(
                f"{path}: the folder 'model' with the weights is missing. Save the pipeline again."
            )
    if "model" in exclude or not folder.is_dir():
        return
    model: Any = component.model
    if isinstance(model, Named):
        saved = _read(folder / BLOCKS, component.factory)
        model = model.restore(consent.unstated(saved["blocks"]))
        consent.overrule(model)
        splitter = saved["word_splitter"]  # earlier versions wrote the name alone
        model.word_splitter = {"@word_splitters": splitter} if isinstance(splitter, str) else splitter
    try:
        model.load(folder)
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, (CheckpointError, ConfigError)):
            raise
        reason = reason_of(error)
        raise CheckpointError(f"{folder}: cannot be read ({reason}). Save the pipeline again.") from error
    component.replace_model(model.eval())


def to_bytes(component: Serializable, exclude: Iterable[str] = ()) -> bytes:
    """Return the files that ``to_disk`` writes, as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        to_disk(component, Path(folder), exclude)
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }
    return srsly.msgpack_dumps(files)


def from_bytes(component: Serializable, data: bytes, exclude: Iterable[str] = ()) -> None:
    """Load the component from the result of ``to_bytes``.

    A model that keeps reading its files (ONNX) keeps its temporary folder until the model is deleted.
    """
    folder = Path(tempfile.mkdtemp())
    keep = False
    try:
        for name, content in _unpacked(data).items():
            path = inside(folder, name, f"the bytes of {component.name!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        from_disk(component, folder, exclude)
        keep = getattr(component.model, "folder", None) == folder / "model"
        if keep:
            weakref.finalize(component.model, _remove, folder, os.getpid())
    finally:
        if not keep:
            shutil.rmtree(folder)


def _unpacked(data: bytes) -> dict[str, bytes]:
    try:
        files = srsly.msgpack_loads(data)
    except Exception as error:  # msgpack raises errors of many kinds
        raise CheckpointError(f"The bytes were not written by to_bytes ({error}).") from None
    if not isinstance(files, dict) or not all(isinstance(content, bytes) for content in files.values()):
        raise CheckpointError("The bytes were not written by to_bytes: they hold no files by name.")
    return files


def _remove(folder: Path, process: int) -> None:
    """Remove a folder, but only in the process that created it: a fork inherits the finalizer."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, content: Any) -> None:
    # not srsly: its JSON does not round-trip every number
    path.write_text(json.dumps(redacted("", content), ensure_ascii=False, indent=2), encoding="utf8")


def _read(path: Path, factory: str) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent}: no {path.name}. The folder is not a complete saved {factory!r} component."
        )
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: no valid JSON ({error}). Save the pipeline again.") from None
    return content


def _restore_changes(component: Serializable, saved: Mapping[str, Any]) -> None:
    """Restore each setting whose configured value is the one that was configured when it was saved."""
    configured, current = saved["configured"], saved["current"]
    values = {
        key: current[key] if key in current and _same(value, configured.get(key)) else value
        for key, value in component.configured.items()
    }
    component.restore_settings(values)


def _same(left: Any, right: Any) -> bool:
    """Compare JSON values after a round trip through spaCy's config format.

    There a float may lose its last digit, and `spacy.load` doubles each ``$``.
    """
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9)
    if isinstance(left, str) and isinstance(right, str):
        return _single_dollars(left) == _single_dollars(right)
    if isinstance(left, dict) and isinstance(right, dict):
        left, right = ({_single_dollars(key): one[key] for key in one} for one in (left, right))
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _single_dollars(text: str) -> str:
    return re.sub(r"\$+", "$", text)
