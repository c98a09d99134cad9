"""Writes GLiNER2 checkpoints of both architectures, which the `gliner2` package loads with the same results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from gliner_pipe.checkpoints import gliner2_boundary
from gliner_pipe.checkpoints.gliner2_read import ENCODER_CONFIG, MODEL_TYPE
from gliner_pipe.checkpoints.refusals import Format
from gliner_pipe.checkpoints.tensor_files import WEIGHTS
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.classifiers.label_mlp import LabelMlp
from gliner_pipe.modeling.decoders.per_label import PerLabel
from gliner_pipe.modeling.decoders.span import SpanDecoder
from gliner_pipe.modeling.encoders.schema_encoder import SchemaEncoder
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.merging import merged
from gliner_pipe.modeling.record_finders.boundary_records import BoundaryRecords
from gliner_pipe.modeling.relation_finders.boundary_pairs import BoundaryPairs
from gliner_pipe.modeling.span_reps.boundary_base import BoundarySpanRep
from gliner_pipe.modeling.span_reps.marker import MarkerV0
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import replace_directory

#: The file that tells a checkpoint.
CONFIG = "config.json"

_GLINER2 = Format("a GLiNER2 checkpoint")

#: Names of tensors, as regular expressions: ours, theirs. The first that matches applies.
_NAMES = (
    (r"encoder\.backbone\.encoder\.", "encoder."),
    (r"span_rep\.", "span_rep.span_rep_layer."),
    (r"classifier\.network\.", "classifier."),
    (r"counter\.number\.", "count_pred."),
    (r"counter\.of_instance\.(\w+)$", r"count_embed.gru.\1_ih_l0"),
    (r"counter\.of_state\.(\w+)$", r"count_embed.gru.\1_hh_l0"),
    (
        r"counter\.(layers\.\d+)\.in_proj\.(\w+)$",
        r"count_embed.transformer.transformer.\1.self_attn.in_proj_\2",
    ),
    (r"counter\.(layers\.\d+)\.out_proj\.", r"count_embed.transformer.transformer.\1.self_attn.out_proj."),
    (r"counter\.(layers\.\d+)\.", r"count_embed.transformer.transformer.\1."),
    (r"counter\.(in_projector|out_projector)\.", r"count_embed.transformer.\1."),
    (r"counter\.", "count_embed."),
)


def is_gliner2(model: GLiNER) -> bool:
    """Whether a model reads its prompt as GLiNER2 does, so that it can only be a checkpoint of it."""
    return isinstance(model.encoder, SchemaEncoder)


def write_checkpoint(model: GLiNER, target: Path) -> Path:
    """Write a model with weights as a GLiNER2 checkpoint, replacing an existing one; return the folder.

    Adapters are merged in the written weights; the model itself keeps them. Labels, thresholds and tasks are not part
    of a checkpoint.

    Raises
    ------
    ConfigError
        If GLiNER2 has no equivalent block, or a different score for it; nothing is written then.
    """
    config = checkpoint_config(model)
    model = merged(model)
    backbone: Any = model.encoder.backbone
    if config["architecture"] == "span":
        tensors = {_renamed(name): tensor for name, tensor in model.state_dict().items()}
    else:
        tensors = gliner2_boundary.tensors_of(model)
    settings = backbone.encoder.config.to_dict() | {
        "vocab_size": len(backbone.encoder.get_input_embeddings().weight)
    }
    with replace_directory(target, marker=CONFIG) as folder:
        (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf8")
        (folder / ENCODER_CONFIG).parent.mkdir()
        (folder / ENCODER_CONFIG).write_text(json.dumps(settings, indent=2, default=str), encoding="utf8")
        save_file({name: _alone(tensor) for name, tensor in tensors.items()}, folder / WEIGHTS[0])
        backbone.tokenizer.save_pretrained(folder)
    return target


def checkpoint_config(model: GLiNER) -> dict[str, Any]:
    """Return the content of ``config.json`` for a model.

    Raises
    ------
    ConfigError
        If GLiNER2 has no equivalent block, or a different score for it.
    """
    backbone = _GLINER2.require_kind(
        "encoder.backbone", model.encoder.backbone, Transformer, "@backbones = transformer"
    )
    _GLINER2.require("encoder.backbone.special_pieces", backbone.special_pieces, False)
    _GLINER2.require("encoder.backbone.pooling", backbone.pooling, "first", "mean", "max")
    _GLINER2.require("encoder.backbone.fuse_layers", backbone.fuse_layers, False)
    _GLINER2.require_kind("classifier", model.classifier, LabelMlp, "@classifiers = label_mlp")
    for option in ("fusion", "context", "relation_layer"):
        if getattr(model, option) is not None:
            raise _GLINER2.refusal(option, f"found {type(getattr(model, option)).__name__}", "null")
    common = {
        "model_type": MODEL_TYPE,
        "architecture_version": 1,
        "config_version": 3,
        "model_name": backbone.model_name,
        "token_pooling": backbone.pooling,
        "max_len": None,
    }
    return {**common, **(_boundary(model) if isinstance(model.span_rep, BoundarySpanRep) else _span(model))}


def _span(model: GLiNER) -> dict[str, Any]:
    """Return what the architecture ``span`` has in ``config.json``."""
    allowed = "@span_reps = markerV0, boundary or boundary_pool"
    spans = _GLINER2.require_kind("span_rep", model.span_rep, MarkerV0, allowed)
    counter = _name(model.counter)
    decoder = _GLINER2.require_kind("decoder", model.decoder, SpanDecoder, "@decoders = span")
    _GLINER2.require("decoder.across_labels", decoder.across_labels, False)
    return {
        "architectures": ["GLiNER2"],
        "architecture": "span",
        "counting_layer": counter,
        "max_width": spans.max_width,
        "span_head": {"max_width": spans.max_width, "span_mode": "markerV0", "dropout": spans.dropout},
    }


def _boundary(model: GLiNER) -> dict[str, Any]:
    """Return what the architecture ``boundary`` has in ``config.json``."""
    if model.counter is not None:
        raise _GLINER2.refusal("counter", f"found {type(model.counter).__name__}", "null with boundaries")
    _GLINER2.require_kind("decoder", model.decoder, PerLabel, "@decoders = per_label")
    pairs, records = model.relation_finder, model.record_finder
    if pairs is not None:
        pairs = _GLINER2.require_kind(
            "relation_finder", pairs, BoundaryPairs, "null or @relation_finders = boundary_pairs"
        )
        _GLINER2.require("relation_finder.join_mentions", pairs.joins_mentions, True)
    if records is not None:
        allowed = "null or @record_finders = boundary_records"
        _GLINER2.require_kind("record_finder", records, BoundaryRecords, allowed)
    return {
        "architectures": ["BoundaryExtractor"],
        "architecture": "boundary",
        "boundary_head": gliner2_boundary.head_of(model),
        "max_len": None if model.kept is None else model.kept.config.get("max_len"),
    }


def _name(counter: Block | None) -> str:
    for name in ("count_lstm", "count_lstm_v2", "count_lstm_moe"):
        if type(counter) is registry.counters.get(name):
            return name
    raise _GLINER2.refusal("counter", f"found {type(counter).__name__}", "a counter of this package")


def _renamed(name: str) -> str:
    for ours, theirs in _NAMES:
        if found := re.match(ours, name):
            return found.expand(theirs) + name[found.end() :]
    return name


def _alone(tensor: Tensor) -> Tensor:
    """Return a tensor that shares its memory with no other."""
    return tensor.detach().cpu().clone().contiguous()
