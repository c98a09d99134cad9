"""The settings of the component ``token_classifier``, their defaults and what they may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gliner_pipe.data.annotations import SpanSetter, span_places
from gliner_pipe.data.token_targets import check_target
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.precision import PRECISION_SETTINGS, check_precision
from gliner_pipe.pipeline.gliner.settings import check_device
from gliner_pipe.pipeline.labels import check_threshold

#: Settings that may be changed at run time.
#:
#: ``target``: ``"spans"``, or the attribute of tokens that is learned and written: ``"tag_"``, ``"pos_"``,
#: ``"_.name"``.
#: ``target_span_getter``: where gold spans stand; ``doc.ents`` where a document has none of these groups.
#: ``span_setter``: where spans are written to; null for ``doc.ents`` and, inferred, the groups of the gold spans.
#: ``infer_span_setter``: whether the groups of ``target_span_getter`` are added to ``span_setter``; null for yes where
#: ``span_setter`` is null. ``threshold``: score that a span needs.
SETTINGS: dict[str, Any] = {
    "target": "spans",
    "target_span_getter": "gliner",
    "span_setter": None,
    "infer_span_setter": None,
    "threshold": 0.0,
    "overwrite_ents": False,
    "alignment_mode": "strict",
    "batch_size": None,
    "device": "auto",
    **PRECISION_SETTINGS,
    "task_lr_ratio": 4.0,
}

#: The whole default configuration; without ``model``, one is made of ``embedding`` and ``decoder``, or of ``mode`` and
#: ``scheme``.
DEFAULT_CONFIG: dict[str, Any] = {
    **SETTINGS,
    "labels": [],
    "word_splitter": None,
    "scorer": None,
    "model": None,
    "embedding": None,
    "decoder": None,
    "mode": None,
    "scheme": None,
}

_CHOICES: dict[str, tuple[tuple[Any, ...], str]] = {
    "infer_span_setter": ((True, False, None), "true, false or null"),
    "overwrite_ents": ((True, False), "true or false"),
    "alignment_mode": (("strict", "contract", "expand"), "strict, contract, expand"),
}


def check_settings(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the settings as a new mapping, or refuse the first that cannot be.

    Raises
    ------
    ConfigError
        With the setting, what was found and what is allowed.
    """
    for name in settings:
        if name not in SETTINGS:
            raise ConfigError(f"{where}.{name}", "is no setting", ", ".join(SETTINGS))
    for name, (choices, allowed) in _CHOICES.items():
        if not any(settings[name] is choice or settings[name] == choice for choice in choices):
            raise ConfigError(f"{where}.{name}", f"found {settings[name]!r}", allowed)
    check_target(settings["target"], f"{where}.target")
    check_threshold(settings["threshold"], f"{where}.threshold")
    _check_places(settings["target_span_getter"], f"{where}.target_span_getter")
    if settings["span_setter"] is not None:
        _check_places(settings["span_setter"], f"{where}.span_setter")
    size, ratio = settings["batch_size"], settings["task_lr_ratio"]
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ConfigError(f"{where}.batch_size", f"found {size!r}", "1 or more, or null")
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio < float("inf"):
        raise ConfigError(f"{where}.task_lr_ratio", f"found {ratio!r}", "a number above 0")
    if not isinstance(settings["device"], str):
        raise ConfigError(
            f"{where}.device", f"found {settings['device']!r}", "auto, cpu, cuda, cuda:0 ..., mps"
        )
    check_device(settings["device"], f"{where}.device")
    check_precision(settings, where)
    return dict(settings)


def _check_places(value: Any, where: str) -> None:
    allowed = 'a span group, "ents", "*", a list of these, or a mapping from these to labels (true for all)'
    names = value if isinstance(value, (list, tuple, dict)) else [value]
    labels = list(value.values()) if isinstance(value, dict) else []
    right = all(isinstance(name, str) and name for name in names) and all(
        isinstance(some, (bool, str))
        or (isinstance(some, list) and all(isinstance(one, str) for one in some))
        for some in labels
    )
    if not names or not right or (labels and not any(some is not False for some in labels)):
        raise ConfigError(where, f"found {value!r}", allowed)


def full_setter(settings: Mapping[str, Any], groups: Mapping[str, list[str]] | None = None) -> SpanSetter:
    """Return where spans are written to, with what is inferred.

    Parameters
    ----------
    settings
        Of the component.
    groups
        Labels that the gold spans of each group have, where that is known.
    """
    stated = settings["span_setter"]
    infer = settings["infer_span_setter"]
    places: dict[str, bool | str | list[str]] = {}
    for place, labels in (span_places("ents" if stated is None else stated)).items():
        places[place] = True if labels is None else sorted(labels)
    if infer or (infer is None and stated is None):
        getter = span_places(settings["target_span_getter"])
        for place in getter:
            if place in places or place == "*":
                continue
            found = (groups or {}).get(place)
            places[place] = True if len(getter) == 1 or not found else sorted(found)
    return places
