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
from gliner_pipe.checkpoints.gliner_read import CONFIG, WEIGHTS
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones import word_spaces
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
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

#: Relation layers that GLiNER has.
RELATION_LAYERS = ("dot", "mlp", "attention", "bilinear", "gcn", "gat", "none")


def write_checkpoint(model: GLiNER, target: Path, word_splitter: str = "spacy") -> Path:
    """Write a model as a GLiNER checkpoint, replacing an existing one.

    Parameters
    ----------
    model
        The blocks, with weights.
    target
        Output folder.
    word_splitter
        Registered name of the word splitter, one of ``gliner_names.WORD_SPLITTERS``.

    Returns
    -------
    Path
        The folder.

    Notes
    -----
    Adapters are merged in the written weights, since GLiNER has none; the model itself keeps them.

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
        backbone: Any = model.encoder.backbone
        backbone.tokenizer.save_pretrained(folder)
        _check_words(backbone, folder)
        if isinstance(model.encoder, BiEncoder):
            model.encoder.label_encoder.tokenizer.save_pretrained(folder / LABELS_TOKENIZER)
        if model.label_generator is not None:
            model.label_generator.tokenizer.save_pretrained(folder / DECODER_TOKENIZER)
    return target


def _check_words(backbone: Transformer, folder: Path) -> None:
    """Refuse a tokenizer that GLiNER would load without the space before words that the model was trained with."""
    if word_spaces.SETTING not in backbone.tokenizer.init_kwargs:
        return
    if not word_spaces.are_read(load_tokenizer(folder, backbone.model_name)):
        kind = type(backbone.tokenizer).__name__
        raise _refuse(
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
    )
    _check_encoder(model, kind)
    _check_heads(model, kind)
    return kind


def _refuse(where: str, found: str, allowed: str) -> ConfigError:
    do = "Keep the pipeline in spaCy's format, which supports all blocks"
    return ConfigError(
        f"components.*.model.{where}", f"{found}, which a GLiNER checkpoint does not support", allowed, do
    )


def _check_encoder(model: GLiNER, kind: gliner_names.Architecture) -> None:
    encoder, backbone = model.encoder, model.encoder.backbone
    if not isinstance(backbone, Transformer):
        raise _refuse("encoder.backbone", f"found {type(backbone).__name__}", "@backbones = transformer")
    if isinstance(encoder, UniEncoder):
        if encoder.table is not None:
            raise _refuse("encoder", "has a compressed prompt", "a model before compression")
        if model.fusion is not None:
            raise _refuse("fusion", "found a fusion after a uni_encoder", "no fusion")
    elif isinstance(encoder, BiEncoder):
        labels = encoder.label_encoder
        if encoder.rnn_layers:
            raise _refuse("encoder.rnn_layers", f"found {encoder.rnn_layers} in a bi_encoder", "0")
        if labels.pooling != "mean":
            raise _refuse("encoder.label_pooling", f"found {labels.pooling!r}", "mean")
        if labels.fuse_layers != backbone.fuse_layers:
            raise _refuse(
                "encoder.fuse_label_layers", f"found {labels.fuse_layers}", str(backbone.fuse_layers)
            )
        if kind.relates or kind.generates:
            raise _refuse(
                "encoder", "found a bi_encoder with relations or a generative decoder", "uni_encoder"
            )
        heads = backbone.encoder.config.num_attention_heads
        if model.fusion is not None and not isinstance(model.fusion, CrossAttention):
            raise _refuse("fusion", f"found {type(model.fusion).__name__}", "cross_attention")
        if model.fusion is not None and model.fusion.n_heads != heads:
            raise _refuse(
                "fusion.n_heads", f"found {model.fusion.n_heads}", f"{heads}, as in the text encoder"
            )
    else:
        raise _refuse("encoder", f"found {type(encoder).__name__}", "uni_encoder, bi_encoder")


def _check_heads(model: GLiNER, kind: gliner_names.Architecture) -> None:
    _name("span_reps", model.span_rep)
    if kind.relates and kind.generates:
        raise _refuse("decoder", "found a generative decoder together with relations", "one of them")
    if isinstance(model.span_rep, TokenLevel):
        if model.span_rep.project_labels != kind.relates:
            raise _refuse(
                "span_rep.project_labels",
                f"found {model.span_rep.project_labels}",
                f"{kind.relates}, as the model has {'' if kind.relates else 'no '}relations",
            )
        wanted = {True: (False,), False: (True,) if kind.generates else (True, False)}[kind.relates]
        if model.span_rep.represent_spans not in wanted:
            raise _refuse(
                "span_rep.represent_spans", f"found {model.span_rep.represent_spans}", str(wanted[0])
            )
    if model.relation_layer is None:
        return
    layer = _name("relation_layers", model.relation_layer)
    if layer not in RELATION_LAYERS:
        raise _refuse("relation_layer", f"found {layer!r}", ", ".join(RELATION_LAYERS))
    _check_triple(model)


def _check_triple(model: GLiNER) -> None:
    assert model.triple is not None
    name, size = _name("triples", model.triple), model.encoder.output_size
    if name == "concat":
        return
    if name not in gliner_names.TRIPLES or name == "conve":
        allowed = ", ".join(sorted({*gliner_names.TRIPLES, "concat"} - {"conve"}))
        raise _refuse("triple", f"found {name!r}", allowed)
    if name in gliner_names.COMPATIBLE and not getattr(model.triple, "compatible", False):
        raise _refuse("triple.compatible", "found False, whose scores differ from GLiNER's", "True")
    if getattr(model.triple, "margin", 0.0):
        raise _refuse("triple.margin", f"found {model.triple.margin}", "0")
    if name in WIDE and size != WIDE_SIZE:
        raise _refuse("triple", f"found {name!r} with vectors of width {size}", f"a width of {WIDE_SIZE}")


def _name(family: str, block: Block) -> str:
    """Return the registered name of a block's class."""
    for name, made in getattr(registry, family).get_all().items():
        if made is type(block):
            return str(name)
    raise _refuse(family, f"found {type(block).__name__}", "a block of this package")


def _model_type(kind: gliner_names.Architecture) -> str:
    level = "token" if kind.token else "span"
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
    assert isinstance(encoder, UniEncoder)
    backbone: Any = encoder.backbone
    index = backbone.tokenizer.convert_tokens_to_ids
    settings = {
        "num_rnn_layers": encoder.rnn_layers,
        "embed_ent_token": encoder.embed_ent_token,
        "ent_token": encoder.ent_token,
        "sep_token": encoder.sep_token,
        "class_token_index": index(encoder.ent_token),
    }
    if encoder.rel_token is not None:
        settings |= {
            "rel_token": encoder.rel_token,
            "embed_rel_token": encoder.embed_rel_token,
            "rel_token_index": index(encoder.rel_token),
        }
    return settings


def _of_spans(span_rep: Block) -> dict[str, Any]:
    if not isinstance(span_rep, TokenLevel):
        return {}
    return {
        "represent_spans": span_rep.represent_spans,
        "token_loss_coef": span_rep.token_loss_coef,
        "span_loss_coef": span_rep.span_loss_coef,
        "neg_spans_ratio": span_rep.neg_spans_ratio,
    }


def _of_context(model: GLiNER) -> dict[str, Any]:
    if model.context is None:
        return {}
    context: Any = model.context
    name = _name("context_encoders", context)
    settings: dict[str, Any] = {
        "model_type": "rnn" if name == "lstm" else name,
        "hidden_size": context.width or model.encoder.output_size,
        "num_hidden_layers": context.n_layers,
    }
    if name == "lstm":
        return {
            "span_encoder_config": {
                **settings,
                "dropout": context.dropout,
                "bidirectional": context.bidirectional,
            }
        }
    if context.n_heads is not None:
        settings["num_attention_heads"] = context.n_heads
    return {"span_encoder_config": {**settings, **(context.config or {})}}


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
