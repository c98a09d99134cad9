"""Writes taggers as token classification models of Hugging Face."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gliner_pipe.checkpoints.hf_read import CONFIG, Head, head_of, read_tags, same_kind, transformer_of
from gliner_pipe.checkpoints.refusals import Format
from gliner_pipe.modeling.backbones import hf_weights
from gliner_pipe.modeling.backbones.stacked import Dense
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.decoders.crf import CRFTags
from gliner_pipe.modeling.decoders.softmax import SoftmaxTags
from gliner_pipe.modeling.encoders.plain import PlainEncoder
from gliner_pipe.modeling.merging import merged
from gliner_pipe.modeling.token_classifier import TokenClassifier
from gliner_pipe.util import consent
from gliner_pipe.util.atomic import replace_directory, scratch_directory
from gliner_pipe.util.file_lock import LOCK, only_writer
from gliner_pipe.util.redact_folder import redact_folder

logger = logging.getLogger(__name__)

_HF = Format("a transformers model")

#: Names of the dropout before the classifier in configurations.
_DROPOUTS = ("classifier_dropout", "seq_classif_dropout", "classifier_dropout_prob")


def write_model(model: TokenClassifier, target: Path, *, drop_transitions: bool = False) -> Path:
    """Write a tagger as a folder that ``AutoModelForTokenClassification.from_pretrained`` reads, replacing an old one.

    Parameters
    ----------
    model
        The blocks, with weights.
    target
        Output folder. In a folder that holds pipelines, such as that of a training, the files are added to it.
    drop_transitions
        Write a CRF without its transition scores, so entities may differ. A CRF is refused otherwise.

    Returns
    -------
    Path
        The folder.

    Notes
    -----
    Adapters are merged, and a projection of the word vectors is multiplied into the classifier. The model itself does
    not change.

    Raises
    ------
    ConfigError
        If `transformers` has no equivalent layer; nothing is written then.
    """
    made, tokenizer = hf_model(model, drop_transitions=drop_transitions)

    def write(folder: Path) -> None:
        with hf_weights.quiet():
            made.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        redact_folder(folder)

    if any(target.glob("*/meta.json")):  # the folder of a training: keep its pipelines
        with only_writer(target / LOCK), scratch_directory(target / CONFIG) as folder:
            write(folder)
            # config.json identifies a model, so it is moved last
            for file in sorted(folder.iterdir(), key=lambda file: file.name == CONFIG):
                file.replace(target / file.name)
        return target
    with replace_directory(target, marker=CONFIG) as folder:
        write(folder)
    return target


def hf_model(model: TokenClassifier, *, drop_transitions: bool = False) -> tuple[Any, Any]:
    """Return a `transformers` model with the same scores, and its tokenizer; see :func:`write_model`."""
    check_parts(model, drop_transitions)
    model = merged(model)
    backbone = transformer_of(model)
    config = copy.deepcopy(backbone.encoder.config)
    names, rows = _ordered(_names(model), model)
    config.id2label = dict(enumerate(names))
    config.label2id = {tag: place for place, tag in enumerate(names)}
    for key in _DROPOUTS:
        if hasattr(config, key):
            setattr(config, key, model.decoder.dropout)
    made = _made(config, model)
    _fill(made, model, rows)
    tokenizer = copy.deepcopy(backbone.tokenizer)
    if backbone.limit is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, backbone.limit)
    return made.eval(), tokenizer


def check_model(model: TokenClassifier) -> None:
    """Refuse a built model that has no equivalent in `transformers`, before it is trained; as :func:`hf_model` does.

    Raises
    ------
    ConfigError
        With the first block that it lacks.
    """
    check_parts(model)
    config = getattr(transformer_of(model).encoder, "config", None)
    if config is not None:
        with torch.device("meta"):  # layers without memory
            made = _made(copy.deepcopy(config), model)
        _check_dense(head_of(made, config.model_type), made, model)


def _made(config: Any, model: TokenClassifier) -> Any:
    from transformers import AutoModelForTokenClassification

    trusted = transformer_of(model).trust_remote_code or consent.is_given()
    try:
        return AutoModelForTokenClassification.from_config(
            config, trust_remote_code=trusted, dtype=torch.float32
        )
    except ValueError as error:
        raise _HF.refusal(
            "encoder.backbone.model",
            f"found a {config.model_type} encoder, for which transformers has no token classification model",
            "bert, roberta, xlm-roberta, deberta-v2, electra, distilbert, modernbert ...",
        ) from error


def check_parts(model: TokenClassifier, drop_transitions: bool = False) -> None:
    """Refuse blocks that would lead to other entities, with or without weights.

    Raises
    ------
    ConfigError
        With the first such block.
    """
    encoder, backbone, decoder = model.encoder, transformer_of(model), model.decoder
    _HF.require_kind("encoder", encoder, PlainEncoder, "@encoders = plain")
    allowed = "@backbones = transformer, alone or under dense"
    _HF.require_kind("encoder.backbone", backbone, Transformer, allowed)
    _HF.require("encoder.backbone.fuse_layers", backbone.fuse_layers, False)
    _HF.require("encoder.backbone.pooling", backbone.pooling, "first", do="Train with pooling = first")
    if isinstance(model.encoder.backbone, Dense) and backbone.hidden_size is not None:
        raise _HF.refusal("encoder.backbone.embedding.hidden_size", "found a projection under dense", "None")
    if isinstance(decoder, CRFTags) and decoder.mode != "independent" and not drop_transitions:
        raise _HF.refusal(
            "decoder",
            "found crf, whose tags depend on each other",
            "softmax, or crf in the mode independent with chains = one",
            "Train with softmax, or with chains = one, and write it without transition scores: --drop-transitions true",
        )
    if decoder.chain_per_label and (not model.is_built or decoder.n_chains > 1):
        option, allowed = ("chains", "one") if isinstance(decoder, CRFTags) else ("mode", "joint: one chain")
        raise _HF.refusal(f"decoder.{option}", "found a chain of tags for each label", allowed)
    if not isinstance(decoder, CRFTags):
        _HF.require_kind("decoder", decoder, SoftmaxTags, "softmax")
    elif decoder.mode != "independent":  # trained per word otherwise, as softmax
        logger.warning(
            "The CRF is written without its transition scores: transformers uses the best tag per word, so entities "
            "may differ from those of the pipeline."
        )


def _names(model: TokenClassifier) -> list[str]:
    decoder = model.decoder
    if decoder.chain_per_label:  # one label: its tags have no name
        (label,) = model.labels
        return [tag if tag == "O" else f"{tag}-{label}" for tag in decoder.tags]
    if "U" in decoder.tables.prefixes:
        logger.warning(
            "The tags use the scheme bioul: transformers' pipelines group only B- and I-, and show L- and U- as "
            "separate labels. Train with scheme = bio for them."
        )
    return list(decoder.tags)


def _ordered(names: list[str], model: TokenClassifier) -> tuple[list[str], list[int]]:
    """Return the name and the tag of each output, in the order of the decoder's ``tag_names`` if they are its tags."""
    decoder, order = model.decoder, list(range(len(names)))
    if not isinstance(decoder, SoftmaxTags) or not decoder.tag_names:
        return names, order
    stated = read_tags(decoder.tag_names)
    if stated.scheme != decoder.scheme or not set(stated.places) <= set(names):
        return names, order
    order.sort(key=lambda tag: stated.places.get(names[tag], len(names) + tag))
    written = list(stated.names)
    return [*written, *(names[tag] for tag in order[len(written) :])], order


def _fill(made: Any, model: TokenClassifier, rows: list[int]) -> None:
    backbone, top = transformer_of(model), model.encoder.backbone
    head = head_of(made, made.config.model_type)
    _check_dense(head, made, model)
    theirs = same_kind(made, backbone.encoder)
    if theirs is None:
        raise _HF.refusal(
            "encoder.backbone.model", f"found {type(backbone.encoder).__name__}", "another encoder"
        )
    wanted = theirs.state_dict()
    own = {key: value for key, value in backbone.encoder.state_dict().items() if key in wanted}
    theirs.load_state_dict(own)
    with torch.no_grad():
        weight, bias = _classifier(model)
        head.classifier.weight.copy_(weight[rows])
        if head.classifier.bias is None:
            raise _HF.refusal(
                "encoder.backbone.model", "found a classifier without a bias", "one with a bias"
            )
        head.classifier.bias.copy_(bias[rows])
        if head.dense is not None:
            ours: Any = top
            layers: Any = head.dense
            layers.dense.load_state_dict(ours.dense.state_dict())
            layers.norm.load_state_dict(ours.norm.state_dict())


def _check_dense(head: Head, made: Any, model: TokenClassifier) -> None:
    """Refuse a dense layer before the classifier that only one of the two models has."""
    top = model.encoder.backbone
    if (head.dense is None) != (not isinstance(top, Dense)):
        allowed, do = "@backbones = transformer", ""
        if head.dense is not None:
            allowed = "@backbones = dense over transformer, trained so"
            do = f"The {made.config.model_type} of transformers has such a layer"
        raise _HF.refusal("encoder.backbone", f"found {type(top).__name__}", allowed, do)


def _classifier(model: TokenClassifier) -> tuple[Tensor, Tensor]:
    """Return the weights of the classifier, multiplied with a projection before it."""
    layer, projection = model.decoder.project, transformer_of(model).projection
    weight, bias = layer.weight.double().cpu(), layer.bias.double().cpu()
    if projection is not None:
        bias = bias + weight @ projection.bias.double().cpu()
        weight = weight @ projection.weight.double().cpu()
    return weight, bias
