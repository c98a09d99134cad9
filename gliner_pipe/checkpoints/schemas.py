"""What the configurations of checkpoints may hold: keys with types and ranges, checked before anything is built."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from gliner_pipe.errors import CheckpointError
from gliner_pipe.modeling.backbones.hf_weights import listed
from gliner_pipe.util.json_files import check
from gliner_pipe.util.ranges import Amount, Layers, NonNegative, Number, Share, Size

logger = logging.getLogger(__name__)

#: A number of words, or subword tokens, of a text.
Length = Annotated[int, Field(ge=1, le=1 << 24)]
#: A number of tokens or the number of one; -1 if it is not known yet.
Index = Annotated[int, Field(ge=-1, le=1 << 24)]
#: The text of a special token.
Token = Annotated[str, Field(min_length=1)]
Settings = dict[str, Any]


class _Config(BaseModel):
    """Keys that are read; others are kept."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class GlinerConfig(_Config):
    """Content of a ``gliner_config.json``."""

    model_name: str | None = None
    model_type: str | None = None
    name: str | None = None
    span_mode: str | None = None
    max_width: Size | None = None
    hidden_size: Size | None = None
    dropout: Share | None = None
    fine_tune: bool | None = None
    subtoken_pooling: str | None = None
    fuse_layers: bool | None = None
    num_rnn_layers: Layers | None = None
    num_post_fusion_layers: Layers | None = None
    post_fusion_schema: str | None = None
    max_len: Length | None = None
    vocab_size: Index | None = None
    class_token_index: Index | None = None
    rel_token_index: Index | None = None
    sep_token_index: Index | None = None
    ent_token: Token | None = None
    sep_token: Token | None = None
    rel_token: Token | None = None
    label_token: Token | None = None
    embed_ent_token: bool | None = None
    embed_rel_token: bool | None = None
    words_splitter_type: str | None = None
    encoder_config: Settings | None = None
    labels_encoder: str | None = None
    labels_encoder_config: Settings | None = None
    labels_decoder: str | None = None
    labels_decoder_config: Settings | None = None
    decoder_config: Settings | None = None
    span_encoder_config: Settings | None = None
    decoder_mode: str | None = None
    full_decoder_context: bool | None = None
    blank_entity_prob: Share | None = None
    relations_layer: str | None = None
    triples_layer: str | None = None
    represent_spans: bool | None = None
    token_loss_coef: NonNegative | None = None
    span_loss_coef: NonNegative | None = None
    decoder_loss_coef: NonNegative | None = None
    adjacency_loss_coef: NonNegative | None = None
    relation_loss_coef: NonNegative | None = None
    neg_spans_ratio: NonNegative | None = None
    right_context_width: Amount | None = None
    max_cache_length: Length | None = None
    precomputed_prompts_mode: bool | None = None
    id_to_classes: dict[str, str] | None = None
    rel_id_to_classes: dict[str, str] | None = None


class Gliner2Config(_Config):
    """Content of the ``config.json`` of a GLiNER2 checkpoint."""

    model_type: str
    model_name: str | None = None
    architecture: str | None = None
    architecture_version: Amount | None = None
    config_version: Amount | None = None
    token_pooling: str | None = None
    max_len: Length | None = None
    max_width: Size | None = None
    counting_layer: str | None = None
    span_head: Settings | None = None
    boundary_head: Settings | None = None
    encoder_config: Settings | None = None


class LoraConfig(_Config):
    """Content of an ``adapter_config.json``."""

    base_model_name_or_path: str | None = None
    lora_alpha: Number = 16.0
    alpha_pattern: dict[str, Number] | None = None
    use_rslora: bool | None = None
    peft_type: Literal["LORA"] | None = None


Config = TypeVar("Config", bound=_Config)

#: Keys of other versions and of trainings, which have no effect here.
_OF_TRAINING = frozenset(
    (
        *(
            "lr_encoder",
            "lr_others",
            "num_steps",
            "warmup_ratio",
            "train_batch_size",
            "eval_every",
            "max_types",
        ),
        *("shuffle_types", "random_drop", "max_neg_type_ratio", "freeze_token_rep", "log_dir", "root_dir"),
        *("train_data", "val_data_dir", "prev_path", "save_total_limit", "size_sup", "scheduler_type"),
        *("loss_alpha", "loss_gamma", "loss_reduction", "weight_decay_encoder", "weight_decay_other"),
        *("max_grad_norm", "num_hidden_layers", "rnn_type", "bidirectional", "augment_add_other_prob"),
        *("augment_data_prob", "augment_ent_drop_prob", "augment_rel_drop_prob", "transformers_version"),
        *(
            "architectures",
            "torch_dtype",
            "dtype",
            "attn_implementation",
            "_attn_implementation",
            "_name_or_path",
        ),
        *(
            "return_dict",
            "output_hidden_states",
            "id2label",
            "label2id",
            "problem_type",
            "is_encoder_decoder",
        ),
        *("chunk_size_feed_forward", "output_attentions"),
    )
)


def checked(kind: type[Config], content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the content of a configuration with values of the right types; keys that are not read are counted.

    Raises
    ------
    CheckpointError
        If a value has a wrong type or is out of range.
    """
    found = check(kind, content, path)
    unknown = sorted(key for key in found.model_extra or () if key not in _OF_TRAINING)
    if unknown:
        logger.info("%s: %d unknown keys are ignored: %s.", path, len(unknown), listed(unknown))
    return {key: getattr(found, key) for key in content}


def check_tokens(
    config: Mapping[str, Any], ent: str, others: tuple[str, ...], tokenizer: Any, path: Path
) -> None:
    """Check that the tokens of prompts are those with which a checkpoint was trained.

    Parameters
    ----------
    config
        Content of its configuration.
    ent
        Token of labels, of which ``class_token_index`` is the number.
    others
        Other special tokens.
    tokenizer
        Tokenizer of the text encoder, with these tokens.
    path
        File of the configuration, for errors.

    Raises
    ------
    CheckpointError
        If a number does not fit the tokenizer, or a token was not added to it.
    """
    index, size = config.get("class_token_index", -1), config.get("vocab_size", -1)
    if index in (None, -1) or size in (None, -1):
        return
    number, added = tokenizer.get_vocab().get(ent), tokenizer.get_added_vocab()
    if index != number:
        raise CheckpointError(
            f"{path}: has class_token_index = {index}; allowed: {number}, the number of ent_token {ent!r} in the "
            "tokenizer. The token or the tokenizer is not that of the training: download the checkpoint again."
        )
    if size < len(tokenizer):
        raise CheckpointError(
            f"{path}: has vocab_size = {size}; allowed: {len(tokenizer)}, the tokens of the tokenizer, or more. "
            "Download the checkpoint again."
        )
    for token in (ent, *others):
        if token not in added:
            raise CheckpointError(
                f"{path}: names the special token {token!r}, which was not added to the tokenizer; allowed: "
                f"{listed(added, 8)}. Write the token of the training."
            )


def check_sizes(config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Check that the blocks behind the encoder need no more memory than the weights of a checkpoint hold.

    Raises
    ------
    CheckpointError
        If no weight has a size that is named, or layers need far more numbers than the weights hold.
    """
    held = sum(tensor.numel() for tensor in tensors.values())
    sizes = {size for tensor in tensors.values() for size in tensor.shape}
    hidden = config.get("hidden_size")
    if hidden is not None and hidden not in sizes:
        raise CheckpointError(
            f"{path}: has hidden_size = {hidden}, and no tensor of the weights has this size. Correct it, or download "
            "the checkpoint again."
        )
    if (rows := config.get("vocab_size")) is not None and rows > max(sizes, default=0):
        raise CheckpointError(
            f"{path}: has vocab_size = {rows}, and the largest tensor of the weights has {max(sizes, default=0)} rows. "
            "Correct it, or download the checkpoint again."
        )
    width = hidden or max((len(one) for name, one in tensors.items() if name.endswith("bias")), default=1)
    needed = {
        key: (config.get(key) or 0) * 8 * width**2 for key in ("num_rnn_layers", "num_post_fusion_layers")
    }
    for key in ("span_encoder_config", "labels_encoder_config", "span_head", "boundary_head"):
        for option, value in (config.get(key) or {}).items():
            if isinstance(value, int) and option.endswith(("size", "layers", "heads", "dim")):
                needed[f"{key}.{option}"] = value * (8 * width**2 if option.endswith("layers") else 1)
    for key, numbers in needed.items():
        layers = config.get(key, 0) if key.endswith("layers") else 0
        if layers > max(len(tensors), 1) or numbers > 8 * held + (1 << 24):
            raise CheckpointError(
                f"{path}: has a value of {key} that needs some {numbers:,} numbers, and the weights hold {held:,}. "
                "Correct it, or download the checkpoint again."
            )
