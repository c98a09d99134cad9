"""Reads GLiNER2 checkpoints: ``config.json`` of the model type ``extractor`` with weights beside it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gliner_pipe.checkpoints import gliner2_lora, gliner2_names, gliner_assets, schemas
from gliner_pipe.checkpoints.tensor_files import fit, report, weights
from gliner_pipe.modeling.backbones import hf
from gliner_pipe.modeling.block import from_blocks
from gliner_pipe.modeling.encoders.schema_encoder import SPECIAL_TOKENS
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.weights import Kept, fill
from gliner_pipe.util import consent
from gliner_pipe.util.json_files import read_object

#: ``model_type`` in the configuration.
MODEL_TYPE = "extractor"
#: Configuration of the text encoder.
ENCODER_CONFIG = "encoder_config/config.json"


def is_config(config: Mapping[str, Any]) -> bool:
    """Whether the content of a ``config.json`` is that of a GLiNER2 checkpoint."""
    return config.get("model_type") == MODEL_TYPE


def read(folder: Path, config: Mapping[str, Any], lora: Path | None = None) -> GLiNER:
    """Compose the blocks of a GLiNER2 checkpoint and load its weights.

    Parameters
    ----------
    folder
        The checkpoint.
    config
        Content of its ``config.json``.
    lora
        Folder of LoRA weights to merge; None for none.

    Raises
    ------
    CheckpointError
        If files are missing, its tensors do not match the blocks, or it requires an unknown block.
    """
    tensors, parts = weights(folder)
    schemas.check_sizes(config, tensors, folder / "config.json")
    text_encoder = gliner_assets.hf_config(_with_encoder(config, folder), folder, "model_name", tensors)
    tokenizer = _tokenizer(folder, config["model_name"], text_encoder)
    model = from_blocks(gliner2_names.blocks(config, folder, hf.max_positions(text_encoder, tokenizer)))
    model.word_splitter = {"@word_splitters": "gliner2"}
    if lora is not None:
        parts = gliner2_lora.merged(parts, gliner2_lora.read_changes(lora), folder)
    state = gliner2_names.rename(tensors, config, folder)
    with tempfile.TemporaryDirectory() as assets:
        gliner_assets.save(text_encoder, tokenizer, Path(assets) / "encoder" / "backbone")
        model.load_assets(Path(assets))
    fit(model, state, folder)
    kept: dict[str, Tensor] = {}

    def renamed() -> Iterator[dict[str, Tensor]]:
        for part in parts:
            kept.update(gliner2_names.unused(part, config, folder))
            yield gliner2_names.rename(part, config, folder)

    missing, unexpected = fill(model, renamed(), folder)
    report(missing, unexpected, folder)
    if kept:
        model.kept = Kept(dict(config), kept)
    return model.eval()


def _with_encoder(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Add the configuration of the text encoder, which stands in a file of its own."""
    path = folder / ENCODER_CONFIG
    if not path.is_file():
        return dict(config)
    return {**config, "encoder_config": read_object(path, "Download it again")}


def _tokenizer(folder: Path, name: str, text_encoder: Any) -> Any:
    """Return the tokenizer with the special tokens of prompts.

    Some uploads list them in a form that not every version of `transformers` reads; they are among the tokens of
    ``tokenizer.json`` as well.
    """
    if hf.has_tokenizer(folder):
        path = folder / "tokenizer_config.json"
        settings = read_object(path, "Download it again") if path.is_file() else {}
        options: dict[str, Any] = {"config": text_encoder}  # the config.json beside it is another one
        if isinstance(settings.get("extra_special_tokens"), list):
            options["extra_special_tokens"] = {}
        tokenizer = hf.read_tokenizer(folder, consent.is_given(), **options)
    else:
        tokenizer = gliner_assets.load_tokenizer(folder, name)
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([token for token in SPECIAL_TOKENS if token not in known], special_tokens=True)
    return tokenizer
