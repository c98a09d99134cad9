"""The output folder of a prediction over shards: what it was started with, and which rows are written.

Beside the predictions, the folder ``_predict`` holds

- ``manifest.json``: the settings, and a fingerprint of the pipeline and of each input file;
- ``lock``: held by the process that writes;
- ``parts/<shard>/``: predictions of an unfinished shard, in files named after their range of rows;
- ``shards/<shard>.json``: the counts of a finished shard;
- ``errors/<shard>.jsonl``: its rows without prediction.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from spacy.language import Language

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.pipeline.base import TorchPipe
from gliner_pipe.prediction.chunks import Chunk, Found, Outcome
from gliner_pipe.prediction.shard_writers import Schema, format_of
from gliner_pipe.prediction.shards import Shard
from gliner_pipe.util.atomic import replace_file, write_json
from gliner_pipe.util.file_lock import only_writer
from gliner_pipe.util.secrets import redacted, redacted_config

#: Folder beside the predictions; readers of data sets ignore names that begin with an underscore.
STATE = "_predict"
#: File in the folder of parts of a shard whose input file cannot be read.
_UNUSABLE = "unusable"
_PART = re.compile(r"(\d{12})-(\d{12})\.(parquet|jsonl|jsonl\.gz)")


#: What is counted in a file: rows written; rows with a prediction; predicted entities and relations; rows that are left
#: out or without prediction.
COUNTED = ("rows", "predicted", "entities", "relations", "bad")


def total(counts: Iterable[Mapping[str, Any] | None]) -> Counter[str]:
    """Return the sum of the counts of files, by the names in `COUNTED`."""
    result: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
    for one in filter(None, counts):
        result.update({name: one[name] for name in COUNTED})
    return result


@dataclass(frozen=True)
class Job:
    """The output folder of a prediction over shards.

    Parameters
    ----------
    folder
        Folder for the predictions.
    schema
        Columns that the pipeline adds to the rows.
    """

    folder: Path
    schema: Schema

    @contextmanager
    def opened(self, settings: Mapping[str, Any], shards: Sequence[Shard]) -> Iterator[None]:
        """Start or resume the job, and lock the folder until the block ends.

        Parameters
        ----------
        settings
            The settings that predictions depend on, as JSON.
        shards
            The shards to predict on.

        Raises
        ------
        ConfigError
            If the folder holds predictions with other settings.
        DataError
            If the folder holds other files, or predictions of input files that have changed.
        """
        manifest = self.folder / STATE / "manifest.json"
        if self.folder.is_dir() and not manifest.parent.is_dir() and any(self.folder.iterdir()):
            raise DataError(
                str(self.folder),
                "holds files, but no predictions of shards",
                "a new or empty folder, or the folder of an earlier run",
                "Give another --output",
            )
        for shard in shards:
            if self.folder.resolve() in shard.path.resolve().parents:
                raise DataError(
                    str(shard.path),
                    "is inside the output folder",
                    "an output folder outside the input",
                    "Give another --output",
                )
        with only_writer(manifest.parent / "lock"):
            before = json.loads(manifest.read_text("utf-8")) if manifest.is_file() else {}
            inputs = {str(shard.name): _origin(shard) for shard in shards}
            for shard in shards:
                parts, known = self._state("parts", shard), before.get("inputs", {}).get(shard.name)
                repaired = known and known["state"] != inputs[shard.name]["state"]
                if repaired and (parts / _UNUSABLE).exists():
                    shutil.rmtree(parts)
                    del before["inputs"][shard.name]
            _check_same(self.folder, before, {"settings": dict(settings), "inputs": inputs})
            merged = {"settings": settings, "inputs": {**before.get("inputs", {}), **inputs}}
            if merged != before:
                write_json(manifest, merged)
            yield

    def counts(self, shard: Shard) -> dict[str, Any] | None:
        """Return the counts of a finished shard; None for an unfinished one."""
        path = self._state("shards", shard, ".json")
        if not path.is_file() or not (self.folder / shard.name).is_file():
            return None
        counts: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return counts

    def changed(self, shard: Shard) -> DataError | None:
        """Return the error about an input file that is no longer what it was when the run began; None if it is."""
        manifest = self.folder / STATE / "manifest.json"
        inputs = json.loads(manifest.read_text("utf-8"))["inputs"] if manifest.is_file() else {}
        if shard.name not in inputs or _origin(shard)["state"] == inputs[shard.name]["state"]:
            return None
        do = "Start again when nobody writes to it"
        return DataError(
            str(shard.path), "has changed since this run began", "files that stay as they are", do
        )

    def mark_unusable(self, shard: Shard) -> None:
        """Record that an input file cannot be read: a repaired file may replace it, and the shard starts again."""
        mark = self._state("parts", shard) / _UNUSABLE
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()

    def next_row(self, shard: Shard) -> int:
        """Return the first row of a shard that is not written yet."""
        parts = self._parts(shard)
        return parts[-1][1] if parts else shard.start

    def write(self, chunks: Iterable[tuple[Chunk, Sequence[Outcome]]]) -> None:
        """Write consecutive chunks of a shard with their outcomes; they follow those written so far."""
        kept = [(chunk, outcomes) for chunk, outcomes in chunks if chunk.stop > chunk.start]
        if not kept:
            return
        shard, start, stop = kept[0][0].shard, kept[0][0].start, kept[-1][0].stop
        bad = [row for chunk, _ in kept for row in chunk.bad]
        predicted = [one for _, outcomes in kept for one in outcomes if isinstance(one, Found)]
        state = {
            "rows": sum(len(outcomes) for _, outcomes in kept),
            "predicted": len(predicted),
            "entities": sum(len(one.entities) for one in predicted),
            "relations": sum(len(one.relations or ()) for one in predicted),
            "bad": len(bad),
            "errors": [{"where": one.where, "found": one.found, "allowed": one.allowed} for one in bad],
        }
        folder = self._state("parts", shard)
        name = f"{start:012d}-{stop:012d}{_suffix(shard)}"
        write_json(folder / f"{name}.json", state)
        with replace_file(folder / name) as path:
            format_of(shard.name).write(
                [(chunk.rows, outcomes) for chunk, outcomes in kept], path, self.schema
            )

    def finish(self, shard: Shard) -> None:
        """Join the parts of a shard whose rows are all written."""
        folder = self._state("parts", shard)
        parts = [path for _, _, path in self._parts(shard)]
        states = [json.loads(path.with_name(f"{path.name}.json").read_text("utf-8")) for path in parts]
        counts = total(states)
        if counts["bad"]:
            with (
                replace_file(self._state("errors", shard, ".jsonl")) as path,
                path.open("w", encoding="utf-8") as stream,
            ):
                for state in states:
                    for error in state["errors"]:
                        stream.write(json.dumps(error, ensure_ascii=False) + "\n")
        with replace_file(self.folder / shard.name) as path:
            format_of(shard.name).join(parts, path, self.schema)
        write_json(self._state("shards", shard, ".json"), counts)
        shutil.rmtree(folder, ignore_errors=True)

    def _parts(self, shard: Shard) -> list[tuple[int, int, Path]]:
        """Return start, stop and file of the consecutive parts of an unfinished shard."""
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


def _suffix(shard: Shard) -> str:
    return next(suffix for suffix in (".parquet", ".jsonl", ".jsonl.gz") if shard.name.endswith(suffix))


# -- what a job was started with -----------------------------------------------------------------------------------


#: Live settings of a component that no result depends on.
_NO_EFFECT = ("batch_size", "device", "task_lr_ratio")
#: Bytes at either end of a file that are part of its fingerprint.
_ENDS = 65536


def describe_pipeline(nlp: Language) -> dict[str, Any]:
    """Return what the predictions of a pipeline depend on, as JSON.

    Parameters
    ----------
    nlp
        The pipeline, with its current labels and thresholds.

    Returns
    -------
    dict
        ``pipeline``, a digest of its config and all weights; and each live setting of its components by name, e.g.
        ``gliner.threshold``. It contains no secret, and does not depend on one.
    """
    digest = hashlib.sha256(redacted_config(nlp.config.to_str()).encode())
    settings: dict[str, Any] = {"components": list(nlp.pipe_names)}
    digest.update(nlp.tokenizer.to_bytes(exclude=["vocab"]) if hasattr(nlp.tokenizer, "to_bytes") else b"")
    for name, pipe in nlp.pipeline:
        digest.update(name.encode())
        if isinstance(pipe, TorchPipe):
            _digest(digest, dict(sorted(pipe.network.state_dict().items())))
            live = {key: value for key, value in pipe.cfg.items() if key not in _NO_EFFECT}
            for key in ("label_data", "relation_data", "class_data", "record_data"):
                if hasattr(pipe, key):
                    live["classes" if key == "class_data" else key.replace("_data", "s")] = getattr(pipe, key)
            settings |= {f"{name}.{key}": value for key, value in live.items()}
        elif hasattr(pipe, "to_bytes"):
            digest.update(pipe.to_bytes(exclude=["vocab"]))
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return {
        "pipeline": digest.hexdigest()[:16],
        **{key: redacted(key, value) for key, value in plain.items()},
    }


def _digest(digest: Any, value: Any) -> None:
    """Add nested tensors to a digest."""
    if isinstance(value, torch.Tensor):
        whole = value.dequantize() if value.is_quantized else value
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(whole.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, dict):
        for key, item in value.items():
            digest.update(str(key).encode())
            _digest(digest, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _digest(digest, item)
    else:
        digest.update(repr(value).encode())


def _origin(shard: Shard) -> dict[str, Any]:
    """Return path and fingerprint of an input file: its size and a digest of its two ends, the same for a copy."""
    size = shard.path.stat().st_size
    with shard.path.open("rb") as stream:
        start = stream.read(_ENDS)
        stream.seek(max(size - _ENDS, 0))
        digest = hashlib.sha256(start + stream.read(_ENDS))
    return {"file": str(shard.path), "state": f"{size}-{digest.hexdigest()[:16]}"}


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if not before:
        return
    old, new = before["settings"], now["settings"]
    restart = f"give another --output, or remove {folder} to start again"
    for name in dict.fromkeys((*new, *old)):
        if old.get(name) != new.get(name):
            if name == "pipeline":
                found = f"has other weights or another config than the one that predicted what is in {folder}"
                raise ConfigError(name, found, do=f"Resume with that pipeline, {restart}")
            started = f"the predictions in {folder} were started with {_short(old.get(name))}"
            found = f"is {_short(new.get(name))}, but {started}"
            raise ConfigError(name, found, do=f"Resume with the first value, {restart}")
    for name, origin in now["inputs"].items():
        if before["inputs"].get(name, origin)["state"] != origin["state"]:
            found = f"has changed since {folder / name} was started"
            raise DataError(origin["file"], found, "unchanged files, and new ones", f"G{restart[1:]}")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."
