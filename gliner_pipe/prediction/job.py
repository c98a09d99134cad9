"""A resumable prediction over shards: the layout of its folder, and the fingerprint of the pipeline that began it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from spacy.language import Language

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.pipeline.base import TorchPipe
from gliner_pipe.prediction.chunks import Chunk, Found, Outcome
from gliner_pipe.prediction.shard_writers import Piece, Schema, format_of
from gliner_pipe.prediction.shards import Shard
from gliner_pipe.util.atomic import replace_file
from gliner_pipe.util.file_lock import only_writer
from gliner_pipe.util.secrets import redacted, redacted_config

#: Live settings of a component on which no result depends.
_HOW = ("batch_size", "device", "task_lr_ratio")
#: Bytes at either end of a file by which it is known again, beside its size.
_ENDS = 65536


def describe_pipeline(nlp: Language) -> dict[str, Any]:
    """Return what the predictions of a pipeline depend on, as JSON.

    Parameters
    ----------
    nlp
        The pipeline, with the labels and thresholds that count.

    Returns
    -------
    dict
        ``pipeline``, a digest of its config and all weights; and each live setting of its components by name, as
        ``gliner.threshold``. No secret is in it, nor does another one make it another.
    """
    digest = hashlib.sha256(redacted_config(nlp.config.to_str()).encode())
    settings: dict[str, Any] = {"components": list(nlp.pipe_names)}
    digest.update(nlp.tokenizer.to_bytes(exclude=["vocab"]) if hasattr(nlp.tokenizer, "to_bytes") else b"")
    for name, pipe in nlp.pipeline:
        digest.update(name.encode())
        if isinstance(pipe, TorchPipe):
            _add(digest, dict(sorted(pipe.network.state_dict().items())))
            live = {key: value for key, value in pipe.cfg.items() if key not in _HOW}
            for key in ("label_data", "relation_data"):
                if hasattr(pipe, key):
                    live[key.replace("_data", "s")] = getattr(pipe, key)
            settings |= {f"{name}.{key}": value for key, value in live.items()}
        elif hasattr(pipe, "to_bytes"):
            digest.update(pipe.to_bytes(exclude=["vocab"]))
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return {
        "pipeline": digest.hexdigest()[:16],
        **{key: redacted(key, value) for key, value in plain.items()},
    }


def describe_file(path: Path) -> str:
    """Return the size of a file with a digest of its two ends: the same after it was copied elsewhere."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(_ENDS)
        stream.seek(max(size - _ENDS, 0))
        digest = hashlib.sha256(start + stream.read(_ENDS))
    return f"{size}-{digest.hexdigest()[:16]}"


def _add(digest: Any, value: Any) -> None:
    """Add a nest of tensors to a digest."""
    if isinstance(value, torch.Tensor):
        whole = value.dequantize() if value.is_quantized else value
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(whole.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, dict):
        for key, item in value.items():
            digest.update(str(key).encode())
            _add(digest, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _add(digest, item)
    else:
        digest.update(repr(value).encode())


#: Folder of what is beside the predictions; readers of data sets pass over names with an underscore.
STATE = "_predict"

#: Beside the parts of a shard whose file could not be used.
_MARK = "unusable"
_PART = re.compile(r"(\d{12})-(\d{12})\.(parquet|jsonl|jsonl\.gz)")


@dataclass
class Numbers:
    """What is in a file, or in several.

    Attributes
    ----------
    rows
        Rows written.
    predicted
        Those among them that were predicted on.
    entities, relations
        What was found.
    bad
        Rows that are left out or without prediction.
    """

    rows: int = 0
    predicted: int = 0
    entities: int = 0
    relations: int = 0
    bad: int = 0

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the numbers of another file."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + other[field.name])


@dataclass(frozen=True)
class Job:
    """The folder of a prediction over shards.

    Parameters
    ----------
    folder
        Where predictions go.
    schema
        What the pipeline adds to the rows.
    """

    folder: Path
    schema: Schema

    @contextmanager
    def begun(self, settings: Mapping[str, Any], shards: Sequence[Shard]) -> Iterator[None]:
        """Begin, or go on, and keep other processes out meanwhile.

        Parameters
        ----------
        settings
            What predictions depend on, as JSON.
        shards
            What is to be predicted on.

        Raises
        ------
        DataError
            If the folder holds something else, or predictions made with other settings or of other data.
        """
        manifest = self.folder / STATE / "manifest.json"
        if self.folder.is_dir() and not manifest.parent.is_dir() and any(self.folder.iterdir()):
            raise DataError(
                str(self.folder),
                "holds files, but no predictions of shards",
                "an empty or a new folder, or one to go on with",
                "Give another --output",
            )
        for shard in shards:
            if self.folder.resolve() in shard.path.resolve().parents:
                raise DataError(
                    str(shard.path),
                    "lies in the folder that the predictions go to",
                    "an output outside of the input",
                    "Give another --output",
                )
        with only_writer(manifest.parent / "lock"):
            before = json.loads(manifest.read_text("utf-8")) if manifest.is_file() else {}
            inputs = {str(shard.name): _origin(shard) for shard in shards}
            for shard in shards:
                parts, was = self._state("parts", shard), before.get("inputs", {}).get(shard.name)
                if was and was["state"] != inputs[shard.name]["state"] and (parts / _MARK).exists():
                    shutil.rmtree(parts)
                    del before["inputs"][shard.name]
            _check_same(self.folder, before, {"settings": dict(settings), "inputs": inputs})
            merged = {"settings": settings, "inputs": {**before.get("inputs", {}), **inputs}}
            if merged != before:
                _write_json(manifest, merged)
            yield

    def numbers(self, shard: Shard) -> dict[str, Any] | None:
        """Return the numbers of a file that is whole; None where it is not."""
        path = self._state("shards", shard, ".json")
        if not path.is_file() or not (self.folder / shard.name).is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found

    def mark_unusable(self, shard: Shard) -> None:
        """Note that the file of a shard is to be mended: another file may take its place, which is then begun anew."""
        mark = self._state("parts", shard) / _MARK
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()

    def next_row(self, shard: Shard) -> int:
        """Return the first row of a shard that is not written yet."""
        parts = self._parts(shard)
        return parts[-1][1] if parts else shard.start

    def write(self, shard: Shard, start: int, stop: int, pieces: Sequence[Piece], bad: Sequence[Any]) -> None:
        """Write the predictions of rows `start` to `stop`, which stand behind those written so far."""
        numbers = Numbers(bad=len(bad))
        for _, found in pieces:
            there = [one for one in found if isinstance(one, Found)]
            numbers.rows += len(found)
            numbers.predicted += len(there)
            numbers.entities += sum(len(one.entities) for one in there)
            numbers.relations += sum(len(one.relations or ()) for one in there)
        suffix = _suffix(shard)
        name = f"{start:012d}-{stop:012d}{suffix}"
        folder = self._state("parts", shard)
        listed = [{"where": one.where, "found": one.found, "allowed": one.allowed} for one in bad]
        _write_json(folder / f"{name}.json", {**asdict(numbers), "errors": listed})
        with replace_file(folder / name) as path:
            format_of(shard.name).write(pieces, path, self.schema)

    def finish(self, shard: Shard) -> Numbers:
        """Join the parts of a shard whose rows are all written."""
        numbers, folder = Numbers(), self._state("parts", shard)
        parts = [path for _, _, path in self._parts(shard)]
        states = [json.loads(path.with_name(f"{path.name}.json").read_text("utf-8")) for path in parts]
        for state in states:
            numbers.add(state)
        if numbers.bad:
            with (
                replace_file(self._state("errors", shard, ".jsonl")) as path,
                path.open("w", encoding="utf-8") as stream,
            ):
                for state in states:
                    for error in state["errors"]:
                        stream.write(json.dumps(error, ensure_ascii=False) + "\n")
        with replace_file(self.folder / shard.name) as path:
            format_of(shard.name).join(parts, path, self.schema)
        _write_json(self._state("shards", shard, ".json"), asdict(numbers))
        shutil.rmtree(folder, ignore_errors=True)
        return numbers

    def _parts(self, shard: Shard) -> list[tuple[int, int, Path]]:
        """The files of a shard that is worked on, each going on where the one before ends."""
        folder = self._state("parts", shard)
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        suffix, ends = _suffix(shard), dict[int, int]()
        for match in filter(None, map(_PART.fullmatch, names)):
            if match[0].endswith(suffix):
                ends[int(match[1])] = max(int(match[2]), ends.get(int(match[1]), 0))
        chain, row = [], shard.start
        while row in ends:
            chain.append((row, ends[row], folder / f"{row:012d}-{ends[row]:012d}{suffix}"))
            row = ends[row]
        return chain

    def _state(self, kind: str, shard: Shard, suffix: str = "") -> Path:
        return self.folder / STATE / kind / f"{shard.name}{suffix}"


class ShardWriter:
    """Writes chunks as they come, shard after shard.

    Parameters
    ----------
    job
        Where to.
    save_every
        Seconds after which the rows that came are written. A process that is killed loses no more.
    skip
        Whether to go on after a shard that cannot be read.

    Attributes
    ----------
    errors
        One for each shard that could not be read.
    """

    def __init__(self, job: Job, save_every: float, skip: bool = False) -> None:
        self.job, self.save_every, self.skip = job, save_every, skip
        self.errors: list[DataError] = []
        self._held: list[tuple[Chunk, Sequence[Outcome]]] = []
        self._since = time.monotonic()

    def add(self, chunk: Chunk, found: Sequence[Outcome]) -> Numbers | None:
        """Take a chunk; return the numbers of its shard if it is whole now.

        Raises
        ------
        DataError
            If reading ended here, unless it goes on with the next shard; all rows before are written.
        """
        self._held.append((chunk, found))
        if chunk.last or chunk.error is not None or time.monotonic() - self._since >= self.save_every:
            self.flush()
        if chunk.error is not None:
            self.job.mark_unusable(chunk.shard)
            if not self.skip:
                raise chunk.error
            self.errors.append(chunk.error)
        return self.job.finish(chunk.shard) if chunk.last else None

    def flush(self) -> None:
        """Write what is held."""
        held = [(chunk, found) for chunk, found in self._held if chunk.stop > chunk.start]
        self._held = []
        if held:
            bad = [row for chunk, _ in held for row in chunk.bad]
            pieces = [Piece(chunk.rows, found) for chunk, found in held]
            self.job.write(held[0][0].shard, held[0][0].start, held[-1][0].stop, pieces, bad)
        self._since = time.monotonic()


def total(numbers: Iterable[Mapping[str, Any] | None]) -> Numbers:
    """Return the sum of numbers."""
    result = Numbers()
    for one in numbers:
        if one is not None:
            result.add(one)
    return result


def _origin(shard: Shard) -> dict[str, Any]:
    return {"file": str(shard.path), "state": describe_file(shard.path)}


def _suffix(shard: Shard) -> str:
    return next(suffix for suffix in (".parquet", ".jsonl", ".jsonl.gz") if shard.name.endswith(suffix))


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if not before:
        return
    old, new = before["settings"], now["settings"]
    fresh = f"Go on with what it was begun with, give another --output, or remove {folder} to begin anew"
    for name in dict.fromkeys((*new, *old)):
        if old.get(name) != new.get(name):
            was = f"the predictions in {folder} were begun with {_short(old.get(name))}"
            found = f"is {_short(new.get(name))}, but {was}"
            raise ConfigError(name, found, do=fresh)
    for name, origin in now["inputs"].items():
        if before["inputs"].get(name, origin)["state"] != origin["state"]:
            found = f"has changed since {folder / name} was begun"
            do = f"Give another --output, or remove {folder} to begin anew"
            raise DataError(origin["file"], found, "the same files, and new ones beside them", do)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _write_json(path: Path, value: Any) -> None:
    with replace_file(path) as sibling:
        sibling.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
