"""Saving and loading of components.

``nlp.config`` is the truth about blocks and settings. What is saved beside it: weights, the backbone's
configuration and tokenizer, and settings that were changed at run time. A setting given to
``spacy.load(..., config=...)`` wins over one changed before saving.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import srsly
from safetensors import SafetensorError

from gliner_pipe.checkpoints.pretrained import Named
from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.util import consent
from gliner_pipe.util.atomic import inside
from gliner_pipe.util.secrets import redacted

if TYPE_CHECKING:
    from gliner_pipe.pipeline.base import TorchPipe

CFG = "cfg.json"
BLOCKS = "blocks.json"


def to_disk(component: TorchPipe, path: Path, exclude: Iterable[str] = ()) -> None:
    """Write the component into the folder `path`."""
    exclude = set(exclude)
    path.mkdir(parents=True, exist_ok=True)
    weights = "model" not in exclude and component.network.is_built
    if "cfg" not in exclude:
        _write(path / CFG, {**_cfg(component), "weights": weights})
    if weights:
        model = component.network
        model.save(path / "model")
        if model.blocks is not None:
            named = {"blocks": consent.unstated(model.blocks), "word_splitter": model.word_splitter}
            _write(path / "model" / BLOCKS, named)


def from_disk(component: TorchPipe, path: Path, exclude: Iterable[str] = ()) -> None:
    """Load the component from the folder `path`."""
    exclude = set(exclude)
    consent.overrule(component.model)
    if "cfg" not in exclude:
        saved = _read(path / CFG, component.factory)
        _set_cfg(component, saved)
        if saved.get("weights") and "model" not in exclude and not (path / "model").is_dir():
            raise CheckpointError(
                f"{path}: no folder 'model', though weights were saved. Save the pipeline again."
            )
    folder = path / "model"
    if "model" in exclude or not folder.is_dir():
        return
    model: Any = component.model
    if isinstance(model, Named):
        named = _read(folder / BLOCKS, component.factory)
        model = model.restore(consent.unstated(named["blocks"]))
        consent.overrule(model)
        model.word_splitter = named["word_splitter"]
    try:
        model.load(folder)
    except (OSError, ValueError, SafetensorError) as error:
        if isinstance(error, (CheckpointError, ConfigError)):
            raise
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder}: cannot be read ({reason}). Save the pipeline again.") from error
    component.replace_model(model.eval())


def to_bytes(component: TorchPipe, exclude: Iterable[str] = ()) -> bytes:
    """Pack what ``to_disk`` writes."""
    with tempfile.TemporaryDirectory() as folder:
        to_disk(component, Path(folder), exclude)
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }
    return srsly.msgpack_dumps(files)


def from_bytes(component: TorchPipe, data: bytes, exclude: Iterable[str] = ()) -> None:
    """Unpack what ``to_bytes`` packed; a model that goes on reading its files keeps them as long as it lives."""
    folder = Path(tempfile.mkdtemp())
    kept = False
    try:
        for name, content in _files(data).items():
            path = inside(folder, name, f"the bytes of {component.name!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        from_disk(component, folder, exclude)
        kept = getattr(component.model, "folder", None) == folder / "model"
        if kept:
            weakref.finalize(component.model, _remove, folder, os.getpid())
    finally:
        if not kept:
            shutil.rmtree(folder)


def _files(data: bytes) -> dict[str, bytes]:
    try:
        files = srsly.msgpack_loads(data)
    except Exception as error:  # msgpack has errors of many kinds
        raise CheckpointError(f"These bytes are not what to_bytes returns ({error}).") from None
    if not isinstance(files, dict) or not all(isinstance(content, bytes) for content in files.values()):
        raise CheckpointError("These bytes are not what to_bytes returns: files by name.")
    return files


def _remove(folder: Path, process: int) -> None:
    """Remove a folder, unless in a process that was forked from the one that made it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, content: Any) -> None:
    # not srsly: its JSON does not read back every number that it wrote
    path.write_text(json.dumps(redacted("", content), ensure_ascii=False, indent=2), encoding="utf8")


def _read(path: Path, kind: str) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent}: no {path.name}. The folder is no saved {kind!r} component, or not whole."
        )
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: no valid JSON ({error}). Save the pipeline again.") from None
    return content


def _cfg(component: TorchPipe) -> dict[str, Any]:
    """The settings as configured, and as they are now."""
    return {"configured": component._configured, "current": component._current()}


def _set_cfg(component: TorchPipe, saved: dict[str, Any]) -> None:
    """Take each saved setting whose configured value is still the one it was changed from."""
    configured, current = component._configured, saved["current"]
    values = {
        key: current[key] if key in current and _same(value, saved["configured"].get(key)) else value
        for key, value in configured.items()
    }
    component._restore(values)


def _same(left: Any, right: Any) -> bool:
    """Compare JSON values; numbers that spaCy's config format wrote and read may differ in the last digit."""
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=1e-9)
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)
