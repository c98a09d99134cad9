"""The settings of the component ``gliner``, their defaults and what they may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.precision import PRECISION_SETTINGS, check_precision
from gliner_pipe.pipeline.labels import check_threshold

#: Settings that may be changed at run time.
#:
#: ``relation_threshold``: score that a relation needs; null for ``threshold``. ``adjacency_threshold``: how strongly
#: two entities must be tied before it is asked how. ``relation_reach``: how many windows further the second entity may
#: stand. ``relation_sampling``: how training draws pairs, see ``RelationSampling``. ``generate_constraints``: the only
#: labels that a language model may write; null for any. ``n_sequences``: labels that it writes for an entity; null for
#: what its block says. ``use_generated_labels``: the best of these is the entity's label. ``prompt_slots``: labels at
#: most, where the model reads none and writes all.
SETTINGS: dict[str, Any] = {
    "threshold": 0.5,
    "relation_threshold": None,
    "adjacency_threshold": 0.5,
    "relation_reach": 1,
    "flat_ner": True,
    "multi_label": False,
    "spans_key": "gliner",
    "gold_spans_key": None,
    "annotate_ents": True,
    "overwrite_ents": False,
    "alignment_mode": "strict",
    "batch_size": None,
    "device": "auto",
    **PRECISION_SETTINGS,
    "label_sampling": {},
    "relation_sampling": {},
    "task_lr_ratio": 4.0,
    "generate_constraints": None,
    "n_sequences": None,
    "use_generated_labels": False,
    "prompt_slots": 8,
}

#: The whole default configuration: MiniLM, markerV0, focal loss.
DEFAULT_CONFIG: dict[str, Any] = {
    **SETTINGS,
    "labels": [],
    "relations": [],
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
    list: "a list",
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
    "relation_reach": (int,),
    "relation_sampling": (dict,),
    "generate_constraints": (list, type(None)),
    "n_sequences": (int, type(None)),
    "use_generated_labels": (bool,),
    "prompt_slots": (int,),
}
#: Whole numbers, and the least that each may be.
_LEAST = {"batch_size": 1, "relation_reach": 0, "n_sequences": 1, "prompt_slots": 1}


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
    for name in ("threshold", "adjacency_threshold", "relation_threshold"):
        if settings[name] is not None or name != "relation_threshold":
            check_threshold(settings[name], f"{where}.{name}")
    if settings["alignment_mode"] not in ("strict", "contract", "expand"):
        raise ConfigError(
            f"{where}.alignment_mode", f"found {settings['alignment_mode']!r}", "strict, contract, expand"
        )
    for name, least in _LEAST.items():
        if settings[name] is not None and settings[name] < least:
            or_null = ", or null" if type(None) in _CHOICES[name] else ""
            raise ConfigError(f"{where}.{name}", f"found {settings[name]}", f"{least} or more{or_null}")
    for label in settings["generate_constraints"] or ():
        if not isinstance(label, str) or not label.strip():
            raise ConfigError(
                f"{where}.generate_constraints", f"found {label!r}", "strings that are not blank"
            )
    if not 0 < settings["task_lr_ratio"] < float("inf"):
        raise ConfigError(f"{where}.task_lr_ratio", f"found {settings['task_lr_ratio']}", "a number above 0")
    check_device(settings["device"], f"{where}.device")
    check_precision(settings, where)
    for name in ("label_sampling", "relation_sampling"):
        _check_sampling(settings[name], _sampling(name), f"{where}.{name}")
    return dict(settings)


def check_device(name: str, where: str) -> None:
    """Refuse what names no device; whether this machine has it is asked when the model moves there."""
    try:
        if name != "auto":
            torch.device(name)
    except RuntimeError:
        raise ConfigError(where, f"found {name!r}", "auto, cpu, cuda, cuda:0 ..., mps") from None


def _sampling(name: str) -> Any:
    """The class behind a section; imported late, as it needs what needs the settings."""
    from gliner_pipe.data.label_sampling import LabelSampling
    from gliner_pipe.data.relation_sampling import RelationSampling

    return LabelSampling if name == "label_sampling" else RelationSampling


def _check_sampling(settings: Mapping[str, Any], kind: Any, where: str) -> None:
    fields = kind.__dataclass_fields__
    for name, value in settings.items():
        if name not in fields:
            raise ConfigError(f"{where}.{name}", "is no setting", ", ".join(fields))
        try:
            kind(**{name: value})
        except TypeError:
            raise ConfigError(f"{where}.{name}", f"found {value!r}", str(fields[name].type)) from None
        except ConfigError as error:
            raise ConfigError(f"{where}.{name}", error.found, error.allowed, error.do) from None
