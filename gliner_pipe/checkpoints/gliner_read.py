"""Reads GLiNER checkpoints: ``gliner_config.json`` with weights beside it."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from gliner_pipe.checkpoints import gliner_assets, gliner_names
from gliner_pipe.errors import CheckpointError, ConfigError, reason_of
from gliner_pipe.modeling.backbones import hf, hf_weights
from gliner_pipe.modeling.block import from_blocks
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.weights import fill, read_parts, shapes
from gliner_pipe.util.consent import trusting

CONFIG = "gliner_config.json"
#: Weight files in order of preference.
WEIGHTS = ("model.safetensors", "model.fp16.safetensors", "model.bf16.safetensors", "pytorch_model.bin")
#: Files to download: configurations, tokenizers and weights, which may be in several files (shards) with an index.
FILES = ("*.json", "*.txt", "*.model", "*_tokenizer/*", *WEIGHTS, "*-of-*.safetensors", "*-of-*.bin")
#: First part of the names of most tensors of a checkpoint.
_ROOT = "token_rep_layer."
_ALLOWED = "a folder with a GLiNER checkpoint, an installed package that holds one, a hub id"


def read_checkpoint(name: str) -> GLiNER:
    """Compose the blocks of a GLiNER checkpoint and load its weights.

    Parameters
    ----------
    name
        A folder, an installed package that holds a checkpoint, or a hub id.

    Raises
    ------
    CheckpointError
        If files are missing, its tensors do not match the blocks, or it requires an unknown block.
    """
    folder = _folder(name)
    config = _read_config(config_file(folder) or folder / CONFIG)
    text_encoder = gliner_assets.hf_config(config, folder, "model_name")
    tokenizer = gliner_assets.text_tokenizer(config, folder, text_encoder)
    blocks = gliner_names.blocks(config, folder, text_encoder, tokenizer)
    model = from_blocks(blocks)
    model.word_splitter = gliner_names.word_splitter(config)
    tensors, parts = _weights(folder)
    prefix = _prefix(tensors, folder)
    state = gliner_names.rename(_without(tensors, prefix), config, folder)
    gliner_names.check_prompts(state, config, folder)
    with tempfile.TemporaryDirectory() as assets:
        gliner_assets.write(config, folder, (text_encoder, tokenizer), state, Path(assets))
        model.load_assets(Path(assets))
    _fit(model, state, folder)
    parts = (gliner_names.rename(_without(part, prefix), config, folder) for part in parts)
    missing, unexpected = fill(model, parts)
    _report(missing, unexpected, folder)
    return model.eval()


def read_encoder(name: str, trust_remote_code: bool = False, *, part: str) -> Any:
    """Return one encoder of a checkpoint: the base of an adapter saved without it.

    Parameters
    ----------
    name
        As for ``read_checkpoint``.
    trust_remote_code
        Consent to run Python code that comes with the encoder.
    part
        Name of the module that holds the encoder, such as ``"encoder.backbone"``.
    """
    with trusting(trust_remote_code):
        return read_checkpoint(name).get_submodule(part).encoder


def _folder(name: str) -> Path:
    folder = hf.locate(name, CONFIG)
    if folder is None:
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise ConfigError("model", f"found {name!r}, which is not a folder", _ALLOWED, "Check the path")
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name, allow_patterns=list(FILES)))
        except Exception as error:  # the hub client raises errors of many kinds
            reason = reason_of(error, 200)
            raise ConfigError(
                "model", f"{name!r} cannot be downloaded from the hub ({reason})", _ALLOWED
            ) from error
    if config_file(folder) is None:
        raise ConfigError("model", f"{name!r} has no {CONFIG}", _ALLOWED, _hint(name, folder))
    return folder


def config_file(folder: Path) -> Path | None:
    """Return the file with GLiNER's configuration: ``gliner_config.json``, or a ``config.json`` of the same content."""
    if (folder / CONFIG).is_file():
        return folder / CONFIG
    other = folder / "config.json"
    return other if _is_config(other) else None


def _is_config(path: Path) -> bool:
    """Whether a JSON file has the content of a ``gliner_config.json``."""
    try:
        content = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"model_name", "span_mode"} <= content.keys()


def _hint(name: str, folder: Path) -> str:
    """Return what to do with a folder without GLiNER's configuration."""
    if (folder / "meta.json").is_file():
        return f"It is a spaCy pipeline: spacy.load({name!r})"
    renamed = [path.name for path in sorted(folder.glob("*.json")) if _is_config(path)]
    inside = [path.parent.name for path in sorted(folder.glob(f"*/{CONFIG}"))]
    if renamed:
        return f"Rename {renamed[0]}, which has that content, to {CONFIG}"
    return f"Give the folder {str(folder / inside[0])!r}, which has one" if inside else ""


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: no valid JSON ({error}).") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: found {type(config).__name__}; allowed: a JSON object.")
    if not config.get("model_name"):
        raise CheckpointError(f"{path}: has no model_name, the text encoder. Is it a GLiNER checkpoint?")
    return config


def _weights(folder: Path) -> tuple[dict[str, Tensor], Iterable[dict[str, Tensor]]]:
    """Return the tensors of a checkpoint without data, and an iterable that loads their data in parts."""
    files = next(filter(None, (_files(folder, name) for name in WEIGHTS)), [])
    if not files:
        raise CheckpointError(
            f"{folder}: no weights; allowed: {' or '.join(WEIGHTS)}, or one of them in shards with an index."
        )
    tensors: dict[str, Tensor] = {}
    for path in files:
        tensors |= _unpickled(path, "meta") if path.suffix == ".bin" else _shapes(path)
    return tensors, chain.from_iterable(
        [_unpickled(path)] if path.suffix == ".bin" else read_parts(path) for path in files
    )


def _files(folder: Path, name: str) -> list[Path]:
    """Return the files of the weights `name`: the file itself, or its shards; none if there are neither."""
    if (folder / name).is_file():
        return [folder / name]
    index = folder / f"{name}.index.json"
    return hf_weights.shards(index) if index.is_file() else []


def _shapes(path: Path) -> dict[str, Tensor]:
    try:
        return shapes(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a valid safetensors file ({error}). Download it again.") from None


def _prefix(names: Iterable[str], folder: Path) -> str:
    """Return what wrappers (DataParallel, `peft`, a training loop) have put before all names of tensors."""
    found = sorted({name[: name.index(_ROOT)] for name in names if _ROOT in name})
    if len(found) > 1 or (found and found[0] and not hf_weights.is_wrapper(found[0])):
        shown = ", ".join(repr(prefix) if prefix else "none" for prefix in found)
        raise CheckpointError(
            f"{folder}: its tensors have the prefix {shown} before {_ROOT}; allowed: none, or one of a wrapper, "
            "such as 'module.'. Remove it from the names."
        )
    return found[0] if found else ""


def _without(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return tensors under names without the prefix of a wrapper, and without that of `peft` around the encoder."""
    return {
        name.removeprefix(prefix).replace(".base_model.model.", "."): tensor
        for name, tensor in tensors.items()
    }


def _unpickled(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Load a pickle file of tensors; a file that holds anything else, such as code, is refused."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        reason = reason_of(error, 200)
        raise CheckpointError(
            f"{path}: holds more than tensors, or is incomplete ({reason}). No code was run. Request the model as "
            "model.safetensors."
        ) from None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(
            f"{path}: holds more than named tensors. Request the model as model.safetensors."
        )
    return state


def _fit(model: GLiNER, state: Mapping[str, Tensor], folder: Path) -> None:
    """Resize the embeddings to the rows of the checkpoint, and compare shapes."""
    for part, tokenizer, name in gliner_assets.embedded(model):
        embeddings = part.get_input_embeddings()
        (key,) = (k for k, p in model.named_parameters() if p is embeddings.weight)
        rows = len(state[key]) if key in state else embeddings.num_embeddings
        if rows < len(tokenizer):
            raise CheckpointError(
                f"{folder}: the tokenizer of the {name} has {len(tokenizer)} tokens, the weights {rows}. "
                "The tokenizer does not belong to these weights."
            )
        if rows != embeddings.num_embeddings:
            part.resize_token_embeddings(rows, mean_resizing=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = [
        f"{name} {tuple(tensor.shape)} instead of {shapes[name]}"
        for name, tensor in state.items()
        if shapes.get(name, tuple(tensor.shape)) != tuple(tensor.shape)
    ]
    if wrong:
        raise CheckpointError(
            f"{folder}: the tensors do not match the blocks. Wrong shape: {hf_weights.listed(wrong)}."
        )


def _report(missing: Sequence[str], unexpected: Sequence[str], folder: Path) -> None:
    """Refuse a checkpoint whose tensors do not match the blocks."""
    unexpected = [name for name in unexpected if not name.endswith("position_ids")]
    if missing and any(".lora_" in name or ".base_layer." in name for name in unexpected):
        why = hf_weights.reason("the blocks", missing, unexpected, ())
        raise CheckpointError(f"{folder}: {why}")
    if missing or unexpected:
        raise CheckpointError(
            f"{folder}: the tensors do not match the blocks. Missing: {hf_weights.listed(missing)}. "
            f"Unexpected: {hf_weights.listed(unexpected)}."
        )
