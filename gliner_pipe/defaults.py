"""The settings of the component ``gliner``, their defaults and what they may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    "task_lr_ratio": (int, float),
}


def check_settings(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the settings as a new mapping, or refuse the first that cannot be.

    Raises
    ------
    ConfigError
        With the setting, what was found and what is allowed.
    """
    from gliner_pipe.data.sampling import LabelSampling

    for name, value in settings.items():
        if name not in SETTINGS:
            raise ConfigError(f"{where}.{name}", "is no setting", ", ".join(SETTINGS))
        kinds = _CHOICES.get(name)
        if kinds and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            allowed = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
            raise ConfigError(f"{where}.{name}", f"found {value!r}", allowed)
    check_threshold(settings["threshold"], f"{where}.threshold")
    if settings["alignment_mode"] not in ("strict", "contract", "expand"):
        raise ConfigError(
            f"{where}.alignment_mode", f"found {settings['alignment_mode']!r}", "strict, contract, expand"
        )
    if settings["batch_size"] is not None and settings["batch_size"] < 1:
        raise ConfigError(f"{where}.batch_size", f"found {settings['batch_size']}", "1 or more, or nothing")
    try:
        LabelSampling(**settings["label_sampling"])
    except TypeError as error:
        raise ConfigError(f"{where}.label_sampling", str(error).split(") ")[-1], _fields(LabelSampling)) from None
    return dict(settings)


def _fields(kind: type) -> str:
    return ", ".join(getattr(kind, "__dataclass_fields__", {}))
