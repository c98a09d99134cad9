"""Weights of models on disk: writing, checking and loading them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn

from gliner_pipe.errors import CheckpointError, reason_of
from gliner_pipe.modeling.backbones.hf_weights import listed
from gliner_pipe.modeling.merging import own_weights
from gliner_pipe.util.atomic import replace_file
from gliner_pipe.util.json_files import read_object

WEIGHTS = "model.safetensors"
#: Folder of what a model keeps of the checkpoint that it was read from, and its files.
KEPT = "checkpoint"
KEPT_CONFIG, KEPT_TENSORS = "config.json", "unused.safetensors"
#: Largest number of elements to read at once, but at least one tensor; 16 MiB in fp32.
NUMBERS_AT_ONCE = 1 << 22


class Kept(NamedTuple):
    """What a model keeps of the checkpoint that it was read from, so that the checkpoint can be written again.

    Attributes
    ----------
    config
        Content of its configuration.
    tensors
        Tensors that no block has, by their names there.
    """

    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def write(self, path: Path) -> None:
        """Write it into a folder of a model."""
        folder = path / KEPT
        folder.mkdir(exist_ok=True)
        with replace_file(folder / KEPT_CONFIG) as file:
            file.write_text(json.dumps(self.config, indent=2, ensure_ascii=False), encoding="utf8")
        with replace_file(folder / KEPT_TENSORS) as file:
            save_file(self.tensors, str(file))

    @classmethod
    def read(cls, path: Path) -> Kept | None:
        """Read it from a folder of a model; None if there is none."""
        folder = path / KEPT
        if not (folder / KEPT_CONFIG).is_file():
            return None
        return cls(read_object(folder / KEPT_CONFIG), load_file(folder / KEPT_TENSORS))


def write_weights(model: nn.Module, path: Path) -> None:
    """Write the weights into the folder `path`, without encoders that have an adapter, which are saved separately."""
    with replace_file(path / WEIGHTS, follow=False) as file:
        save_model(own_weights(model), str(file))


def check_weights(path: Path) -> None:
    """Check that a folder contains weights.

    Raises
    ------
    CheckpointError
        If it does not.
    """
    if not (path / WEIGHTS).is_file():
        raise CheckpointError(f"{path}: found no {WEIGHTS}. Save the pipeline again.")


def fill_weights(model: nn.Module, path: Path) -> None:
    """Load the weights that ``write_weights`` wrote into a model.

    Raises
    ------
    CheckpointError
        If the weights do not fit the blocks of the model.
    """
    try:
        missing, unexpected = fill(own_weights(model), read_parts(path / WEIGHTS), path / WEIGHTS)
    except RuntimeError as error:
        reason = reason_of(error)
    else:
        if not missing and not unexpected:
            return
        reason = f"missing: {listed(missing)}; unexpected: {listed(unexpected)}"
    raise CheckpointError(f"{path / WEIGHTS} does not fit the blocks of the config: {reason}")


def shapes(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file under all their names, on the device ``meta``: shapes only."""
    with safe_open(path, framework="pt") as file:
        return _with_aliases(
            {
                name: torch.empty(file.get_slice(name).get_shape(), device="meta")
                for name in file.keys()  # noqa: SIM118 (no mapping)
            },
            file.metadata(),
        )


def read_parts(path: Path) -> Iterator[dict[str, Tensor]]:
    """Read the tensors of a safetensors file in parts.

    The file is opened again for each part: the read parts of an open file count as memory of the process, so that the
    weights of a model would take twice their memory during loading.
    """
    with safe_open(path, framework="pt") as file:
        sizes = {name: math.prod(file.get_slice(name).get_shape()) for name in file.offset_keys()}
    part: list[str] = []
    total = 0
    for name, size in sizes.items():
        if part and total + size > NUMBERS_AT_ONCE:
            yield _read(path, part)
            part, total = [], 0
        part.append(name)
        total += size
    if part:
        yield _read(path, part)


def _read(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return _with_aliases({name: file.get_tensor(name) for name in names}, file.metadata())


def _with_aliases(tensors: dict[str, Tensor], aliases: Mapping[str, str] | None) -> dict[str, Tensor]:
    """Add shared tensors under their other names; `aliases` maps these to the stored names, among other metadata."""
    return {name: tensors[kept] for name, kept in (aliases or {}).items() if kept in tensors} | tensors


def fill(
    model: nn.Module, parts: Iterable[Mapping[str, Tensor]], where: object = "weights"
) -> tuple[list[str], list[str]]:
    """Load weights into a model, part by part.

    Parameters
    ----------
    model
        The model.
    parts
        Tensors by name.
    where
        Their file or folder, for errors.

    Returns
    -------
    missing : list of str
        Weights that are in no part, except those that share memory with a weight that is.
    unexpected : list of str
        Tensors that are not weights of the model.

    Raises
    ------
    RuntimeError
        If a shape differs.
    CheckpointError
        If a tensor holds values that are no numbers.
    """
    own = model.state_dict()
    filled: set[int] = set()
    unexpected: list[str] = []
    for part in parts:
        _check_numbers(part, own, where)
        unexpected += model.load_state_dict(part, strict=False).unexpected_keys
        filled |= {own[name].data_ptr() for name in part if name in own}
    missing = [name for name, weight in own.items() if weight.data_ptr() not in filled and weight.numel()]
    return missing, unexpected


def _check_numbers(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], where: object) -> None:
    for name, tensor in tensors.items():
        if name in own and own[name].is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(
                f"{where}: the tensor {name} has the dtype {tensor.dtype}; allowed: floating-point numbers. Use the "
                "weights before their quantisation."
            )
        # the sum is not finite if any value is not, and is faster; a sum may also overflow
        if tensor.is_floating_point() and not tensor.sum(dtype=torch.float32).isfinite():
            wrong = int((~tensor.float().isfinite()).sum())
            if wrong:
                raise CheckpointError(
                    f"{where}: the tensor {name} holds {wrong} of {tensor.numel()} values that are infinite or no "
                    "number (NaN). The weights are damaged, or their training failed: use others."
                )
