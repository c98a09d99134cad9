"""Weights of models on disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_model
from torch import Tensor, nn

from gliner_pipe.errors import CheckpointError
from gliner_pipe.modeling.merging import own_weights
from gliner_pipe.util.atomic import replace_file

WEIGHTS = "model.safetensors"
#: Numbers that are read at once, one tensor at least; 16 MiB as fp32.
NUMBERS_AT_ONCE = 1 << 22


def write_weights(model: nn.Module, path: Path) -> None:
    """Write all weights but those of encoders with an adapter, which are saved apart, into the folder `path`."""
    with replace_file(path / WEIGHTS, follow=False) as file:
        save_model(own_weights(model), str(file))


def check_weights(path: Path) -> None:
    """Refuse a folder without weights.

    Raises
    ------
    CheckpointError
        If there are none.
    """
    if not (path / WEIGHTS).is_file():
        raise CheckpointError(f"{path}: no {WEIGHTS}. The folder is not whole: save the pipeline again.")


def fill_weights(model: nn.Module, path: Path) -> None:
    """Fill the weights that ``write_weights`` wrote into a model that is made already.

    Raises
    ------
    CheckpointError
        When the weights are not those of these blocks, with the names that differ.
    """
    try:
        missing, unexpected = fill(own_weights(model), read_parts(path / WEIGHTS))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
    else:
        if not missing and not unexpected:
            return
        reason = f"missing: {', '.join(missing) or 'none'}; unexpected: {', '.join(unexpected) or 'none'}"
    raise CheckpointError(f"{path / WEIGHTS} does not fit the blocks of the config: {reason}")


def shapes(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file without their numbers, on the device ``meta``; one that is stored under
    several names has them all.
    """
    with safe_open(path, framework="pt") as file:
        return _with_aliases(
            {
                name: torch.empty(file.get_slice(name).get_shape(), device="meta")
                for name in file.keys()  # noqa: SIM118 (no mapping)
            },
            file.metadata(),
        )


def read_parts(path: Path) -> Iterator[dict[str, Tensor]]:
    """Read the tensors of a safetensors file, some at a time.

    The file is opened for each part: what was read of an open one counts as memory of the process, so that the weights
    of a model would be there twice while it is loaded.
    """
    with safe_open(path, framework="pt") as file:
        sizes = {name: math.prod(file.get_slice(name).get_shape()) for name in file.offset_keys()}
    part: list[str] = []
    numbers = 0
    for name, size in sizes.items():
        if part and numbers + size > NUMBERS_AT_ONCE:
            yield _read(path, part)
            part, numbers = [], 0
        part.append(name)
        numbers += size
    if part:
        yield _read(path, part)


def _read(path: Path, names: Sequence[str]) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        return _with_aliases({name: file.get_tensor(name) for name in names}, file.metadata())


def _with_aliases(tensors: dict[str, Tensor], aliases: Mapping[str, str] | None) -> dict[str, Tensor]:
    """Add the other names of tensors; `aliases` tells the name under which each is stored, and other things."""
    return {name: tensors[kept] for name, kept in (aliases or {}).items() if kept in tensors} | tensors


def fill(model: nn.Module, parts: Iterable[Mapping[str, Tensor]]) -> tuple[list[str], list[str]]:
    """Fill weights into a model, part by part.

    Returns
    -------
    tuple
        Weights that no part had, tied ones aside, and tensors that are no weights.

    Raises
    ------
    RuntimeError
        If one has another shape.
    """
    own = model.state_dict()
    there: set[int] = set()
    unexpected: list[str] = []
    for part in parts:
        unexpected += model.load_state_dict(part, strict=False).unexpected_keys
        there |= {own[name].data_ptr() for name in part if name in own}
    missing = [name for name, weight in own.items() if weight.data_ptr() not in there and weight.numel()]
    return missing, unexpected
