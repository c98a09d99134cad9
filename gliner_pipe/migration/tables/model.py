"""The keys of GLiNER's model configuration, and of the ``peft`` and ``data`` sections, and what each becomes here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from gliner_pipe.checkpoints import gliner_names
from gliner_pipe.migration.names import Name
from gliner_pipe.migration.values import (
    anything,
    choice,
    flag,
    model_last,
    number,
    shares,
    text,
    texts,
    whole,
    wrong,
)

GLINER, OLDER = ("GLiNER",), ("GLiNER (older)",)
MODEL_SECTION = "components.gliner.model"
BACKBONE = f"{MODEL_SECTION}.encoder.backbone"
ADAPTER = f"{BACKBONE}.adapter"
SAMPLING = "components.gliner.label_sampling"
RELATIONS = "components.gliner.relation_sampling"

SPAN_MODES = (
    *("markerV0", "marker", "markerV1", "markerV2", "query", "mlp", "cat"),
    *("conv_conv", "conv_max", "conv_mean", "conv_sum", "conv_share", "token_level"),
)
RELATION_LAYERS = ("dot", "mlp", "attention", "bilinear", "biaffine", "gcn", "gat", "none")


def span_mode(value: Any) -> str:
    """Return the span representation; older spellings of it too."""
    names = {name: name for name in SPAN_MODES}
    return str(choice({**names, **{k: v for k, v in gliner_names.ALIASES.items() if v in names}})(value))


def schema(value: Any) -> str:
    """Return the pattern of a fusion."""
    if not isinstance(value, str) or not re.fullmatch(r"(l2l|t2t|l2t|t2l)(-(l2l|t2t|l2t|t2l))*", value):
        raise wrong(value, "l2l, t2t, l2t and t2l with hyphens between, e.g. l2t-t2l")
    return value


def settings(value: Any) -> dict[str, Any]:
    """Return a mapping."""
    if not isinstance(value, dict):
        raise wrong(value, "a mapping")
    return value


def modules(value: Any) -> list[str] | None:
    """Return the layers that get an adapter; None for all."""
    return None if value == "all-linear" else texts(value)


def index(value: Any) -> int:
    """Return an index into a vocabulary; -1 for none yet."""
    return int(whole(-1)(value))


def not_streaming(value: Any) -> None:
    """Refuse the architecture that is not here."""
    if value == gliner_names.STREAMING:
        raise wrong(value, "any other of GLiNER's architectures")


def _at(path: str) -> str:
    return f"{MODEL_SECTION}.{path}"


def _model() -> Iterator[Name]:
    yield Name("model_name", GLINER, f"{BACKBONE}.model", "The encoder of the text.", text)
    yield Name(
        "fine_tune",
        GLINER,
        f"{BACKBONE}.freeze",
        "false keeps the encoder as it is (GLiNER never reads it).",
        flag,
    )
    yield Name(
        "span_mode", GLINER, _at("span_rep"), "How spans are scored; token_level scores words.", span_mode
    )
    yield Name("ent_token", GLINER, _at("encoder.ent_token"), "Stands before each label.", text)
    yield Name("sep_token", GLINER, _at("encoder.sep_token"), "Stands between labels and text.", text)
    yield Name(
        "embed_ent_token",
        GLINER,
        _at("encoder.embed_ent_token"),
        "Whether a label's vector is that of the token before it.",
        flag,
    )
    yield Name(
        "max_len",
        GLINER,
        f"{BACKBONE}.window",
        "Words in a training text, longer ones are split; the window "
        "has twice as many pieces, as far as the encoder can.",
        whole(),
    )
    yield Name(
        "max_width", GLINER, _at("span_rep.max_width"), "Words in an entity; nothing to token_level.", whole()
    )
    yield Name(
        "max_types", GLINER, f"{SAMPLING}.max_types", "Labels that a text is asked for in training.", whole()
    )
    yield Name(
        "max_neg_type_ratio",
        GLINER,
        f"{SAMPLING}.negative_ratio",
        "Sampled negatives for each positive label.",
        number(),
    )
    yield Name(
        "words_splitter_type",
        GLINER,
        "components.gliner.word_splitter",
        "What the words are: whitespace (GLiNER's own rule), or spacy for the tokens of the document.",
        choice(("whitespace", "spacy")),
    )
    yield Name(
        "subtoken_pooling",
        GLINER,
        f"{BACKBONE}.pooling",
        "Which pieces make the vector of a word.",
        choice(("first", "last", "mean", "max")),
    )
    yield Name("hidden_size", GLINER, f"{BACKBONE}.hidden_size", "Width of the word vectors.", whole())
    yield Name("dropout", GLINER, _at("dropout"), "Dropout of all that is new.", number(0, 1))
    yield Name(
        "num_rnn_layers",
        GLINER,
        _at("encoder.rnn_layers"),
        "LSTM over the words; none in bi-encoders.",
        whole(0),
    )
    yield Name("fuse_layers", GLINER, f"{BACKBONE}.fuse_layers", "Mix all layers of the encoder.", flag)
    yield Name(
        "post_fusion_schema",
        GLINER,
        _at("fusion.pattern"),
        "What labels and words tell each other afterwards, in bi-encoders.",
        schema,
    )
    yield Name("num_post_fusion_layers", GLINER, _at("fusion.n_layers"), "How often.", whole())
    yield Name(
        "represent_spans",
        GLINER,
        _at("span_rep.represent_spans"),
        "token_level only: score what was found once more.",
        flag,
    )
    yield Name(
        "neg_spans_ratio",
        GLINER,
        _at("span_rep.neg_spans_ratio"),
        "Wrong spans to learn that from.",
        number(),
    )
    yield Name(
        "token_loss_coef", GLINER, _at("span_rep.token_loss_coef"), "Weight of the loss of words.", number()
    )
    yield Name("span_loss_coef", GLINER, _at("span_loss_coef"), "Weight of the loss of spans.", number())
    yield Name(
        "labels_encoder",
        GLINER,
        _at("encoder.label_model"),
        "Encoder of the labels: makes a bi-encoder.",
        text,
    )
    yield Name("labels_decoder", GLINER, _at("decoder.model"), "Language model that writes labels.", text)
    yield Name("decoder_mode", GLINER, _at("decoder.mode"), "What it writes for.", choice(("span", "prompt")))
    yield Name(
        "full_decoder_context", GLINER, _at("decoder.full_context"), "It also reads the entity's words.", flag
    )
    yield Name(
        "blank_entity_prob",
        GLINER,
        _at("decoder.blank_entity_prob"),
        "Share of batches whose labels all read entity.",
        number(0, 1),
    )
    yield Name("decoder_loss_coef", GLINER, _at("decoder_loss_coef"), "Weight of its loss.", number())
    yield Name(
        "relations_layer",
        GLINER,
        _at("relation_layer"),
        "What finds pairs of entities that are tied.",
        choice(
            {
                **{name: name for name in RELATION_LAYERS if name != "none"},
                "attn": "attention",
                "none": "none",
            }
        ),
        literal=True,
    )
    yield Name(
        "triples_layer", GLINER, _at("triple"), "What names the relation.", choice(gliner_names.TRIPLES)
    )
    yield Name("rel_token", GLINER, _at("encoder.rel_token"), "Stands before each relation label.", text)
    yield Name(
        "embed_rel_token",
        GLINER,
        _at("encoder.embed_rel_token"),
        "Whether its vector is that of the token before it.",
        flag,
    )
    yield Name(
        "adjacency_loss_coef", GLINER, _at("adjacency_loss_coef"), "Weight of the loss of pairs.", number()
    )
    yield Name(
        "relation_loss_coef", GLINER, _at("relation_loss_coef"), "Weight of the loss of relations.", number()
    )
    yield Name(
        "span_encoder_config",
        GLINER,
        _at("context"),
        "Reads the words once more before spans are made.",
        settings,
    )
    yield Name("_attn_implementation", GLINER, f"{BACKBONE}.attn_implementation", "Kind of attention.", text)
    yield Name(
        "augment_data_prob",
        GLINER,
        f"{RELATIONS}.vary",
        "Share of relation examples that are varied.",
        number(0, 1),
    )
    yield Name(
        "augment_ent_drop_prob",
        GLINER,
        f"{RELATIONS}.drop_entities",
        "Share of entity labels left out then.",
        shares,
    )
    yield Name(
        "augment_rel_drop_prob",
        GLINER,
        f"{RELATIONS}.drop_relations",
        "Share of relation labels left out then.",
        shares,
    )
    yield Name(
        "augment_add_other_prob",
        GLINER,
        f"{RELATIONS}.other",
        "How often what was left out is called other.",
        number(0, 1),
    )
    yield Name("shuffle_types", OLDER, f"{SAMPLING}.shuffle", "Labels in random order.", flag)


def _model_rest() -> Iterator[Name]:
    for key in ("rel_token_index", "class_token_index", "sep_token_index", "vocab_size"):
        yield Name(
            key, GLINER, "", "It is found out when the tokenizer gets its new tokens.", index, "ignored"
        )
    yield Name("name", GLINER, "", "A pipeline has the name of its folder.", text, "ignored")
    yield Name(
        "model_type", GLINER, "", "The other keys say which architecture it is.", not_streaming, "ignored"
    )
    for key in ("size_sup", "random_drop"):
        yield Name(key, OLDER, "", "GLiNER does not read it any more.", fate="ignored")
    for key in ("encoder_config", "labels_encoder_config", "labels_decoder_config"):
        yield Name(
            key,
            GLINER,
            "",
            "A pretrained model comes with its own configuration.",
            fate="refused",
            do="Set it to null; to go on with a GLiNER model, name it as prev_path",
        )
    for key in ("precomputed_prompts_mode", "id_to_classes", "rel_id_to_classes"):
        yield Name(
            key,
            GLINER,
            "",
            "It belongs to a trained model.",
            fate="refused",
            do="Name the model as prev_path; compress prompts with the component's compress_prompt",
        )
    for key in ("max_cache_length", "right_context_width", "label_token", "decoder_config"):
        yield Name(
            key,
            GLINER,
            "",
            "It belongs to the streaming models of GLiNER, which are not here.",
            fate="refused",
            do="Take another architecture",
        )
    for key in ("rnn_type", "sparse_prediction", "sparse_pred_ignore_index"):
        yield Name(key, GLINER, "", "There is nothing like it here.", fate="refused", do="Leave it out")


def _peft() -> Iterator[Name]:
    yield Name("enabled", GLINER, ADAPTER, "Whether the encoder gets an adapter.", flag)
    yield Name("method", GLINER, ADAPTER, "lora, or another method of the package peft.", text)
    yield Name("r", GLINER, f"{ADAPTER}.r", "Rank of the update.", whole())
    yield Name(
        "lora_alpha", GLINER, f"{ADAPTER}.alpha", "Scale of the update, divided by its rank.", number()
    )
    yield Name("lora_dropout", GLINER, f"{ADAPTER}.dropout", "Dropout before the update.", number(0, 1))
    yield Name(
        "target_modules",
        GLINER,
        f"{ADAPTER}.target_modules",
        "Layers that get one; null or all-linear for all of them.",
        modules,
    )
    yield Name(
        "bias",
        GLINER,
        f"{ADAPTER}.bias",
        "Which biases learn.",
        choice(("none", "all", "lora_only")),
        literal=True,
    )
    yield Name("use_dora", GLINER, f"{ADAPTER}.use_dora", "Learn the length of columns by itself.", flag)
    yield Name("use_rslora", GLINER, f"{ADAPTER}.use_rslora", "Scale by the root of the rank.", flag)
    yield Name("task_type", GLINER, "", "An encoder inside a model has no task of its own.", text, "ignored")
    yield Name(
        "modules_to_save",
        GLINER,
        "",
        "All that stands on the encoder learns and is saved.",
        anything,
        "ignored",
    )


def _data() -> Iterator[Name]:
    yield Name("train_data", GLINER, "train.train_data.reader.path", "File or folder to learn from.", text)
    yield Name("val_data", GLINER, "train.val_data.reader.path", "File or folder to measure on.", text)
    yield Name("val_data_dir", OLDER, "train.val_data.reader.path", "As val_data.", text)
    yield Name(
        "format",
        GLINER,
        "train.train_data.reader.@readers",
        "json and jsonl (GLiNER's, or text with offsets, which the fields tell), conll, csv, parquet, bio, "
        "standoff, spacy.",
        choice(("json", "jsonl", "conll", "csv", "tsv", "parquet", "bio", "standoff", "brat", "spacy")),
    )
    yield Name(
        "fields",
        GLINER,
        "train.train_data.reader.fields",
        "Names that the fields of a record have.",
        settings,
    )
    yield Name(
        "long_doc_chunking",
        GLINER,
        "train.train_data.chunk",
        "enabled, max_words, stride (words that neighbours share): parts that long texts are cut into.",
        settings,
    )
    yield Name("root_dir", OLDER, "train.output_path", "As output_dir.", model_last)
    yield Name(
        "prev_path",
        GLINER,
        "components.gliner.model",
        "GLiNER model to go on with; the other keys of the model are not read then.",
        text,
    )


MODEL: tuple[Name, ...] = (*_model(), *_model_rest())
PEFT: tuple[Name, ...] = tuple(_peft())
DATA: tuple[Name, ...] = tuple(_data())
