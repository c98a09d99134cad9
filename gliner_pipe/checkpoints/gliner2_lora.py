"""Reads LoRA weights of the `gliner2` package and merges them into those of a GLiNER2 checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from gliner_pipe.checkpoints import schemas
from gliner_pipe.checkpoints.tensor_files import unpickled
from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.backbones.hf_weights import listed
from gliner_pipe.modeling.weights import read_parts
from gliner_pipe.util.json_files import read_object

CONFIG = "adapter_config.json"
#: Weight files: of PEFT, and of the package before version 2.
FILES = ("adapter_model.safetensors", "adapter_model.bin", "adapter_weights.safetensors")
_NAME = re.compile(
    r"(?:base_model\.model\.)?(.+?)\.(lora_A|lora_B|lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
)


class Change(NamedTuple):
    """The change of a weight: ``scale * up @ down``, and the length of each row of the result if DoRA set it."""

    down: Tensor
    up: Tensor
    scale: float
    lengths: Tensor | None

    def applied(self, weight: Tensor) -> Tensor:
        """Return the changed weight."""
        changed = weight.float() + self.scale * self.up.float() @ self.down.float()
        if self.lengths is not None:
            changed = changed * (self.lengths.float().flatten() / changed.norm(dim=1))[:, None]
        return changed.to(weight.dtype)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds LoRA weights and no checkpoint."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """Return the name of the checkpoint that LoRA weights change.

    Raises
    ------
    ConfigError
        If they do not name it.
    """
    base = _config(folder).get("base_model_name_or_path")
    if not base:
        raise ConfigError(
            "model",
            f"{str(folder)!r} holds LoRA weights that do not name their checkpoint",
            "a GLiNER2 checkpoint",
            f'Write {{"@architectures": "gliner_pipe.Pretrained.v1", "name": CHECKPOINT, "lora": {str(folder)!r}}}',
        )
    return str(base)


def read_changes(folder: Path) -> dict[str, Change]:
    """Return the changes of weights by their names in the checkpoint.

    Raises
    ------
    CheckpointError
        If files are missing, or their tensors are not those of LoRA.
    """
    config = _config(folder)
    files = [folder / name for name in FILES if (folder / name).is_file()]
    if not files:
        raise CheckpointError(f"{folder}: no LoRA weights; allowed: {', '.join(FILES)}.")
    path = files[0]
    parts = [unpickled(path)] if path.suffix == ".bin" else read_parts(path)
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in (item for part in parts for item in part.items()):
        match = _NAME.fullmatch(name)
        if match is None:
            raise CheckpointError(f"{path}: holds {name}; allowed: tensors of LoRA and DoRA.")
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}; allowed: floating-point numbers.")
        found.setdefault(match[1], {})[match[2]] = tensor
    if not found:
        raise CheckpointError(f"{path}: holds no tensors; allowed: tensors of LoRA and DoRA.")
    return {f"{module}.weight": _change(module, tensors, config, path) for module, tensors in found.items()}


def merged(
    parts: Iterable[Mapping[str, Tensor]], changes: Mapping[str, Change], folder: Path
) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors of a checkpoint with their changes.

    Raises
    ------
    CheckpointError
        If weights to change are missing.
    """
    missing = set(changes)
    for part in parts:
        yield {name: changes[name].applied(one) if name in changes else one for name, one in part.items()}
        missing -= part.keys()
    if missing:
        raise CheckpointError(
            f"{folder}: has no {listed(sorted(missing))}, which the LoRA weights change. Give the checkpoint that they "
            "were trained on."
        )


def _config(folder: Path) -> dict[str, Any]:
    config = read_object(folder / CONFIG, "Download it again")
    return schemas.checked(schemas.LoraConfig, config, folder / CONFIG)


def _change(module: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> Change:
    if not {"lora_A", "lora_B"} <= tensors.keys():
        raise CheckpointError(f"{path}: has no lora_A or no lora_B of {module}.")
    down, up = tensors["lora_A"], tensors["lora_B"]
    alpha = _of_module(config.get("alpha_pattern"), module, config.get("lora_alpha", 16.0))
    scale = alpha / (math.sqrt(len(down)) if config.get("use_rslora") else len(down))
    return Change(down, up, scale, tensors.get("lora_magnitude_vector"))


def _of_module(patterns: Mapping[str, float] | None, module: str, default: float) -> float:
    """Return the value of the first pattern that matches the end of a module's name."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return float(value)
    return float(default)
