"""Writes configurations and tokenizers of a GLiNER checkpoint in the layout of a saved pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gliner_pipe.checkpoints import gliner_names
from gliner_pipe.errors import CheckpointError
from gliner_pipe.modeling.backbones import hf
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
from gliner_pipe.modeling.encoders.label_table import FILE as PROMPTS
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.util import consent

LABELS_TOKENIZER = "labels_tokenizer"
DECODER_TOKENIZER = "decoder_tokenizer"


def hf_config(settings: Mapping[str, Any] | None, name: str, where: str, kind: str = "deberta-v2") -> Any:
    """Return the Hugging Face configuration in `settings`, or else that of the model `name`.

    Settings without a model type are those of `kind`, as in GLiNER. Weights are loaded as fp32, whatever their dtype.
    """
    from transformers import AutoConfig

    if settings:
        left_out = ("dtype", "torch_dtype", "auto_map")  # the last names code
        settings = {
            key: value
            for key, value in settings.items()
            if key not in left_out and not (key.endswith("attn_implementation") and "/" in str(value))
        }
        return AutoConfig.for_model(settings.pop("model_type", None) or kind, **settings)
    try:
        return AutoConfig.from_pretrained(hf.source_of(name, where), trust_remote_code=consent.is_given())
    except ValueError as error:
        consent.refuse(error, name, where)
        raise


def write(
    config: Mapping[str, Any],
    folder: Path,
    text_encoder: tuple[Any, Any],
    state: Mapping[str, Tensor],
    target: Path,
) -> None:
    """Write the files that ``GLiNER.load_assets`` reads.

    Parameters
    ----------
    config
        Content of ``gliner_config.json``.
    folder
        Folder of the checkpoint.
    text_encoder
        Hugging Face configuration and tokenizer of the text encoder; special tokens are added to the tokenizer.
    state
        Tensors of the checkpoint, by our names.
    target
        Output folder.
    """
    kind = gliner_names.Architecture.of(config, folder)
    if not kind.bi:
        _add_tokens(text_encoder[1], config, folder)
    _save(*text_encoder, target / "encoder" / "backbone")
    if kind.bi:
        _drop_tokens(target / "encoder" / "backbone", gliner_names.all_added_tokens(config))
        labels = hf_config(config.get("labels_encoder_config"), config["labels_encoder"], "labels_encoder")
        tokenizer = load_tokenizer(folder / LABELS_TOKENIZER, config["labels_encoder"])
        _save(labels, tokenizer, target / "encoder" / "labels")
    if kind.generates:
        decoder = hf_config(
            config.get("labels_decoder_config"), config["labels_decoder"], "labels_decoder", "gpt2"
        )
        tokenizer = load_tokenizer(
            folder / DECODER_TOKENIZER, config["labels_decoder"], add_prefix_space=True
        )
        _save(decoder, tokenizer, target / "decoder")
    if config.get("precomputed_prompts_mode"):
        _write_prompts(config, state, target / "encoder")


def text_tokenizer(config: Mapping[str, Any], folder: Path) -> Any:
    """Return the tokenizer of the text encoder, from the checkpoint or else from the model that it names."""
    tokenizer = load_tokenizer(folder, config["model_name"])
    # as in GLiNER: tokenizers of some models (T5, mT5) do not add the special tokens of pretraining by default
    for kind in ("bos", "eos"):
        if hasattr(tokenizer, f"add_{kind}_token") and getattr(tokenizer, f"{kind}_token_id") is not None:
            setattr(tokenizer, f"add_{kind}_token", True)
    return tokenizer


def _add_tokens(tokenizer: Any, config: Mapping[str, Any], folder: Path) -> None:
    known = tokenizer.get_vocab()
    new = [token for token in gliner_names.added_tokens(config, folder) if token not in known]
    tokenizer.add_tokens(new, special_tokens=True)
    ent = gliner_names.special_tokens(config)[0]
    if ent not in tokenizer.get_vocab():
        raise CheckpointError(
            f"{folder}: the tokenizer has no token {ent!r}, which precedes each label, although class_token_index = "
            f"{config['class_token_index']} says that it was added. The tokenizer does not belong to these weights."
        )


def _drop_tokens(folder: Path, tokens: Sequence[str]) -> None:
    """Remove `tokens` from a saved tokenizer.

    GLiNER also adds them to the tokenizers of bi-encoders, whose embeddings have no rows for them: a text that
    contains one of them would fail.
    """
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf8"))
    base = content["model"].get("vocab") or {}
    content["added_tokens"] = [
        token
        for token in content["added_tokens"]
        if token["content"] not in tokens or token["content"] in base
    ]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf8")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf8"))
    if "added_tokens_decoder" in settings:
        kept = {str(token["id"]) for token in content["added_tokens"]}
        decoder = settings["added_tokens_decoder"]
        settings["added_tokens_decoder"] = {place: decoder[place] for place in decoder if place in kept}
        path.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf8")


def load_tokenizer(folder: Path, name: str, **options: Any) -> Any:
    """Return a tokenizer as GLiNER loads it: from a folder if it is there, else that of the model `name`."""
    from transformers import AutoTokenizer

    has_own = any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json"))
    source = str(folder) if has_own else hf.source_of(name, "model")
    options = {} if has_own else options
    try:
        return AutoTokenizer.from_pretrained(
            source, use_fast=True, trust_remote_code=consent.is_given(), **options
        )
    except ValueError as error:
        consent.refuse(error, source, "model")
        raise


def _save(config: Any, tokenizer: Any, target: Path) -> None:
    config.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _write_prompts(config: Mapping[str, Any], state: Mapping[str, Tensor], target: Path) -> None:
    """Write the label names of a compressed prompt, in the order of their vectors."""
    names = {
        kind: [label for _, label in sorted((config.get(key) or {}).items(), key=lambda item: int(item[0]))]
        for kind, key in (("entity", "id_to_classes"), ("relation", "rel_id_to_classes"))
    }
    size = state["encoder.table.entities"].shape[1]
    (target / PROMPTS).write_text(json.dumps({**names, "hidden_size": size}), encoding="utf8")


def embedded(model: GLiNER) -> Iterator[tuple[Any, Any, str]]:
    """Yield the Hugging Face models of `model`, each with its tokenizer and a name for messages."""
    backbone: Any = model.encoder.backbone
    yield backbone.encoder, backbone.tokenizer, "text encoder"
    if isinstance(model.encoder, BiEncoder):
        yield model.encoder.label_encoder.encoder, model.encoder.label_encoder.tokenizer, "label encoder"
    if model.label_generator is not None:
        yield model.label_generator.decoder, model.label_generator.tokenizer, "label decoder"
