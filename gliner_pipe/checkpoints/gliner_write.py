"""Writes GLiNER checkpoints, which the `gliner` package loads with the same entities."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from gliner_pipe.checkpoints import gliner_names
from gliner_pipe.checkpoints.gliner_assets import DECODER_TOKENIZER, LABELS_TOKENIZER, load_tokenizer
from gliner_pipe.checkpoints.gliner_read import CONFIG
from gliner_pipe.checkpoints.refusals import Format
from gliner_pipe.checkpoints.tensor_files import WEIGHTS
from gliner_pipe.modeling.backbones import word_spaces
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
from gliner_pipe.modeling.encoders.causal_encoder import CausalEncoder
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.fusions import CrossAttention
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.merging import merged
from gliner_pipe.modeling.span_reps.token_level import TokenLevel
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import replace_directory

#: Triple scorers that GLiNER supports for vectors of this width only.
WIDE = ("transh", "transf", "pairre", "triplere", "tucker", "ermlp", "convkb")
WIDE_SIZE = 768

_GLINER = Format("a GLiNER checkpoint")

#: Relation layers that GLiNER has.
RELATION_LAYERS = ("dot", "mlp", "attention", "bilinear", "gcn", "gat", "none")


def write_checkpoint(model: GLiNER, target: Path, word_splitter: str = "spacy") -> Path:
    """Write a model with weights as a GLiNER checkpoint, replacing an existing one; return the folder.

    The word splitter is one of ``gliner_names.WORD_SPLITTERS``. Adapters are merged in the written weights, since
    GLiNER has none; the model itself keeps them.

    Raises
    ------
    ConfigError
        If GLiNER has no equivalent block, or a different score for it; nothing is written then.
    """
    model = merged(model)
    kind = _kind(model)
    config = gliner_config(model, word_splitter)
    tensors, aliases = _tensors(gliner_names.restore(model.state_dict(), kind))
    with replace_directory(target, marker=CONFIG) as folder:
        (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf8")
        save_file(tensors, folder / WEIGHTS[0], metadata=aliases or None)
        save_tokenizers(model, folder)
    return target


def save_tokenizers(model: GLiNER, folder: Path) -> None:
    """Write the tokenizers of a model into the folder of a GLiNER checkpoint.

    Raises
    ------
    ConfigError
        If GLiNER would read words differently than the model.
    """
    backbone: Any = model.encoder.backbone
    backbone.tokenizer.save_pretrained(folder)
    _check_words(backbone, folder)
    if isinstance(model.encoder, BiEncoder):
        model.encoder.label_encoder.tokenizer.save_pretrained(folder / LABELS_TOKENIZER)
    if model.label_generator is not None:
        model.label_generator.tokenizer.save_pretrained(folder / DECODER_TOKENIZER)


def _check_words(backbone: Transformer, folder: Path) -> None:
    """Refuse a tokenizer that GLiNER would load without the space before words that the model was trained with."""
    if word_spaces.SETTING not in backbone.tokenizer.init_kwargs:
        return
    if not word_spaces.are_read(load_tokenizer(folder, backbone.model_name)):
        kind = type(backbone.tokenizer).__name__
        raise _GLINER.refusal(
            "encoder.backbone.model", f"found the tokenizer {kind} with a space before words", "another one"
        )


def gliner_config(model: GLiNER, word_splitter: str = "spacy") -> dict[str, Any]:
    """Return the content of ``gliner_config.json`` for a model.

    Raises
    ------
    ConfigError
        If GLiNER has no equivalent block, or a different score for it.
    """
    kind = _kind(model)
    backbone = model.encoder.backbone
    assert isinstance(backbone, Transformer)
    config: dict[str, Any] = {
        "model_type": _model_type(kind),
        "model_name": backbone.model_name,
        "name": "gliner",
        "max_width": model.max_width or 12,
        "hidden_size": model.encoder.output_size,
        "dropout": model.dropout,
        "fine_tune": not backbone.freeze,
        "subtoken_pooling": backbone.pooling,
        "span_mode": _name("span_reps", model.span_rep),
        "fuse_layers": backbone.fuse_layers,
        "max_len": max(384, backbone.window // 2),
        "words_splitter_type": word_splitter,
        "vocab_size": len(backbone.encoder.get_input_embeddings().weight),
        "encoder_config": backbone.encoder.config.to_dict(),
        "num_rnn_layers": 0,
        "span_loss_coef": model.coefficients["span"],
        "labels_encoder": None,
        "labels_decoder": None,
        "relations_layer": None,
    }
    config |= _of_encoder(model) | _of_spans(model.span_rep) | _of_context(model)
    if model.relation_layer is not None:
        config |= _of_relations(model)
    if model.label_generator is not None:
        config |= _of_generator(model)
    return config


def _kind(model: GLiNER) -> gliner_names.Architecture:
    """Return GLiNER's architecture for a model; blocks without an equivalent are refused."""
    kind = gliner_names.Architecture(
        isinstance(model.encoder, BiEncoder),
        isinstance(model.span_rep, TokenLevel),
        model.label_generator is not None,
        model.relation_layer is not None,
        isinstance(model.encoder, CausalEncoder),
    )
    _check_encoder(model, kind)
    _check_heads(model, kind)
    return kind


def _check_encoder(model: GLiNER, kind: gliner_names.Architecture) -> None:
    encoder, fusion = model.encoder, model.fusion
    allowed = "@backbones = transformer, causal_transformer"
    backbone = _GLINER.require_kind("encoder.backbone", encoder.backbone, Transformer, allowed)
    if isinstance(encoder, CausalEncoder):
        if encoder.label_context is None:
            raise _GLINER.refusal(
                "encoder.label_context", "found none", "an encoder over the vectors of the prompt"
            )
        if fusion is not None:
            raise _GLINER.refusal("fusion", "found a fusion after a causal_encoder", "no fusion")
        return
    if isinstance(encoder, UniEncoder):
        if encoder.table is not None:
            raise _GLINER.refusal("encoder", "has a compressed prompt", "a model before compression")
        if fusion is not None:
            raise _GLINER.refusal("fusion", "found a fusion after a uni_encoder", "no fusion")
        return
    bi_encoder = _GLINER.require_kind(
        "encoder", encoder, BiEncoder, "uni_encoder, bi_encoder, causal_encoder"
    )
    labels = bi_encoder.label_encoder
    _GLINER.require("encoder.rnn_layers", bi_encoder.rnn_layers, 0)
    _GLINER.require("encoder.label_pooling", labels.pooling, "mean")
    _GLINER.require("encoder.fuse_label_layers", labels.fuse_layers, backbone.fuse_layers)
    if kind.relates or kind.generates:
        found = "found a bi_encoder with relations or a generative decoder"
        raise _GLINER.refusal("encoder", found, "uni_encoder")
    if fusion is not None:
        attention = _GLINER.require_kind("fusion", fusion, CrossAttention, "cross_attention")
        heads = backbone.encoder.config.num_attention_heads
        _GLINER.require("fusion.n_heads", attention.n_heads, heads, why=", as in the text encoder")


def _check_heads(model: GLiNER, kind: gliner_names.Architecture) -> None:
    for option in ("counter", "classifier", "relation_finder", "record_finder"):
        if block := getattr(model, option):
            raise _GLINER.refusal(option, f"found {type(block).__name__}", "null")
    spans = model.span_rep
    _name("span_reps", spans)
    if kind.relates and kind.generates:
        raise _GLINER.refusal("decoder", "found a generative decoder together with relations", "one of them")
    if kind.streaming and (kind.token or kind.generates):
        option, found = ("span_rep", "token_level") if kind.token else ("decoder", "generative")
        raise _GLINER.refusal(option, f"found {found} after a causal_encoder", "another one")
    if isinstance(spans, TokenLevel):
        why = f", as the model has {'' if kind.relates else 'no '}relations"
        _GLINER.require("span_rep.project_labels", spans.project_labels, kind.relates, why=why)
        wanted = (False,) if kind.relates else (True,) if kind.generates else (True, False)
        _GLINER.require("span_rep.represent_spans", spans.represent_spans, *wanted)
    if model.relation_layer is not None:
        _GLINER.require("relation_layer", _name("relation_layers", model.relation_layer), *RELATION_LAYERS)
        _check_triple(model)


def _check_triple(model: GLiNER) -> None:
    assert model.triple is not None
    name, size = _name("triples", model.triple), model.encoder.output_size
    _GLINER.require("triple", name, *sorted({*gliner_names.TRIPLES, "concat"} - {"conve"}))
    if name in gliner_names.COMPATIBLE:
        why = ", with GLiNER's scores"
        _GLINER.require("triple.compatible", getattr(model.triple, "compatible", False), True, why=why)
    _GLINER.require("triple.margin", getattr(model.triple, "offset", 0.0), 0.0)
    if name in WIDE and size != WIDE_SIZE:
        found = f"found {name!r} with vectors of width {size}"
        raise _GLINER.refusal("triple", found, f"a width of {WIDE_SIZE}")


def _name(family: str, block: Block) -> str:
    """Return the registered name of a block's class."""
    for name, made in getattr(registry, family).get_all().items():
        if made is type(block):
            return str(name)
    raise _GLINER.refusal(family, f"found {type(block).__name__}", "a block of this package")


def _model_type(kind: gliner_names.Architecture) -> str:
    level = "token" if kind.token else "span"
    if kind.streaming:
        return gliner_names.STREAMING
    if kind.generates:
        return "gliner_encoder_token_decoder" if kind.token else "gliner_uni_encoder_span_decoder"
    return f"gliner_{'bi' if kind.bi else 'uni'}_encoder_{level}{'_relex' if kind.relates else ''}"


def _of_encoder(model: GLiNER) -> dict[str, Any]:
    encoder = model.encoder
    if isinstance(encoder, BiEncoder):
        fusion = model.fusion if isinstance(model.fusion, CrossAttention) else None
        return {
            "labels_encoder": encoder.label_encoder.model_name,
            "labels_encoder_config": encoder.label_encoder.encoder.config.to_dict(),
            "post_fusion_schema": "-".join(fusion.steps) if fusion else "",
            "num_post_fusion_layers": fusion.n_layers if fusion else 1,
            "class_token_index": -1,
            "vocab_size": -1,
        }
    if isinstance(encoder, CausalEncoder):
        return _of_causal(encoder)
    assert isinstance(encoder, UniEncoder)
    backbone: Any = encoder.backbone
    index = backbone.tokenizer.convert_tokens_to_ids
    same = ["embed_ent_token", "ent_token", "sep_token"]
    settings = {"num_rnn_layers": encoder.rnn_layers, "class_token_index": index(encoder.ent_token)}
    if encoder.rel_token is not None:
        same += ["rel_token", "embed_rel_token"]
        settings["rel_token_index"] = index(encoder.rel_token)
    return settings | {name: getattr(encoder, name) for name in same}


def _of_causal(encoder: CausalEncoder) -> dict[str, Any]:
    backbone = encoder.backbone
    index = backbone.tokenizer.convert_tokens_to_ids
    return {
        "encoder_config": None,
        "decoder_config": backbone.encoder.config.to_dict(),
        "labels_encoder_config": _context_settings(encoder.label_context, encoder.output_size),
        "num_rnn_layers": encoder.rnn_layers,
        "label_token": encoder.label_token,
        "sep_token": encoder.sep_token,
        "class_token_index": index(encoder.label_token),
        "sep_token_index": index(encoder.sep_token),
        "right_context_width": encoder.right_context,
        "max_cache_length": encoder.max_session_tokens,
    }


def _of_spans(span_rep: Block) -> dict[str, Any]:
    same = ("represent_spans", *gliner_names.TOKEN_SETTINGS) if isinstance(span_rep, TokenLevel) else ()
    return {name: getattr(span_rep, name) for name in same}


def _of_context(model: GLiNER) -> dict[str, Any]:
    if model.context is None:
        return {}
    return {"span_encoder_config": _context_settings(model.context, model.encoder.output_size)}


def _context_settings(context: Any, size: int) -> dict[str, Any]:
    """Return the configuration of an encoder over vectors of width `size`."""
    name = _name("context_encoders", context)
    settings: dict[str, Any] = {
        "model_type": "rnn" if name == "lstm" else name,
        "hidden_size": context.width or size,
        "num_hidden_layers": context.n_layers,
    }
    if name == "lstm":
        settings |= {"dropout": context.dropout, "bidirectional": context.bidirectional}
    else:
        heads = {} if context.n_heads is None else {"num_attention_heads": context.n_heads}
        settings |= heads | (context.config or {})
    return settings


def _of_relations(model: GLiNER) -> dict[str, Any]:
    assert model.relation_layer is not None and model.triple is not None
    triple = _name("triples", model.triple)
    return {
        "relations_layer": _name("relation_layers", model.relation_layer),
        "triples_layer": None if triple == "concat" else gliner_names.TRIPLES[triple],
        "adjacency_loss_coef": model.coefficients["adjacency"],
        "relation_loss_coef": model.coefficients["relation"],
    }


def _of_generator(model: GLiNER) -> dict[str, Any]:
    writer = model.label_generator
    assert writer is not None
    return {
        "labels_decoder": writer.model_name,
        "labels_decoder_config": writer.decoder.config.to_dict(),
        "decoder_mode": writer.mode,
        "full_decoder_context": writer.full_context,
        "blank_entity_prob": writer.blank_entity_prob,
        "decoder_loss_coef": model.coefficients["label"],
    }


def _tensors(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file without duplicates, and the aliases of duplicates."""
    kept: dict[Any, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    key: Callable[[Tensor], Any] = lambda tensor: (tensor.data_ptr(), tensor.shape, tensor.stride())  # noqa: E731
    for name, tensor in state.items():
        if tensor.numel() and key(tensor) in kept:
            aliases[name] = kept[key(tensor)]
            continue
        kept[key(tensor)] = name
        tensors[name] = tensor.detach().cpu().clone().contiguous()
    return tensors, aliases
