"""Configurations and tokenizers of a GLiNER checkpoint, laid out as a saved pipeline holds them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gliner_pipe.backbones import _hf
from gliner_pipe.checkpoints import _gliner
from gliner_pipe.encoders._tables import FILE as PROMPTS
from gliner_pipe.encoders.bi_encoder import BiEncoder
from gliner_pipe.model.gliner import GLiNER

LABELS_TOKENIZER = "labels_tokenizer"
DECODER_TOKENIZER = "decoder_tokenizer"


def hf_config(settings: Mapping[str, Any] | None, name: str, where: str) -> Any:
    """Hugging Face configuration, from its `settings` if there are any, else of the model called `name`."""
    from transformers import AutoConfig

    if settings:
        settings = dict(settings)
        return AutoConfig.for_model(settings.pop("model_type"), **settings)
    return AutoConfig.from_pretrained(_hf.source_of(name, where))


def write(
    config: Mapping[str, Any], folder: Path, text_encoder: Any, state: Mapping[str, Tensor], target: Path
) -> None:
    """Write what ``GLiNER.load_assets`` reads.

    Parameters
    ----------
    config
        Content of ``gliner_config.json``.
    folder
        Of the checkpoint.
    text_encoder
        Hugging Face configuration of the text encoder.
    state
        Tensors of the checkpoint, by our names.
    target
        Folder that is written to.
    """
    kind = _gliner.Architecture.of(config, folder)
    tokenizer = _tokenizer(folder, config["model_name"])
    for token in _gliner.added_tokens(config, folder):
        if token not in tokenizer.get_vocab():
            tokenizer.add_tokens([token], special_tokens=True)
    _save(text_encoder, tokenizer, target / "encoder" / "backbone")
    if kind.bi:
        labels = hf_config(config.get("labels_encoder_config"), config["labels_encoder"], "labels_encoder")
        tokenizer = _tokenizer(folder / LABELS_TOKENIZER, config["labels_encoder"])
        _save(labels, tokenizer, target / "encoder" / "labels")
    if kind.writes:
        decoder = hf_config(config.get("labels_decoder_config"), config["labels_decoder"], "labels_decoder")
        tokenizer = _tokenizer(folder / DECODER_TOKENIZER, config["labels_decoder"], add_prefix_space=True)
        _save(decoder, tokenizer, target / "decoder")
    if config.get("precomputed_prompts_mode"):
        _write_prompts(config, state, target / "encoder")


def _tokenizer(folder: Path, name: str, **options: Any) -> Any:
    from transformers import AutoTokenizer

    has_own = any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json"))
    if has_own:
        return AutoTokenizer.from_pretrained(folder, use_fast=True)
    return AutoTokenizer.from_pretrained(_hf.source_of(name, "model"), use_fast=True, **options)


def _save(config: Any, tokenizer: Any, target: Path) -> None:
    config.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _write_prompts(config: Mapping[str, Any], state: Mapping[str, Tensor], target: Path) -> None:
    """Names of the labels of a compressed prompt, in the order of their vectors."""
    names = {
        kind: [label for _, label in sorted((config.get(key) or {}).items(), key=lambda item: int(item[0]))]
        for kind, key in (("entity", "id_to_classes"), ("relation", "rel_id_to_classes"))
    }
    size = state["encoder.table.entities"].shape[1]
    (target / PROMPTS).write_text(json.dumps({**names, "hidden_size": size}), encoding="utf8")


def embedded(model: GLiNER) -> Iterator[tuple[Any, Any, str]]:
    """Yield the Hugging Face models of `model`, each with its tokenizer and what it is called."""
    backbone: Any = model.encoder.backbone
    yield backbone.encoder, backbone.tokenizer, "text encoder"
    if isinstance(model.encoder, BiEncoder):
        yield model.encoder.label_encoder.encoder, model.encoder.label_encoder.tokenizer, "label encoder"
    if model.writer is not None:
        yield model.writer.decoder, model.writer.tokenizer, "label decoder"
