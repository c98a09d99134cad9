"""Maps the ``config.json`` of a GLiNER2 checkpoint to our blocks, and its tensor names to ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from gliner_pipe.checkpoints import gliner2_boundary
from gliner_pipe.errors import CheckpointError
from gliner_pipe.modeling.backbones.windows import default_stride
from gliner_pipe.modeling.block import available

#: Regular expressions of their names, and our names for these; None for tensors that are not used.
Names = tuple[tuple[str, str | None], ...]

#: Subword tokens of text in a window, if the encoder has room for them: of some 384 words, as the package cuts texts.
WINDOW = 768

#: Names of tensors of all architectures, as regular expressions: theirs, ours.
COMMON: Names = ((r"encoder\.", "encoder.backbone.encoder."),)

#: Names of tensors of the architecture ``span``.
SPAN: Names = (
    *COMMON,
    (r"span_rep\.span_rep_layer\.", "span_rep."),
    (r"classifier\.", "classifier.network."),
    (r"count_pred\.", "counter.number."),
    (r"count_embed\.gru\.(weight|bias)_ih_l0", r"counter.of_instance.\1"),
    (r"count_embed\.gru\.(weight|bias)_hh_l0", r"counter.of_state.\1"),
    (
        r"count_embed\.transformer\.transformer\.(layers\.\d+\.)self_attn\.in_proj_(\w+)",
        r"counter.\1in_proj.\2",
    ),
    (r"count_embed\.transformer\.transformer\.(layers\.\d+\.)(?:self_attn\.)?", r"counter.\1"),
    (r"count_embed\.(?:transformer\.)?", "counter."),
)


def blocks(config: Mapping[str, Any], folder: Path, limit: int | None) -> dict[str, Any]:
    """Return the configuration of the blocks that a ``config.json`` describes.

    Parameters
    ----------
    config
        Content of the file.
    folder
        Folder of the checkpoint, for errors.
    limit
        Positions of the text encoder; None for no limit.
    """
    window = WINDOW if limit is None else min(WINDOW, limit)
    backbone = {
        "@backbones": "transformer",
        "model": config["model_name"],
        "pooling": config.get("token_pooling") or "first",
        "window": window,
        "stride": default_stride(window),
        "special_pieces": False,
    }
    encoder = {"@encoders": "schema_encoder", "backbone": backbone}
    heads = ARCHITECTURES[architecture(config, folder)][0](config, folder)
    return {"@architectures": "gliner_pipe.GLiNER.v1", "encoder": encoder, **heads}


def architecture(config: Mapping[str, Any], folder: Path) -> str:
    """Return the architecture of a checkpoint: ``span`` where none is named."""
    name = str(config.get("architecture") or "span")
    if name not in ARCHITECTURES:
        allowed = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"{folder}: has architecture = {name!r}; allowed: {allowed}.")
    return name


def _span(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the blocks of the architecture ``span`` behind the encoder."""
    head = config.get("span_head") or {}
    counter = config.get("counting_layer") or "count_lstm"
    if counter not in available("counters"):
        allowed = ", ".join(available("counters"))
        raise CheckpointError(f"{folder}: has counting_layer = {counter!r}; allowed: {allowed}.")
    width = head.get("max_width") or config.get("max_width") or 8
    return {
        "span_rep": {"@span_reps": "markerV0", "max_width": width, "dropout": 0.1},
        "counter": {"@counters": counter},
        "classifier": {"@classifiers": "label_mlp"},
        "relation_finder": {"@relation_finders": "slots"},
        "record_finder": {"@record_finders": "slots"},
        "decoder": {"@decoders": "span", "across_labels": False},
        # the loss that these checkpoints were trained with, and a weight that teaches new names in fewer steps
        "loss": {"@losses": "gliner_pipe.bce", "masking": "global", "negatives": 0.5, "choice_weight": 1.0},
    }


def _boundary(config: Mapping[str, Any]) -> Names:
    """Return the names of tensors of the architecture ``boundary``."""
    return (*COMMON, *gliner2_boundary.names(config))


#: For each architecture, what makes its blocks, and the names of its tensors: theirs, and ours, or None if not used.
ARCHITECTURES: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[Mapping[str, Any]], Names]]] = {
    "span": (_span, lambda config: SPAN),
    "boundary": (gliner2_boundary.blocks, _boundary),
}


def rename(state: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> dict[str, Tensor]:
    """Return tensors under our names; unknown names are kept, and reported as unexpected later."""
    pairs = _pairs(config, folder)
    renamed = ((_renamed(name, pairs), tensor) for name, tensor in state.items())
    return {name: tensor for name, tensor in renamed if name is not None}


def unused(state: Mapping[str, Tensor], config: Mapping[str, Any], folder: Path) -> dict[str, Tensor]:
    """Return the tensors that no block has, under their own names."""
    pairs = _pairs(config, folder)
    return {name: tensor for name, tensor in state.items() if _renamed(name, pairs) is None}


def _pairs(config: Mapping[str, Any], folder: Path) -> list[tuple[re.Pattern[str], str | None]]:
    names = ARCHITECTURES[architecture(config, folder)][1](config)
    return [(re.compile(theirs), ours) for theirs, ours in names]


def _renamed(name: str, pairs: list[tuple[re.Pattern[str], str | None]]) -> str | None:
    for theirs, ours in pairs:
        if found := theirs.match(name):
            return None if ours is None else found.expand(ours) + name[found.end() :]
    return name
