"""Writes configurations and tokenizers of a GLiNER checkpoint in the layout of a saved pipeline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from gliner_pipe.checkpoints import gliner_names, schemas
from gliner_pipe.errors import CheckpointError, ConfigError, reason_of
from gliner_pipe.modeling.backbones import hf, hf_sizes, hf_weights
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
from gliner_pipe.modeling.encoders.label_table import FILE as PROMPTS
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.util import consent

LABELS_TOKENIZER = "labels_tokenizer"
DECODER_TOKENIZER = "decoder_tokenizer"


#: Key of the Hugging Face configuration of each model that a checkpoint names.
SETTINGS = {
    "model_name": "encoder_config",
    "labels_encoder": "labels_encoder_config",
    "labels_decoder": "labels_decoder_config",
}


def hf_config(
    config: Mapping[str, Any], folder: Path, key: str, tensors: Mapping[str, Tensor] | None = None
) -> Any:
    """Return the Hugging Face configuration of a model of a checkpoint, or else that of the model that it names.

    Settings without a model type are those of DeBERTa-v2, and of GPT-2 for the label decoder, as in GLiNER. Weights are
    loaded as fp32, whatever their dtype.

    Parameters
    ----------
    config
        Content of ``gliner_config.json``.
    folder
        Folder of the checkpoint, for errors.
    key
        Which model: a key of ``SETTINGS``.
    tensors
        The weights, which the model must not exceed.

    Raises
    ------
    CheckpointError
        If there is none, or it is not valid.
    """
    from transformers import AutoConfig

    name, stated = config[key], SETTINGS[key]
    if key == "model_name" and gliner_names.is_streaming(config):
        stated = "decoder_config"  # where the user finds it
    if settings := config.get(SETTINGS[key]):
        try:
            found = hf.config_of(settings, stated, default_type(key))
        except ConfigError as error:
            raise CheckpointError(f"{folder}: its {stated} {error.found}. {error.do}.") from None
        if tensors is not None:
            held = sum(tensor.numel() for tensor in tensors.values())
            hf_sizes.check(found, f"{folder}: its {stated}", held, len(tensors))
        return found
    try:
        return AutoConfig.from_pretrained(hf.source_of(name, key), trust_remote_code=consent.is_given())
    except hf_weights.FAILURES as error:
        consent.refuse(error, name, key)
        reason = error.found if isinstance(error, ConfigError) else reason_of(error, 160)
        raise CheckpointError(
            f"{folder}: has no {stated}, and the configuration of its {key}, {name!r}, cannot be read "
            f"({reason}). Write the content of that model's config.json as {stated}, or set {key} to a folder "
            "with that model."
        ) from None


def default_type(key: str) -> str:
    """Return the model type of settings without one, by the key of the model in ``SETTINGS``."""
    return "gpt2" if key == "labels_decoder" else "deberta-v2"


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
    save(*text_encoder, target / "encoder" / "backbone")
    if kind.bi:
        _drop_tokens(target / "encoder" / "backbone", gliner_names.all_added_tokens(config))
        labels = hf_config(config, folder, "labels_encoder", state)
        tokenizer = _tokenizer(config, folder / LABELS_TOKENIZER, "labels_encoder", labels)
        save(labels, tokenizer, target / "encoder" / "labels")
    if kind.generates:
        decoder = hf_config(config, folder, "labels_decoder", state)
        tokenizer = _tokenizer(
            config, folder / DECODER_TOKENIZER, "labels_decoder", decoder, add_prefix_space=True
        )
        save(decoder, tokenizer, target / "decoder")
    if config.get("precomputed_prompts_mode"):
        _write_prompts(config, state, target / "encoder")


def text_tokenizer(config: Mapping[str, Any], folder: Path, text_encoder: Any) -> Any:
    """Return the tokenizer of the text encoder, from the checkpoint or else from the model that it names."""
    tokenizer = _tokenizer(config, folder, "model_name", text_encoder)
    if gliner_names.is_streaming(config):
        return tokenizer
    # as in GLiNER: tokenizers of some models (T5, mT5) do not add the special tokens of pretraining by default
    for kind in ("bos", "eos"):
        if hasattr(tokenizer, f"add_{kind}_token") and getattr(tokenizer, f"{kind}_token_id") is not None:
            setattr(tokenizer, f"add_{kind}_token", True)
    return tokenizer


def _add_tokens(tokenizer: Any, config: Mapping[str, Any], folder: Path) -> None:
    if gliner_names.is_streaming(config) and tokenizer.pad_token is None and tokenizer.eos_token is None:
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})  # as in GLiNER, before the others
    known = tokenizer.get_vocab()
    new = [token for token in gliner_names.added_tokens(config, folder) if token not in known]
    tokenizer.add_tokens(new, special_tokens=True)
    ent, *others = gliner_names.special_tokens(config)
    if ent not in tokenizer.get_vocab():
        raise CheckpointError(
            f"{folder}: the tokenizer has no token {ent!r}, the marker of labels, although class_token_index = "
            f"{config['class_token_index']} says that it was added. The tokenizer does not belong to these weights."
        )
    if not gliner_names.is_streaming(config):
        schemas.check_tokens(config, ent, tuple(filter(None, others)), tokenizer, folder)


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
    return _tokenizer({"model_name": name}, folder, "model_name", None, **options)


def _tokenizer(config: Mapping[str, Any], folder: Path, key: str, model: Any, **options: Any) -> Any:
    """Return the tokenizer in a folder, or else that of the model that the checkpoint names.

    Raises
    ------
    CheckpointError
        If there is neither.
    """
    trusted = consent.is_given()
    if hf.has_tokenizer(folder):
        # files of old versions do not name their class, which is that of the model
        named = model is None or (folder / "tokenizer_config.json").is_file()
        own = {} if named else {"config": model}
        return hf.read_tokenizer(folder, trusted, **own)
    name = config[key]
    try:
        return hf.read_tokenizer(hf.source_of(name, key, marker=None), trusted, **options)
    except (CheckpointError, ConfigError) as error:
        if consent.HOW in str(error):
            raise
        reason = error.found if isinstance(error, ConfigError) else str(error).rstrip(".")
        raise CheckpointError(
            f"{folder}: holds no tokenizer, and that of its {key}, {name!r}, cannot be read: {reason}. "
            f"Copy tokenizer.json and tokenizer_config.json of that model into {folder}."
        ) from None


def save(config: Any, tokenizer: Any, target: Path) -> None:
    """Write configuration and tokenizer of a Hugging Face model to a folder."""
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
