"""Maps GLiNER's ``gliner_config.json`` to our blocks, and GLiNER's tensor names to ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gliner_pipe.errors import CheckpointError
from gliner_pipe.modeling.backbones.hf import max_positions, stated_attention
from gliner_pipe.modeling.backbones.windows import default_stride
from gliner_pipe.modeling.block import available

#: Other spellings of span modes and relation layers.
ALIASES = {"token-level": "token_level", "span_level": "markerV0", "attn": "attention"}

#: Triple scorers of GLiNER by our names.
TRIPLES = {
    name.lower(): name
    for name in (
        *("UM", "SE", "TransE", "TransH", "TransF", "PairRE", "TripleRE", "DistMult", "SimplE", "DistMA"),
        *("ComplEx", "QuatE", "HolE", "TuckER", "ERMLP", "ConvE", "ConvKB"),
    )
}

#: Triple scorers that match GLiNER only with ``compatible = true``.
COMPATIBLE = ("um", "se", "transe", "transh", "transf", "pairre", "triplere", "tucker")

#: Prefixes of tensor names in any checkpoint: theirs, ours.
PREFIXES = (
    ("token_rep_layer.bert_layer.model.", "encoder.backbone.encoder."),
    ("token_rep_layer.bert_layer.layers_fuser.", "encoder.backbone.fusion."),
    ("token_rep_layer.projection.", "encoder.backbone.projection."),
    ("token_rep_layer.labels_encoder.model.", "encoder.label_encoder.encoder."),
    ("token_rep_layer.labels_encoder.layers_fuser.", "encoder.label_encoder.fusion."),
    ("token_rep_layer.labels_projection.", "encoder.label_encoder.projection."),
    ("span_rep_layer.context_encoder.", "context."),
    ("prompt_rep_layer.", "prompt_rep."),
    ("scorer.", "span_rep.scorer."),
    ("decoder.decoder_layer.model.", "decoder.decoder."),
    ("_enc2dec_proj.", "decoder.projection."),
    ("relations_rep_layer.relation_rep_layer.", "relation_layer."),
    ("pair_rep_layer.", "triple.pair_rep."),
    ("triples_score_layer.interaction.", "triple."),
    ("precomputed_prompts", "encoder.table.entities"),
    ("precomputed_rel_prompts", "encoder.table.relations"),
)

#: Prefixes in streaming models, in place of those of ``token_rep_layer``.
STREAMING_PREFIXES = (
    ("token_rep_layer.decoder_layer.model.", "encoder.backbone.encoder."),
    ("token_projection.", "encoder.backbone.projection."),
    ("labels_encoder.encoder.", "encoder.label_context."),
)

#: Settings of token models that have the same name in both.
TOKEN_SETTINGS = ("token_loss_coef", "span_loss_coef", "neg_spans_ratio")

#: The one model type that the other keys do not determine.
STREAMING = "gliner_streaming_span"


def is_streaming(config: Mapping[str, Any]) -> bool:
    """Whether a ``gliner_config.json`` is that of a streaming model."""
    return config.get("model_type") == STREAMING


def normalized(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of a streaming model under the keys of other models; that of others unchanged.

    Its language model is the text encoder. Earlier versions of GLiNER name it ``labels_decoder``.
    """
    config = dict(config)
    if not is_streaming(config):
        return config
    named = config.pop("labels_decoder", None)
    settings = [config.pop(key, None) for key in ("decoder_config", "labels_decoder_config")]
    if named and config.get("model_name") in (None, _DEFAULT_MODEL):
        config["model_name"] = named
    config["encoder_config"] = next(filter(None, settings), None)
    if config["encoder_config"]:
        rows = config.get("vocab_size", -1)
        own = {"vocab_size": rows} if isinstance(rows, int) and rows > 0 else {}
        config["encoder_config"] = {"model_type": "gpt2", **config["encoder_config"], **own}
    unread = ("labels_encoder", "relations_layer", "precomputed_prompts_mode", "post_fusion_schema")
    return {**config, **dict.fromkeys(unread), "fuse_layers": False}


#: What GLiNER names as text encoder if nothing is given.
_DEFAULT_MODEL = "microsoft/deberta-v3-small"


@dataclass(frozen=True)
class Architecture:
    """Which of GLiNER's model classes a configuration describes.

    Attributes
    ----------
    bi
        Labels have an encoder of their own.
    token
        Words are scored, not spans.
    generates
        A language model generates labels.
    relates
        Relations are classified.
    streaming
        A language model encodes the text from left to right.
    """

    bi: bool
    token: bool
    generates: bool
    relates: bool
    streaming: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], folder: Path) -> Architecture:
        """Return the class of a configuration, in GLiNER's precedence: relations, label generation, label encoder."""
        if is_streaming(config):
            modes = [mode for mode in available("span_reps") if mode != "token_level"]
            _known(folder, "span_mode", _span_mode(config, folder), modes)
            return cls(bi=False, token=False, generates=False, relates=False, streaming=True)
        relates = config.get("relations_layer") is not None
        generates = not relates and bool(config.get("labels_decoder"))
        bi = not relates and not generates and bool(config.get("labels_encoder"))
        return cls(bi, _span_mode(config, folder) == "token_level", generates, relates)

    def prefixes(self) -> tuple[tuple[str, str], ...]:
        """Return the prefixes of tensor names: theirs, ours."""
        spans = "span_rep.marker." if self.token else "span_rep."
        own = [("span_rep_layer.span_rep_layer.", spans)]
        own.append(("cross_fuser.", "fusion.") if self.bi else ("rnn.", "encoder.rnn."))
        if not self.streaming:
            return (*PREFIXES, *own)
        common = [pair for pair in PREFIXES if not pair[0].startswith("token_rep_layer.")]
        return (*STREAMING_PREFIXES, *common, *own)

    def unused(self, represent_spans: bool) -> tuple[str, ...]:
        """Return the prefixes of tensors that GLiNER saves and never loads."""
        names = ["rnn."] if self.bi else ["cross_fuser."]
        if self.token and not self.relates:
            names.append("prompt_rep_layer.")
        if self.token and not (self.relates or self.generates or represent_spans):
            names.append("span_rep_layer.")
        return tuple(names)


def blocks(config: Mapping[str, Any], folder: Path, text_encoder: Any, tokenizer: Any) -> dict[str, Any]:
    """Return the configuration of the blocks that a ``gliner_config.json`` describes.

    Parameters
    ----------
    config
        Content of the file.
    folder
        Folder of the checkpoint, for errors.
    text_encoder
        Hugging Face configuration of the text encoder; None if unavailable, the window then depends on ``max_len``
        alone.
    tokenizer
        Tokenizer of the text encoder, or None.
    """
    kind = Architecture.of(config, folder)
    dropout = config.get("dropout", 0.4)
    limit = None if text_encoder is None else max_positions(text_encoder, tokenizer)
    made: dict[str, Any] = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "dropout": dropout,
        "encoder": _encoder(config, kind, folder, limit),
        "span_rep": _span_rep(config, kind, folder, dropout),
        "loss": {"@losses": "gliner_pipe.focal"},
        "decoder": _decoder(config, kind, dropout),
        "span_loss_coef": 1.0 if kind.token else config.get("span_loss_coef", 1.0),
    }
    if kind.bi and config.get("post_fusion_schema"):
        made["fusion"] = {
            "@fusions": "cross_attention",
            "pattern": config["post_fusion_schema"],
            "n_layers": config.get("num_post_fusion_layers", 1),
            "dropout": dropout,
        }
        if text_encoder is not None:
            made["fusion"]["n_heads"] = text_encoder.num_attention_heads
    if config.get("span_encoder_config") and (
        not kind.token or kind.relates or represents_spans(config, kind)
    ):
        made["context"] = _context(config["span_encoder_config"], folder, dropout)
    if kind.relates:
        made |= _relations(config, folder, dropout)
    if kind.generates:
        made["decoder_loss_coef"] = config.get("decoder_loss_coef", 0.5)
    return made


def _span_mode(config: Mapping[str, Any], folder: Path) -> str:
    mode = str(config.get("span_mode", "markerV2" if is_streaming(config) else "markerV0"))
    return _known(folder, "span_mode", ALIASES.get(mode, mode), available("span_reps"))


def _known(folder: Path, key: str, value: Any, allowed: Collection[str]) -> Any:
    """Return a value, or raise the error that it is not allowed."""
    if value not in allowed:
        raise CheckpointError(f"{folder}: has {key} = {value!r}; allowed: {', '.join(allowed)}.")
    return value


def _encoder(
    config: Mapping[str, Any], kind: Architecture, folder: Path, limit: int | None
) -> dict[str, Any]:
    # a text that GLiNER does not split is one window
    room = 2 * int(config.get("max_len") or 384)
    window = max(16, room if limit is None else min(room, limit - 4))
    backbone = {
        "@backbones": "transformer",
        "model": config["model_name"],
        "pooling": config.get("subtoken_pooling", "first"),
        "hidden_size": config.get("hidden_size", 512),
        "fuse_layers": bool(config.get("fuse_layers", False)),
        "freeze": config.get("fine_tune", True) is False,
        "window": window,
        "stride": default_stride(window),
        "attn_implementation": _attention(config),
    }
    if kind.bi:
        return {
            "@encoders": "bi_encoder",
            "label_model": config["labels_encoder"],
            "fuse_label_layers": bool(config.get("fuse_layers", False)),
            "backbone": backbone,
        }
    ent, sep, rel = special_tokens(config)
    if kind.streaming:
        labels = config.get("labels_encoder_config") or {"model_type": "deberta-v2"}
        labels = {"num_hidden_layers": 2, **labels}
        return {
            "@encoders": "causal_encoder",
            "label_context": _context(labels, folder, config.get("dropout", 0.4), "labels_encoder_config"),
            "rnn_layers": config.get("num_rnn_layers", 0),
            "label_token": ent,
            "sep_token": sep,
            "right_context": config.get("right_context_width"),
            "max_session_tokens": config.get("max_cache_length"),
            "backbone": {**backbone, "@backbones": "causal_transformer"},
        }
    return {
        "@encoders": "uni_encoder",
        "rnn_layers": config.get("num_rnn_layers", 1),
        "embed_ent_token": config.get("embed_ent_token", True),
        "ent_token": ent,
        "sep_token": sep,
        "rel_token": rel,
        "embed_rel_token": config.get("embed_rel_token", True),
        "backbone": backbone,
    }


def _attention(config: Mapping[str, Any]) -> str:
    """Return the attention of the text encoder, which stands in the configuration or in that of the encoder."""
    found = stated_attention(config)
    return stated_attention(config.get("encoder_config") or {}) if found == "auto" else found


def _span_rep(config: Mapping[str, Any], kind: Architecture, folder: Path, dropout: float) -> dict[str, Any]:
    mode = _span_mode(config, folder)
    if mode == "token_level":
        return {
            "@span_reps": mode,
            "represent_spans": represents_spans(config, kind),
            "dropout": dropout,
            **{name: config.get(name, 1.0) for name in TOKEN_SETTINGS},
            "project_labels": kind.relates,
        }
    made = {"@span_reps": mode, "max_width": config.get("max_width", 12)}
    return {**made, "dropout": dropout} if mode.startswith("marker") else made


def represents_spans(config: Mapping[str, Any], kind: Architecture) -> bool:
    """Whether a token model has a second score for the spans that it finds."""
    return not kind.relates and (kind.generates or bool(config.get("represent_spans", False)))


def _decoder(config: Mapping[str, Any], kind: Architecture, dropout: float) -> dict[str, Any]:
    if not kind.generates:
        return {"@decoders": "span"}
    return {
        "@decoders": "generative",
        "model": config["labels_decoder"],
        "mode": config.get("decoder_mode") or "span",
        "full_context": bool(config.get("full_decoder_context", True)),
        "blank_entity_prob": config.get("blank_entity_prob", 0.1),
        "dropout": dropout,
    }


def _context(
    config: Mapping[str, Any], folder: Path, dropout: float, key: str = "span_encoder_config"
) -> dict[str, Any]:
    settings = dict(config)
    kind = settings.pop("model_type", None)
    _known(folder, f"{key}.model_type", kind, ("deberta-v2", "modernbert", "rnn"))
    name = "lstm" if kind == "rnn" else kind
    made: dict[str, Any] = {"@context_encoders": name}
    for theirs, ours in (("hidden_size", "width"), ("num_hidden_layers", "n_layers")):
        if theirs in settings:
            made[ours] = settings.pop(theirs)
    made["dropout"] = settings.pop("dropout", dropout)
    if name == "lstm":
        return {**made, "bidirectional": settings.get("bidirectional", True)}
    if "num_attention_heads" in settings:
        made["n_heads"] = settings.pop("num_attention_heads")
    return {**made, "config": settings or None}


def _relations(config: Mapping[str, Any], folder: Path, dropout: float) -> dict[str, Any]:
    layer = str(config["relations_layer"]).lower()
    layer = _known(folder, "relations_layer", ALIASES.get(layer, layer), available("relation_layers"))
    triple: dict[str, Any] = {"@triples": "concat", "dropout": dropout}
    if config.get("triples_layer") is not None:
        name = str(config["triples_layer"]).lower()
        _known(folder, "triples_layer", TRIPLES.get(name, name), TRIPLES.values())
        triple = {"@triples": name, **({"compatible": True} if name in COMPATIBLE else {})}
    return {
        "relation_layer": {"@relation_layers": layer},
        "triple": triple,
        "adjacency_loss_coef": config.get("adjacency_loss_coef", 1.0),
        "relation_loss_coef": config.get("relation_loss_coef", 1.0),
    }


def special_tokens(config: Mapping[str, Any]) -> tuple[str, str, str | None]:
    """Return the tokens before (in streaming models after) each label, after all labels, and before each relation."""
    rel = config.get("rel_token", "<<REL>>") if config.get("relations_layer") is not None else None
    ent = ("label_token", "<<LABEL>>") if is_streaming(config) else ("ent_token", "<<ENT>>")
    return config.get(*ent), config.get("sep_token", "<<SEP>>"), rel


def added_tokens(config: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the tokens that GLiNER adds, in its order, to a tokenizer that lacks them."""
    known = all(config.get(key, -1) not in (None, -1) for key in ("class_token_index", "vocab_size"))
    known = known and not is_streaming(config)  # GLiNER adds those that are missing in any case
    return [] if known or Architecture.of(config, folder).bi else all_added_tokens(config)


def all_added_tokens(config: Mapping[str, Any]) -> list[str]:
    """Return all tokens that GLiNER may add, also to bi-encoders, which have no vectors for them."""
    ent, sep, rel = special_tokens(config)
    if is_streaming(config):
        return [ent, sep]
    return [ent, sep, rel] if rel is not None else ["[FLERT]", ent, sep]


#: Word splitters that GLiNER has, registered here under the same names.
WORD_SPLITTERS = (
    "whitespace",
    "spacy",
    "universal",
    "jieba",
    "hanlp",
    "janome",
    "mecab",
    "hindi",
    "camel",
    "stanza",
)


def word_splitter(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section of the word splitter that the checkpoint was trained with; it may be unknown here."""
    name = str(config.get("words_splitter_type") or "whitespace")
    # GLiNER splits by the English rules of spaCy, in any language
    return {"@word_splitters": name, **({"language": "en"} if name == "spacy" else {})}


def rename(state: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> dict[str, Tensor]:
    """Return tensors under our names; unknown names are kept, and reported as unexpected later."""
    kind = Architecture.of(config, folder)
    unused = kind.unused(represents_spans(config, kind))
    renamed = {}
    for name, tensor in state.items():
        name = name.replace("_orig_mod.", "")
        if not name.startswith(unused):
            renamed[_swapped(name, kind.prefixes())] = tensor
    return renamed


def check_prompts(state: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> None:
    """Refuse a checkpoint with a compressed prompt that has no vectors."""
    if config.get("precomputed_prompts_mode") and "encoder.table.entities" not in state:
        raise CheckpointError(
            f"{folder}: has precomputed_prompts_mode, but no tensor precomputed_prompts. GLiNER 0.2.29 loses it "
            "when it saves a loaded model: use the checkpoint before that, or compress the prompt again."
        )


def restore(state: Mapping[str, Tensor], kind: Architecture) -> dict[str, Tensor]:
    """Return tensors under GLiNER's names."""
    # longest first: "span_rep." is also a prefix of "span_rep.scorer."
    pairs = sorted(((ours, theirs) for theirs, ours in kind.prefixes()), key=lambda pair: -len(pair[0]))
    return {_swapped(name, pairs): tensor for name, tensor in state.items()}


def _swapped(name: str, pairs: Any) -> str:
    for old, new in pairs:
        if name.startswith(old):
            return str(new) + name[len(old) :]
    return name
