"""Saves and loads components.

Blocks and settings are defined by ``nlp.config``. A component's folder holds the rest: weights, the backbone's
configuration and tokenizer, and settings changed at run time. A setting given to ``spacy.load(..., config=...)`` takes
precedence over a change made before saving.

A folder is written beside the earlier one and then swapped in, so that a process that is killed leaves the earlier or
the new one. ``cfg.json`` holds fingerprints of all that was saved with it: :mod:`gliner_pipe.pipeline.fingerprints`.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

import srsly
from pydantic import BaseModel

from gliner_pipe.checkpoints.pretrained import Named
from gliner_pipe.errors import CheckpointError, unreadable
from gliner_pipe.pipeline import fingerprints
from gliner_pipe.util import consent
from gliner_pipe.util.atomic import inside, replace_entries, shared
from gliner_pipe.util.json_files import Schema, check, read_object
from gliner_pipe.util.secrets import redacted

CFG = "cfg.json"
MODEL = "model"
BLOCKS = "blocks.json"
#: How often a load beside a change of the files is repeated.
_ATTEMPTS = 5

Loaded = TypeVar("Loaded")


class Saved(BaseModel):
    """Content of ``cfg.json``: settings as configured and as they were, whether there are weights, and fingerprints."""

    configured: dict[str, Any]
    current: dict[str, Any]
    weights: bool = False
    files: dict[str, str] = {}
    config: fingerprints.OfConfig | None = None


class SavedBlocks(BaseModel):
    """Content of ``blocks.json``: the blocks of a checkpoint that the config gives by name, and its word splitter."""

    blocks: dict[str, Any]
    word_splitter: str | dict[str, Any] | None


class Serializable(Protocol):
    """What saving and loading need of a component."""

    name: str
    model: Any
    #: When the component was made, in seconds since the epoch.
    made_at: float
    #: The settings from ``nlp.config``, before any change at run time.
    configured: Mapping[str, Any]

    @property
    def sections(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The component's section in the config: as it was made, and as the pipeline has read it last."""

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
    """Write the component into the folder `path`; what is excluded stays there as it is."""
    parts = [name for part, name in (("cfg", CFG), ("model", MODEL)) if part not in set(exclude)]
    with replace_entries(path, parts) as folder:
        _write_files(component, folder, parts, fingerprints.of_config(path))


def _write_files(
    component: Serializable, folder: Path, parts: Collection[str], config: fingerprints.OfConfig | None = None
) -> None:
    """Write the parts of a component into an empty folder, with the fingerprints of the pipeline's ``config.cfg``."""
    has_weights = MODEL in parts and component.network.is_built
    if has_weights:
        model = component.network
        model.save(folder / MODEL)
        if model.blocks is not None:
            blocks = {"blocks": consent.unstated(model.blocks), "word_splitter": model.word_splitter}
            _write(folder / MODEL / BLOCKS, blocks)
    if CFG in parts:
        settings = {"configured": component.configured, "current": component.current_settings()}
        prints = {"files": fingerprints.of_files(folder), "config": config and config.model_dump()}
        _write(folder / CFG, {**settings, "weights": has_weights, **prints})


def from_disk(component: Serializable, path: Path, exclude: Iterable[str] = ()) -> None:
    """Load the component from the folder `path`; again if another process replaces the folder meanwhile."""
    with shared(path.parent):
        unchanged(path, lambda: _read_files(component, path, set(exclude)))


def unchanged(path: Path, load: Callable[[], Loaded]) -> Loaded:
    """Return what is loaded from a folder that no other process changes meanwhile; a load beside a change is repeated.

    Raises
    ------
    CheckpointError
        If the folder changes each time.
    """
    for attempt in range(_ATTEMPTS):
        with shared(path):
            before = _state(path)
            try:
                loaded = load()
            except (ValueError, OSError):
                if before == _state(path):
                    raise
            else:
                if before == _state(path):
                    return loaded
        time.sleep(0.05 * 2**attempt)
    raise CheckpointError(f"{path}: is written by another process all the time. Load it when that has ended.")


def _state(path: Path) -> list[tuple[str, int, int]]:
    """Return what tells whether a folder, or a file or folder in it, has been replaced."""
    found = []
    for item in (path, *(path.iterdir() if path.is_dir() else ())):
        with suppress(FileNotFoundError):
            stat = item.stat()
            found.append((item.name, stat.st_ino, stat.st_mtime_ns))
    return sorted(found)


def _read_files(component: Serializable, path: Path, exclude: set[str]) -> None:
    folder = path / MODEL
    consent.overrule(component.model)
    has_model = "model" not in exclude and folder.is_dir()
    if "cfg" not in exclude:
        saved = _read(Saved, path / CFG, component.factory)
        fingerprints.check_config(path, saved.config, path / CFG)
        if saved.config is not None and _is_stale(component, path):
            raise CheckpointError(
                f"{path.parent}: was replaced while it was loaded, so that the settings are those of the earlier "
                f"pipeline; or the component {component.name!r} was made with other settings. Load it again."
            )
        if saved.weights and "model" not in exclude and not has_model:
            raise CheckpointError(
                f"{path}: the folder 'model' with the weights is missing. Save the pipeline again."
            )
        if has_model:
            fingerprints.check_files(path, saved.files, path / CFG)
        _restore_changes(component, saved)
    if not has_model:
        return
    model: Any = component.model
    if isinstance(model, Named):
        named = _read(SavedBlocks, folder / BLOCKS, component.factory)
        model = model.restore(consent.unstated(named.blocks))
        consent.overrule(model)
        splitter = named.word_splitter  # earlier versions wrote the name alone
        model.word_splitter = {"@word_splitters": splitter} if isinstance(splitter, str) else splitter
    with unreadable(folder):
        model.load(folder)
    component.replace_model(model.eval())


def to_bytes(component: Serializable, exclude: Iterable[str] = ()) -> bytes:
    """Return the files that ``to_disk`` writes, as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        excluded = set(exclude)
        parts = [name for part, name in (("cfg", CFG), ("model", MODEL)) if part not in excluded]
        _write_files(component, Path(folder), parts)
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


def _read(kind: type[Schema], path: Path, factory: str) -> Schema:
    if not path.is_file():
        raise CheckpointError(
            f"{path.parent}: no {path.name}. The folder is not a complete saved {factory!r} component."
        )
    return check(kind, read_object(path, "Save the pipeline again"), path)


def _restore_changes(component: Serializable, saved: Saved) -> None:
    """Restore each setting whose configured value is the one that was configured when it was saved."""
    configured, current = saved.configured, saved.current
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


def _is_stale(component: Serializable, path: Path) -> bool:
    """Whether another pipeline has replaced the one whose config the component was made from.

    ``spacy.load`` reads the config twice before the component's files. A change after the second time shows in the
    times of the files.
    """
    made, read = component.sections
    if not made:  # the component is in no pipeline
        return False
    if not _is_part(read, made):
        return True
    times = [
        item.stat().st_ctime for item in (path.parent, path.parent / fingerprints.CONFIG) if item.exists()
    ]
    return max(times, default=0.0) > component.made_at and not _is_part(fingerprints.section_of(path), made)


def _is_part(part: Any, whole: Any) -> bool:
    """Whether all values of a section are also in another one, which may have further options with defaults."""
    if isinstance(part, Mapping) and isinstance(whole, Mapping):
        return all(key in whole and _is_part(part[key], whole[key]) for key in part)
    return _same(part, whole)


def _single_dollars(text: str) -> str:
    return re.sub(r"\$+", "$", text)
