"""The blocks of the model that a GLiNER file describes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gliner_pipe.checkpoints import gliner_assets, gliner_names
from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.migration.migrated import pretrained_config
from gliner_pipe.migration.routing import Routed
from gliner_pipe.migration.tables import ADAPTER, BACKBONE, LOSS, RELATION_LOSS, SECTIONS
from gliner_pipe.migration.yaml_files import Document
from gliner_pipe.modeling.backbones.hf import config_of

#: Settings of each loss besides those that all losses have.
_LOSS_SETTINGS = {
    "gliner_pipe.focal": ("alpha", "gamma", "prob_margin"),
    "gliner_pipe.bce": (),
    "gliner_pipe.dice": ("gamma",),
}


def model(
    document: Document, routed: Routed, adapter: dict[str, Any] | None, notes: list[str]
) -> dict[str, Any]:
    """Return the blocks of a new model.

    Parameters
    ----------
    document
        The file, for errors.
    routed
        Its settings.
    adapter
        Block of the encoder's adapter, or None.
    notes
        Takes lines for the user.
    """
    config = {name: routed.read[name] for name in SECTIONS["model"] if name in routed.read}
    _note_unused(config, notes)
    settings = _settings(document, config)
    encoder_config, tokenizer = pretrained_config(
        str(config["model_name"]), notes, settings.get("encoder_config")
    )
    try:
        blocks = gliner_names.blocks(config, document.path, encoder_config, tokenizer)
    except CheckpointError as error:  # its message names the file as if it were a checkpoint
        raise ConfigError(document.where(), str(error).partition(": ")[2].rstrip(".")) from None
    # GLiNER's own scores are for its checkpoints: with distances cut at 10, a new model learns no relation
    blocks.get("triple", {}).pop("compatible", None)
    backbone = blocks["encoder"]["backbone"]
    for key, block, option in (
        ("encoder_config", backbone, "config"),
        ("labels_encoder_config", blocks["encoder"], "label_config"),
        ("labels_decoder_config", blocks["decoder"], "config"),
    ):
        if key in settings:
            block[option] = settings[key]
    backbone["freeze"] = is_frozen(routed)
    if (checkpointing := routed.settings.get(f"{BACKBONE}.gradient_checkpointing")) is not None:
        backbone["gradient_checkpointing"] = checkpointing
    if adapter:
        backbone["adapter"] = adapter
        if backbone["freeze"]:
            backbone["freeze"] = False
            notes.append("fine_tune = false is implied by an adapter: only the adapter's weights are trained")
    blocks["loss"] = loss(routed, notes)
    relation = routed.within(RELATION_LOSS)
    if relation and "relation_layer" in blocks and blocks["loss"]["@losses"] == "gliner_pipe.focal":
        blocks["relation_loss"] = {**blocks["loss"], **relation}
    elif relation:
        notes.append("rel_focal_loss_alpha and rel_focal_loss_gamma are not used: no focal loss of relations")
    return blocks


def _settings(document: Document, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the Hugging Face configurations in a file, with their model types, by their keys.

    Raises
    ------
    ConfigError
        If one is not valid.
    """
    found = {}
    for key, name in gliner_assets.SETTINGS.items():
        if (given := config.get(name)) and config.get(key):
            found[name] = {"model_type": gliner_assets.default_type(key), **given}
            try:
                config_of(found[name], name)
            except ConfigError as error:
                raise ConfigError(
                    document.where("model", name), error.found, error.allowed, error.do
                ) from None
    return found


def is_frozen(routed: Routed) -> bool:
    """Return whether the encoder is frozen."""
    return routed.read.get("fine_tune") is False or routed.read.get("freeze_token_rep") is True


def loss(routed: Routed, notes: list[str]) -> dict[str, Any]:
    """Return the block of the loss; GLiNER's default is the focal loss with -1 and 0, which is plain cross-entropy."""
    given = routed.within(LOSS)
    kind = given.pop("@losses", "gliner_pipe.focal")
    if kind == "gliner_pipe.dice":
        if given.pop("gamma", None):
            notes.append("focal_loss_gamma is not used: the loss is dice")
        given["gamma"] = routed.parts.get("dice_gamma", 1.0)
    elif routed.parts.get("dice_gamma") not in (None, 1.0):
        notes.append("dice_gamma is not used: the loss is not dice")
    if kind == "gliner_pipe.focal":
        given = {"alpha": -1.0, "gamma": 0.0, **given}
    for key in _LOSS_SETTINGS["gliner_pipe.focal"]:
        if key in given and key not in _LOSS_SETTINGS[kind] and given.pop(key) not in (0, -1):
            notes.append(f"{key} is not used: {kind} has no such setting")
    return {"@losses": kind, **given}


def adapter(routed: Routed) -> dict[str, Any] | None:
    """Return the block of the encoder's adapter; None for none."""
    if not SECTIONS["peft"].keys() & routed.read.keys() or not routed.parts.get("adapter", True):
        return None
    method = str(routed.parts.get("adapter_method", "lora")).lower()
    settings = routed.within(ADAPTER)
    if method == "lora":
        return {"@adapters": "lora", **settings}
    block: dict[str, Any] = {"@adapters": "peft", "method": method}
    if "target_modules" in settings:
        block["target_modules"] = settings["target_modules"]
    options = {  # the package peft reads them under their own names
        item.name.name: routed.read[item.name.name]
        for item in routed.places.values()
        if item.name.target.startswith(f"{ADAPTER}.") and item.name.name != "target_modules"
    }
    return {**block, "options": options} if options else block


def _note_unused(config: Mapping[str, Any], notes: list[str]) -> None:
    """Add a note for each key that the architecture does not read."""
    relations, generative = config.get("relations_layer") is not None, bool(config.get("labels_decoder"))
    bi_encoder = bool(config.get("labels_encoder")) and not relations and not generative
    if config.get("labels_encoder") and not bi_encoder:
        other, block = (
            ("relations_layer", "relation_layer") if relations else ("labels_decoder", "generative")
        )
        notes.append(
            f"labels_encoder is not used with {other}, as in GLiNER; this package can combine them, with the blocks "
            f"bi_encoder and {block}"
        )
    if config.get("triples_layer") and not relations:
        notes.append("triples_layer is not used without relations_layer, as in GLiNER")
    if relations and generative:
        notes.append("labels_decoder is not used with relations_layer, as in GLiNER")
    if bi_encoder and config.get("num_rnn_layers"):
        notes.append("num_rnn_layers is not used with labels_encoder, as in GLiNER")
    if config.get("post_fusion_schema") and not bi_encoder:
        notes.append("post_fusion_schema is not used without labels_encoder, as in GLiNER")
    if config.get("span_mode") == "token_level":
        if "max_width" in config:
            notes.append(
                "max_width is not used with span_mode = token_level: entities can have any number of words"
            )
    elif config.get("represent_spans"):
        notes.append("represent_spans is not used without span_mode = token_level")
