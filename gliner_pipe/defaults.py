"""The settings of the component ``gliner``, their defaults and what they may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.labels import check_threshold

#: Settings that may be changed at run time.
SETTINGS: dict[str, Any] = {
    "threshold": 0.5,
    "flat_ner": True,
    "multi_label": False,
    "spans_key": "gliner",
    "gold_spans_key": None,
    "annotate_ents": True,
    "overwrite_ents": False,
    "alignment_mode": "strict",
    "batch_size": None,
    "device": "auto",
    "label_sampling": {},
    "task_lr_ratio": 4.0,
}

#: The whole default configuration: MiniLM, markerV0, focal loss.
DEFAULT_CONFIG: dict[str, Any] = {
    **SETTINGS,
    "labels": [],
    "word_splitter": None,
    "scorer": {"@scorers": "gliner_pipe.spans_scorer.v1", "spans_key": "gliner"},
    "model": {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": {
            "@encoders": "uni_encoder",
            "backbone": {"@backbones": "transformer"},
        },
        "span_rep": {"@span_reps": "markerV0"},
        "loss": {"@losses": "gliner_pipe.focal"},
        "decoder": {"@decoders": "span"},
    },
}

_KINDS: dict[type, str] = {
    bool: "true or false",
    str: "a string",
    int: "a whole number",
    float: "a number",
    dict: "a section",
    type(None): "null",
}
_CHOICES: dict[str, tuple[type, ...]] = {
    "flat_ner": (bool,),
    "multi_label": (bool,),
    "spans_key": (str,),
    "gold_spans_key": (str, type(None)),
    "annotate_ents": (bool,),
    "overwrite_ents": (bool,),
    "batch_size": (int, type(None)),
    "device": (str,),
    "label_sampling": (dict,),
    "task_lr_ratio": (float, int),
}


def check_settings(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the settings as a new mapping, or refuse the first that cannot be.

    Raises
    ------
    ConfigError
        With the setting, what was found and what is allowed.
    """
    for name, value in settings.items():
        if name not in SETTINGS:
            raise ConfigError(f"{where}.{name}", "is no setting", ", ".join(SETTINGS))
        kinds = _CHOICES.get(name)
        if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            allowed = " or ".join(_KINDS[kind] for kind in kinds)
            raise ConfigError(f"{where}.{name}", f"found {value!r} ({type(value).__name__})", allowed)
    check_threshold(settings["threshold"], f"{where}.threshold")
    if settings["alignment_mode"] not in ("strict", "contract", "expand"):
        raise ConfigError(
            f"{where}.alignment_mode", f"found {settings['alignment_mode']!r}", "strict, contract, expand"
        )
    if settings["batch_size"] is not None and settings["batch_size"] < 1:
        raise ConfigError(f"{where}.batch_size", f"found {settings['batch_size']}", "1 or more, or null")
    if not 0 < settings["task_lr_ratio"] < float("inf"):
        raise ConfigError(f"{where}.task_lr_ratio", f"found {settings['task_lr_ratio']}", "a number above 0")
    _check_device(settings["device"], f"{where}.device")
    _check_sampling(settings["label_sampling"], f"{where}.label_sampling")
    return dict(settings)


def _check_device(name: str, where: str) -> None:
    """Refuse what names no device; whether this machine has it is asked when the model moves there."""
    try:
        if name != "auto":
            torch.device(name)
    except RuntimeError:
        raise ConfigError(where, f"found {name!r}", "auto, cpu, cuda, cuda:0 ..., mps") from None


def _check_sampling(settings: Mapping[str, Any], where: str) -> None:
    from gliner_pipe.data.sampling import LabelSampling

    fields = LabelSampling.__dataclass_fields__
    for name, value in settings.items():
        if name not in fields:
            raise ConfigError(f"{where}.{name}", "is no setting", ", ".join(fields))
        try:
            LabelSampling(**{name: value})
        except TypeError:
            raise ConfigError(f"{where}.{name}", f"found {value!r}", str(fields[name].type)) from None
        except ConfigError as error:
            raise ConfigError(f"{where}.{name}", error.found, error.allowed, error.do) from None
