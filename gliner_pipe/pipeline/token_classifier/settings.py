"""The settings of the component ``token_classifier``: types, ranges and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator

from gliner_pipe.data.annotations import SpanSetter, span_places
from gliner_pipe.data.token_targets import check_target
from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.component_settings import Settings
from gliner_pipe.util.ranges import Share


def _places(value: Any, *, optional: bool = False) -> Any:
    """Check the span groups that gold spans are read from, or predicted spans written to."""
    if optional and value is None:
        return value
    names = value if isinstance(value, (list, tuple, dict)) else [value]
    labels = list(value.values()) if isinstance(value, dict) else []
    valid = all(isinstance(name, str) and name for name in names) and all(
        isinstance(some, (bool, str))
        or (isinstance(some, list) and all(isinstance(one, str) for one in some))
        for some in labels
    )
    if not names or not valid or (labels and not any(some is not False for some in labels)):
        allowed = (
            'a span group, "ents", "*", a list of these, or a mapping from these to labels (true for all)'
        )
        raise ConfigError("", f"found {value!r}", allowed)
    return value


def _target(value: Any) -> str:
    return check_target(value, "")


class TaggerSettings(Settings):
    """Settings of ``token_classifier``.

    ``target``: ``"spans"``, or the token attribute to learn and set: ``"tag_"``, ``"pos_"``, ``"_.name"``.
    ``target_span_getter``: span groups of the gold spans; ``doc.ents`` where a document has none of them.
    ``span_setter``: where predicted spans are written to; null for ``doc.ents`` and, inferred, the gold groups.
    ``infer_span_setter``: whether to add the groups of ``target_span_getter`` to ``span_setter``; null for yes if
    ``span_setter`` is null. ``threshold``: minimum score of a span.
    """

    target: Annotated[Any, AfterValidator(_target)] = "spans"
    target_span_getter: Annotated[Any, AfterValidator(_places)] = "gliner"
    span_setter: Annotated[Any, AfterValidator(partial(_places, optional=True))] = None
    infer_span_setter: bool | None = None
    threshold: Share = 0.0


#: The default configuration. Without ``model``, the model is built from ``embedding`` and ``decoder``, or from
#: ``mode``, ``scheme`` and ``chains``.
DEFAULT_CONFIG: dict[str, Any] = {
    **TaggerSettings().model_dump(),
    "labels": [],
    "word_splitter": None,
    "scorer": None,
    "model": None,
    "embedding": None,
    "decoder": None,
    "mode": None,
    "scheme": None,
    "chains": None,
}


def full_setter(settings: Mapping[str, Any], groups: Mapping[str, list[str]] | None = None) -> SpanSetter:
    """Return where spans are written to, including inferred groups.

    Parameters
    ----------
    settings
        Settings of the component.
    groups
        Labels of the gold spans in each group, where known.
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
