"""Reads GLiNER checkpoints: ``gliner_config.json`` with weights beside it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gliner_pipe.backbones import _hf
from gliner_pipe.checkpoints import _gliner
from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.model.gliner import GLiNER
from gliner_pipe.model.pretrained import Pretrained

CONFIG = "gliner_config.json"
#: Weight files in the order in which they are looked for.
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def read_checkpoint(name: str) -> GLiNER:
    """Compose the blocks that a GLiNER checkpoint asks for and fill in its weights.

    Parameters
    ----------
    name
        A folder, an installed package that holds a checkpoint, or a hub id.

    Raises
    ------
    CheckpointError
        When the folder is not whole, its tensors are not those of the blocks, or it needs a block that is not here.
    """
    folder = _folder(name)
    config = _read_config(folder / CONFIG)
    blocks = _gliner.blocks(config, folder)
    model = Pretrained.from_blocks(blocks)
    model.word_splitter = _gliner.word_splitter(config, folder)
    with tempfile.TemporaryDirectory() as assets:
        _write_assets(config, folder, Path(assets) / "backbone")
        model.encoder.load_assets(Path(assets))
    model.make()
    _fill(model, _gliner.rename(_read_weights(folder)), folder)
    return model


def _folder(name: str) -> Path:
    folder = _hf.locate(name, CONFIG)
    if folder is None:
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            raise ConfigError("model", f"found {name!r}, which is no folder", _ALLOWED, "Check the path")
        from huggingface_hub import snapshot_download

        try:
            folder = Path(snapshot_download(name, allow_patterns=["*.json", "*.txt", "*.model", *WEIGHTS]))
        except Exception as error:  # the hub client has a tree of its own
            reason = " ".join(str(error).split())[:200]
            raise ConfigError("model", f"{name!r} cannot be had from the hub ({reason})", _ALLOWED) from error
    if not (folder / CONFIG).is_file():
        hint = f"It is a spaCy pipeline: spacy.load({name!r})" if (folder / "meta.json").is_file() else ""
        raise ConfigError("model", f"{name!r} holds no {CONFIG}", _ALLOWED, hint)
    return folder


_ALLOWED = "a folder with a GLiNER checkpoint, an installed package that holds one, a hub id"


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: no valid JSON ({error}).") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: found {type(config).__name__}; allowed: a JSON object.")
    return config


def _read_weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if (folder / WEIGHTS[0]).is_file():
        return load_file(folder / WEIGHTS[0])
    if (folder / WEIGHTS[1]).is_file():
        state: dict[str, Tensor] = torch.load(folder / WEIGHTS[1], map_location="cpu", weights_only=True)
        return state
    raise CheckpointError(f"{folder}: no weights; allowed: {' or '.join(WEIGHTS)}.")


def _write_assets(config: Mapping[str, Any], folder: Path, target: Path) -> None:
    """Put the backbone's configuration and tokenizer together, as a saved pipeline holds them."""
    from transformers import AutoConfig, AutoTokenizer

    name = config["model_name"]
    settings = config.get("encoder_config")
    if settings:
        settings = dict(settings)
        encoder_config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    else:
        encoder_config = AutoConfig.from_pretrained(_hf.source_of(name, "model"))
    has_tokenizer = any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json"))
    tokenizer = AutoTokenizer.from_pretrained(
        folder if has_tokenizer else _hf.source_of(name, "model"), use_fast=True
    )
    ent, sep = _gliner.special_tokens(config)
    if tokenizer.convert_tokens_to_ids(ent) in (None, tokenizer.unk_token_id):
        tokenizer.add_tokens(["[FLERT]", ent, sep], special_tokens=True)
    encoder_config.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _fill(model: GLiNER, state: dict[str, Tensor], folder: Path) -> None:
    backbone: Any = model.encoder.backbone
    embeddings = backbone.encoder.get_input_embeddings()
    (key,) = (k for k, p in model.named_parameters() if p is embeddings.weight)
    rows = len(state[key]) if key in state else embeddings.num_embeddings
    if rows < len(backbone.tokenizer):
        raise CheckpointError(
            f"{folder}: the tokenizer knows {len(backbone.tokenizer)} pieces, the weights {rows}. "
            "The tokenizer is not the one of these weights."
        )
    if rows != embeddings.num_embeddings:
        backbone.encoder.resize_token_embeddings(rows, mean_resizing=False)
    missing, unexpected = model.load_state_dict(state, strict=False)
    unexpected = [name for name in unexpected if not name.endswith("position_ids")]
    if missing or unexpected:
        raise CheckpointError(
            f"{folder}: the tensors are not those of the blocks. Missing: {', '.join(missing) or 'none'}. "
            f"Unexpected: {', '.join(unexpected) or 'none'}."
        )
