"""The blocks of a model that another system's configuration describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gliner_pipe.checkpoints import gliner_names
from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.migration.names import Given, Routed, route
from gliner_pipe.migration.yaml_files import Document

_BACKBONE = "components.gliner.model.encoder.backbone."
_LOSS = "components.gliner.model.loss."
_RELATION_LOSS = "components.gliner.model.relation_loss."
#: Settings that each loss has beside those of all.
_OWN = {
    "gliner_pipe.focal": ("alpha", "gamma", "prob_margin"),
    "gliner_pipe.bce": (),
    "gliner_pipe.dice": ("gamma",),
}


def model(config: Mapping[str, Any], document: Document, routed: Routed, notes: list[str]) -> dict[str, Any]:
    """Return the blocks of a GLiNER configuration, without an adapter.

    Parameters
    ----------
    config
        Keys of GLiNER's model configuration, read.
    document
        Named in errors.
    routed
        The settings of the training, among them those of the loss.
    notes
        Takes what the user should know.
    """
    _note_unused(config, notes)
    encoder_config, tokenizer = pretrained_config(str(config["model_name"]), notes)
    try:
        made = gliner_names.blocks(config, document.path, encoder_config, tokenizer)
    except CheckpointError as error:  # the file says it, not a checkpoint
        raise ConfigError(document.where(), str(error).partition(": ")[2].rstrip(".")) from None
    backbone = made["encoder"]["backbone"]
    for key in ("gradient_checkpointing", "freeze"):
        place = routed.places.get(f"{_BACKBONE}{key}")
        if place is not None and place.name.name != "fine_tune":  # which the blocks know already
            backbone[key] = routed.settings[f"{_BACKBONE}{key}"]
    made["loss"] = loss(routed, notes)
    relation = {
        key.removeprefix(_RELATION_LOSS): value
        for key, value in routed.settings.items()
        if key.startswith(_RELATION_LOSS)
    }
    if relation and "relation_layer" in made and made["loss"]["@losses"] == "gliner_pipe.focal":
        made["relation_loss"] = {**made["loss"], **relation}
    elif relation:
        notes.append(
            "rel_focal_loss_alpha and rel_focal_loss_gamma are not used: there is no focal loss of relations"
        )
    return made


def says_loss(routed: Routed) -> bool:
    """Whether anything is said about the loss."""
    return any(key.startswith(_LOSS) for key in routed.settings)


def loss(routed: Routed, notes: list[str]) -> dict[str, Any]:
    """Return the block of the loss; what is not said is as in GLiNER, where focal loss with -1 and 0 is plain."""
    said = {key.removeprefix(_LOSS): value for key, value in routed.settings.items() if key.startswith(_LOSS)}
    kind = said.pop("@losses", "gliner_pipe.focal")
    if kind == "gliner_pipe.dice":
        if said.pop("gamma", None):
            notes.append("focal_loss_gamma is not used: the loss is dice")
        said["gamma"] = routed.parts.get("dice_gamma", 1.0)
    elif routed.parts.get("dice_gamma") not in (None, 1.0):
        notes.append("dice_gamma is not used: the loss is not dice")
    if kind == "gliner_pipe.focal":
        said = {"alpha": -1.0, "gamma": 0.0, **said}
    for key in ("alpha", "gamma", "prob_margin"):
        if key in said and key not in _OWN[kind] and said.pop(key) not in (0, -1):
            notes.append(f"{key} is not used: {kind} has none")
    return {"@losses": kind, **said}


def adapter(peft: Sequence[Given], notes: list[str]) -> dict[str, Any] | None:
    """Return the block of the adapter that is asked for, None for none."""
    said = {item.name.name: item for item in peft if not item.absent}
    routed = route([item for item in said.values() if item.name.name not in ("enabled", "method")])
    for key in ("enabled", "method"):
        route([item for name, item in said.items() if name == key])
    if not said or ("enabled" in said and not said["enabled"].name.read(said["enabled"].value)):
        return None
    notes += routed.notes
    method = str(said["method"].value).lower() if "method" in said else "lora"
    settings = {key.rpartition(".")[2]: value for key, value in routed.settings.items()}
    if method == "lora":
        return {"@adapters": "lora", **settings}
    given = {name: item.name.read(item.value) for name, item in said.items() if item.name.fate == "option"}
    options = {
        name: value for name, value in given.items() if name not in ("enabled", "method", "target_modules")
    }
    block = {"@adapters": "peft", "method": method}
    block |= {"target_modules": settings["target_modules"]} if "target_modules" in settings else {}
    return {**block, **({"options": options} if options else {})}


def add_adapter(made: dict[str, Any], block: dict[str, Any], notes: list[str]) -> None:
    """Put an adapter on the encoder of the blocks `made`."""
    backbone = made["encoder"]["backbone"]
    backbone["adapter"] = block
    if backbone["freeze"]:
        backbone["freeze"] = False
        notes.append("fine_tune = false is what an adapter does anyway: only its own weights learn")


def pretrained_config(name: str, notes: list[str]) -> tuple[Any, Any]:
    """Return configuration and tokenizer of an encoder; None and a note where they cannot be had."""
    from transformers import AutoConfig, AutoTokenizer

    from gliner_pipe.modeling.backbones import hf

    for only_here in (True, False):  # what was downloaded once is not asked for again
        try:
            source = hf.source_of(name, "model_name")
            config = AutoConfig.from_pretrained(source, local_files_only=only_here)
            return config, AutoTokenizer.from_pretrained(source, local_files_only=only_here)
        except (OSError, ValueError, ImportError):
            continue
    notes.append(
        f"the configuration of {name} could not be had: the window follows max_len alone. If the encoder takes "
        "fewer pieces, the training says so: set components.gliner.model.encoder.backbone.window then"
    )
    return None, None


def _note_unused(config: Mapping[str, Any], notes: list[str]) -> None:
    """Say which keys the architecture does not read."""
    relates, writes = config.get("relations_layer") is not None, bool(config.get("labels_decoder"))
    if config.get("labels_encoder") and (relates or writes):
        other = "relations_layer" if relates else "labels_decoder"
        notes.append(
            f"labels_encoder is not used beside {other}, as in GLiNER; here both can be had: see the blocks bi_encoder "
            f"and {'relation_layer' if relates else 'generative'}"
        )
    if relates and writes:
        notes.append("labels_decoder is not used beside relations_layer, as in GLiNER")
    bi = bool(config.get("labels_encoder")) and not relates and not writes
    if bi and config.get("num_rnn_layers"):
        notes.append("num_rnn_layers is not used with labels_encoder, as in GLiNER")
    if config.get("post_fusion_schema") and not bi:
        notes.append("post_fusion_schema is not used without labels_encoder, as in GLiNER")
    if config.get("span_mode") == "token_level":
        if "max_width" in config:
            notes.append(
                "max_width is not used with span_mode = token_level: entities may have any number of words"
            )
    elif config.get("represent_spans"):
        notes.append("represent_spans is not used without span_mode = token_level")
