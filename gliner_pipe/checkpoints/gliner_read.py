"""Reads checkpoints of GLiNER: ``gliner_config.json`` with weights beside it; and finds those of GLiNER2."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gliner_pipe.checkpoints import (
    gliner2_boundary,
    gliner2_lora,
    gliner2_read,
    gliner_assets,
    gliner_names,
    schemas,
)
from gliner_pipe.checkpoints.tensor_files import WEIGHTS, fit, report, weights
from gliner_pipe.errors import CheckpointError, ConfigError, reason_of, unreadable
from gliner_pipe.modeling.backbones import hf, hf_weights
from gliner_pipe.modeling.block import from_blocks
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.weights import fill
from gliner_pipe.util.consent import trusting
from gliner_pipe.util.json_files import read_object

CONFIG = "gliner_config.json"
#: Files to download: configurations, tokenizers and weights, which may be in several files (shards) with an index.
FILES = (
    *("*.json", "*.txt", "*.model", "*_tokenizer/*", "encoder_config/*", *gliner2_lora.FILES),
    *(*WEIGHTS, "*-of-*.safetensors", "*-of-*.bin"),
)
#: First part of the names of most tensors of a checkpoint.
_ROOT = "token_rep_layer."
_ALLOWED = "a folder with a GLiNER checkpoint, an installed package that holds one, a hub id"


def read_checkpoint(name: str, lora: str | None = None, budgets: Mapping[str, float] | None = None) -> GLiNER:
    """Compose the blocks of a checkpoint of GLiNER or GLiNER2 and load its weights.

    Parameters
    ----------
    name
        A folder, an installed package that holds a checkpoint, or a hub id. Also LoRA weights of a GLiNER2 checkpoint
        that name it.
    lora
        LoRA weights of a GLiNER2 checkpoint to merge, likewise.
    budgets
        How many spans and pairs a GLiNER2.5 checkpoint proposes, in place of what its configuration says.

    Raises
    ------
    CheckpointError
        If files are missing, its tensors do not match the blocks, or it requires an unknown block.
    """
    folder = _folder(name)
    if lora is None and gliner2_lora.is_adapter(folder):
        return read_checkpoint(gliner2_lora.base_of(folder), name, budgets)
    path = config_file(folder) or folder / CONFIG
    config = _read_config(path)
    if budgets:
        config = gliner2_boundary.with_budgets(config, budgets, name)
    if gliner2_read.is_config(config):
        merged = None if lora is None else _folder(lora, of_lora=True)
        with unreadable(folder):
            return gliner2_read.read(folder, config, merged)
    if lora is not None:
        raise ConfigError("components.*.model.lora", f"is set for {name!r}", "a GLiNER2 checkpoint, or null")
    with unreadable(folder):
        return _read(folder, config, path)


def _read(folder: Path, config: Mapping[str, Any], path: Path) -> GLiNER:
    tensors, parts = weights(folder)
    schemas.check_sizes(config, tensors, path)
    text_encoder = gliner_assets.hf_config(config, folder, "model_name", tensors)
    tokenizer = gliner_assets.text_tokenizer(config, folder, text_encoder)
    blocks = gliner_names.blocks(config, folder, text_encoder, tokenizer)
    model = from_blocks(blocks)
    model.word_splitter = gliner_names.word_splitter(config)
    prefix = _prefix(tensors, folder)
    state = gliner_names.rename(_without(tensors, prefix), config, folder)
    gliner_names.check_prompts(state, config, folder)
    with tempfile.TemporaryDirectory() as assets:
        gliner_assets.write(config, folder, (text_encoder, tokenizer), state, Path(assets))
        model.load_assets(Path(assets))
    fit(model, state, folder)
    parts = (gliner_names.rename(_without(part, prefix), config, folder) for part in parts)
    missing, unexpected = fill(model, parts, folder)
    report(missing, unexpected, folder)
    return model.eval()


def read_encoder(name: str, trust_remote_code: bool = False, *, part: str, lora: str | None = None) -> Any:
    """Return one encoder of a checkpoint: the base of an adapter saved without it.

    Parameters
    ----------
    name
        As for ``read_checkpoint``.
    trust_remote_code
        Consent to run Python code that comes with the encoder.
    part
        Name of the module that holds the encoder, such as ``"encoder.backbone"``.
    lora
        As for ``read_checkpoint``.
    """
    with trusting(trust_remote_code):
        return read_checkpoint(name, lora).get_submodule(part).encoder


def _folder(name: str, of_lora: bool = False) -> Path:
    """Return the folder of a checkpoint, or of LoRA weights."""
    folder = hf.locate(name, CONFIG) or hf.locate(name)
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
    if of_lora and not (folder / gliner2_lora.CONFIG).is_file():
        where, allowed = "components.*.model.lora", "LoRA weights of a GLiNER2 checkpoint"
        raise ConfigError(where, f"{name!r} has no {gliner2_lora.CONFIG}", allowed)
    if not of_lora and config_file(folder) is None and not gliner2_lora.is_adapter(folder):
        raise ConfigError("model", f"{name!r} has no {CONFIG}", _ALLOWED, _hint(name, folder))
    return folder


def config_file(folder: Path) -> Path | None:
    """Return the file with the configuration: ``gliner_config.json``, or a ``config.json`` of GLiNER or GLiNER2."""
    if (folder / CONFIG).is_file():
        return folder / CONFIG
    other = folder / "config.json"
    return other if _is_config(other) else None


def _is_config(path: Path) -> bool:
    """Whether a JSON file has the content of a ``gliner_config.json``, or is the configuration of GLiNER2."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(content, dict):
        return False
    return {"model_name", "span_mode"} <= content.keys() or gliner2_read.is_config(content)


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
    config = read_object(path, "Download it again")
    is_gliner2 = gliner2_read.is_config(config)
    config = schemas.checked(schemas.Gliner2Config if is_gliner2 else schemas.GlinerConfig, config, path)
    config = gliner_names.normalized(config)
    if not config.get("model_name"):
        raise CheckpointError(f"{path}: has no model_name, the text encoder. Is it a GLiNER checkpoint?")
    return config


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
