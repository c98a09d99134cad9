"""Rewrites the weights of models on disk: in shards, under a prefix, in the layout of the hub's cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

#: What version 4 of `transformers` cannot do, and which is refused there.
VERSION_5 = int(transformers.__version__.split(".")[0]) >= 5
needs_version_5 = pytest.mark.skipif(not VERSION_5, reason="refused with transformers 4")

SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """Change the tensors in ``model.safetensors``."""
    save_file(change(load_file(folder / SAFE)), folder / SAFE, metadata={"format": "pt"})
    return folder


def prefixed(folder: Path, prefix: str) -> Path:
    """Write a prefix before the names of all tensors."""
    return rewrite(folder, lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()})


def sharded(folder: Path, name: str = SAFE, n: int = 3) -> list[Path]:
    """Cut ``model.safetensors`` into files with an index, and return them."""
    tensors = load_file(folder / SAFE)
    (folder / SAFE).unlink()
    stem, suffix = Path(name).stem, Path(name).suffix
    paths = [folder / f"{stem}-{place + 1:05}-of-{n:05}{suffix}" for place in range(n)]
    where = {key: paths[place % n].name for place, key in enumerate(sorted(tensors))}
    for path in paths:
        part = {key: tensors[key] for key, file in where.items() if file == path.name}
        torch.save(part, path) if suffix == ".bin" else save_file(part, path, metadata={"format": "pt"})
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / f"{name}.index.json").write_text(json.dumps(index))
    return paths


def in_hub_cache(folder: Path, cache: Path, name: str) -> Path:
    """Put a folder into the hub's cache, where a snapshot consists of links to blobs; return the snapshot."""
    repo, commit = cache / f"models--{name.replace('/', '--')}", "0" * 40
    snapshot, blobs = repo / "snapshots" / commit, repo / "blobs"
    blobs.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    for place, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        shutil.copy(path, blobs / f"{place:040}")
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blobs / f"{place:040}")
    return snapshot
