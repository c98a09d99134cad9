"""The map of names between GLiNER checkpoints and our blocks, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gliner_pipe.blocks import available
from gliner_pipe.errors import CheckpointError

#: Beginnings of tensor names: theirs, ours.
PREFIXES = (
    ("token_rep_layer.bert_layer.model.", "encoder.backbone.encoder."),
    ("token_rep_layer.bert_layer.layers_fuser.", "encoder.backbone.fusion."),
    ("token_rep_layer.projection.", "encoder.backbone.projection."),
    ("rnn.", "encoder.rnn."),
    ("span_rep_layer.span_rep_layer.", "span_rep."),
    ("prompt_rep_layer.", "prompt_rep."),
)

#: Tensors that uni-encoder checkpoints may hold and never use.
UNUSED = ("cross_fuser.",)

#: Keys that ask for a block which is not here, with the value that asks for none.
ABSENT = {
    "labels_encoder": None,
    "labels_decoder": None,
    "relations_layer": None,
    "span_encoder_config": None,
    "precomputed_prompts_mode": None,
}


def blocks(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Configuration of the blocks that a ``gliner_config.json`` asks for."""
    for key, nothing in ABSENT.items():
        if config.get(key, nothing) not in (nothing, False):
            raise CheckpointError(
                f"{folder}: asks for {key} = {config[key]!r}, for which there is no block yet."
            )
    span_mode = str(config.get("span_mode", "markerV0"))
    if span_mode not in available("span_reps"):
        raise CheckpointError(
            f"{folder}: asks for span_mode = {span_mode!r}; allowed: {', '.join(available('span_reps'))}."
        )
    dropout = config.get("dropout", 0.4)
    ent, sep = special_tokens(config)
    return {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "dropout": dropout,
        "encoder": {
            "@encoders": "uni_encoder",
            "rnn_layers": config.get("num_rnn_layers", 1),
            "embed_ent_token": config.get("embed_ent_token", True),
            "ent_token": ent,
            "sep_token": sep,
            "backbone": {
                "@backbones": "transformer",
                "model": config["model_name"],
                "pooling": config.get("subtoken_pooling", "first"),
                "hidden_size": config.get("hidden_size", 512),
                "fuse_layers": bool(config.get("fuse_layers", False)),
            },
        },
        "span_rep": {"@span_reps": span_mode, "max_width": config.get("max_width", 12), "dropout": dropout},
        "loss": {"@losses": "gliner_pipe.focal"},
        "decoder": {"@decoders": "span"},
    }


def special_tokens(config: Mapping[str, Any]) -> tuple[str, str]:
    """Tokens that stand before each label, and after all labels."""
    return config.get("ent_token", "<<ENT>>"), config.get("sep_token", "<<SEP>>")


def word_splitter(config: Mapping[str, Any], folder: Path) -> str:
    """Name of the word splitter that the checkpoint was trained with."""
    name = str(config.get("words_splitter_type", "whitespace"))
    if name not in available("word_splitters"):
        raise CheckpointError(
            f"{folder}: asks for words_splitter_type = {name!r}; allowed: {', '.join(available('word_splitters'))}."
        )
    return name


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors our names; unknown ones keep theirs and are reported as unexpected."""
    renamed = {}
    for name, tensor in state.items():
        if name.startswith(UNUSED):
            continue
        for theirs, ours in PREFIXES:
            if name.startswith(theirs):
                name = ours + name[len(theirs) :]
                break
        renamed[name] = tensor
    return renamed
