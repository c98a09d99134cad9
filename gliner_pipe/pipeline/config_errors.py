"""Turns errors of pydantic, confit and confection into a ``ConfigError`` with section, found, allowed and advice.

confit and confection stop at the first error with what they know at that point: often neither the section nor the
allowed values. After such a failure `find_mistake` walks the configuration, the innermost sections first.
`check_settings` checks the settings of a component against their annotations.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal

import spacy
from confit import Config
from confit.errors import ConfitValidationError
from confit.utils.xjson import Reference
from pydantic import BaseModel, ValidationError
from spacy.language import Language

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.block import Block, available, described
from gliner_pipe.pipeline.expressions import computed, paths_in
from gliner_pipe.registry import BLOCK_FAMILIES, registry

#: Families whose blocks are cheap to construct: constructing one shows whether its arguments are valid.
CHEAP = (*BLOCK_FAMILIES, "architectures", "losses")
#: What replaces the blocks of EDS-NLP, by their names without "eds.".
EDS_NLP = {
    "ner_crf": '@factory = "token_classifier"',
    "transformer": '@backbones = "transformer"',
    "text_cnn": '@backbones = "text_cnn"',
    "ner_exact": '@metrics = "gliner_pipe.ner_exact"',
    "ner_overlap": '@metrics = "gliner_pipe.ner_overlap"',
    "ner_token": '@metrics = "gliner_pipe.ner_token"',
    "sentences": '@factory = "sentencizer"',
}
MIGRATION = "https://gliner-pipe.readthedocs.io/en/latest/migrating/#from-eds-nlp"


def check_settings(kind: type[BaseModel], settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return `settings` as a new mapping, with unchanged values.

    Parameters
    ----------
    kind
        The settings with their types and ranges. A validator may raise a ``ConfigError`` whose section is relative to
        its setting, ``""`` for the setting itself.
    settings
        All settings by name.
    where
        Section of the component.

    Raises
    ------
    ConfigError
        For an unknown setting, or the first value that its annotation does not allow.
    """
    names = list(kind.model_fields)
    for name in settings:
        if name not in names:
            raise ConfigError(
                f"{where}.{name}", "is not a setting", ", ".join(names), did_you_mean(name, names)
            )
    try:
        kind.model_validate(dict(settings))
    except ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        name = str(mistake["loc"][0])
        place, value = f"{where}.{name}", settings[name]
        raised = mistake.get("ctx", {}).get("error")
        if isinstance(raised, ConfigError):
            place = f"{place}.{raised.where}" if raised.where else place
            raise ConfigError(place, raised.found, raised.allowed, raised.do) from None
        field = kind.model_fields[name]
        found = described(value) if mistake["type"].endswith("_type") else repr(value)
        raise ConfigError(place, f"found {found}", allowed_values(field.annotation, field.metadata)) from None
    return dict(settings)


_TYPES = {
    bool: "true or false",
    str: "a string",
    int: "a whole number",
    float: "a number",
    dict: "a section",
    list: "a list",
    NoneType: "null",
}


def allowed_values(hint: Any, limits: Sequence[Any] = ()) -> str:
    """Describe the values that an annotation allows, such as "a whole number of at least 1, or null"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return allowed_values(
            arguments[0], [one for note in arguments[1:] for one in getattr(note, "metadata", [note])]
        )
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (typing.Union, UnionType):
        return ", or ".join(map(allowed_values, arguments))
    bounds = {name: getattr(one, name) for one in limits for name in ("ge", "gt", "le") if hasattr(one, name)}
    text = _TYPES.get(origin or hint, str(hint))
    if {"ge", "le"} <= bounds.keys():
        return f"{text} from {bounds['ge']} to {bounds['le']}"
    if "ge" in bounds:
        return f"{text} of at least {bounds['ge']}"
    return f"{text} above {bounds['gt']}" if "gt" in bounds else text


def find_mistake(config: Mapping[str, Any], where: str = "") -> ConfigError | None:
    """Return the first mistake in `config` with the path of its section; None if there is none.

    Parameters
    ----------
    config
        Plain JSON, or the result of reading a file with confit, references included.
    where
        Path of `config` itself.
    """
    try:
        for error in _mistakes(config, where, config):
            return error
    except Exception:  # the configuration is faulty: if it cannot be walked, the original error is shown
        return None
    return None


def _mistakes(value: Any, where: str, root: Mapping[str, Any]) -> Iterator[ConfigError]:
    if isinstance(value, Reference):
        yield from _reference(value, where, root)
    elif isinstance(value, float) and not math.isfinite(value):
        yield ConfigError(where, f"found {value}", "a finite number")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _mistakes(inner, f"{where}.{key}" if where else str(key), root)
        if names := [key for key in value if str(key).startswith("@")]:
            yield from _block(value, names, where, root)
        elif "factory" in value:
            yield from _component(value, "factory", where)


def _block(
    block: Mapping[str, Any], keys: list[str], where: str, root: Mapping[str, Any]
) -> Iterator[ConfigError]:
    if len(keys) > 1:
        yield ConfigError(where, f"holds {' and '.join(keys)}", "one key with @", "Remove one of them")
        return
    family, name = keys[0][1:], str(block[keys[0]]).removesuffix("!draft").strip()
    if family in ("factory", "factories"):
        yield from _component(block, keys[0], where)
        return
    view = getattr(registry, family, None) or getattr(spacy.registry, family, None)
    if view is None:
        families = [f"@{key}" for key, entry in vars(registry).items() if hasattr(entry, "namespace")]
        yield ConfigError(
            where, f"found the key @{family}", ", ".join(sorted(families)), did_you_mean(keys[0], families)
        )
        return
    names = list(view.get_available() if hasattr(view, "get_available") else view.get_all())
    if name not in names:
        if theirs := of_eds_nlp(name, where, f"@{family} = {name}"):
            yield theirs
            return
        ours = available(family) if family in CHEAP else names
        yield ConfigError(
            where, f"found @{family} = {name}", ", ".join(sorted(ours)), did_you_mean(name, ours)
        )
        return
    yield from _arguments(view.get(name), block, family, name, where)
    if family in CHEAP and not any(isinstance(value, Reference) for value in block.values()):
        yield from _constructed(block, where, root)


def _arguments(
    function: Any, block: Mapping[str, Any], family: str, name: str, where: str
) -> Iterator[ConfigError]:
    """Compare the keys of a block with the parameters of its function."""
    function = inspect.unwrap(function.__init__ if inspect.isclass(function) else function)
    parameters = {key: item for key, item in inspect.signature(function).parameters.items() if key != "self"}
    named = [key for key, item in parameters.items() if item.kind is not item.VAR_KEYWORD]
    if len(named) == len(parameters):
        for key in block:
            if not key.startswith("@") and key not in named:
                yield ConfigError(
                    f"{where}.{key}",
                    f"is not a setting of @{family} = {name}",
                    ", ".join(named),
                    did_you_mean(key, named),
                )
    hints = typing.get_type_hints(function)
    for key, item in parameters.items():
        expected = _family(hints.get(key))
        allowed = f"@{expected} = {', '.join(available(expected))}" if expected else ""
        required = (
            item.default is item.empty and key in named and not str(block[f"@{family}"]).endswith("!draft")
        )
        if key not in block and required:
            do = f"Add a section [{where}.{key}]" if expected else f"Add a line {key} = ..."
            yield ConfigError(where, f"lacks the setting {key}", allowed, do)
        value = block.get(key)
        fits = value is None or isinstance(value, (Reference, Block))
        if expected and not fits and not (isinstance(value, Mapping) and f"@{expected}" in value):
            yield ConfigError(f"{where}.{key}", f"found {described(value)}", allowed, "Use one of these")


def _constructed(block: Mapping[str, Any], where: str, root: Mapping[str, Any]) -> Iterator[ConfigError]:
    """Construct the block, and yield the errors that this raises."""
    try:
        Config(block).resolve(registry=registry, root=root)
    except ConfitValidationError as error:
        for item in error.errors():
            place = ".".join(map(str, (where, *item["loc"])))
            yield ConfigError(place, flat(item["msg"]))
    except ConfigError as error:
        yield within(error, where)


def _component(block: Mapping[str, Any], key: str, where: str) -> Iterator[ConfigError]:
    name = block[key]
    factories = registry.factory.get_available()
    if name not in factories:
        if theirs := of_eds_nlp(str(name), where, f"{key} = {name}"):
            yield theirs
            return
        yield ConfigError(
            where, f"found {key} = {name}", ", ".join(factories), did_you_mean(str(name), factories)
        )
        return
    settings = list(Language.get_factory_meta(name).default_config)
    for setting in block:
        if setting not in (key, "factory", "source", *settings):
            yield ConfigError(
                f"{where}.{setting}",
                f"is not a setting of the component {name}",
                ", ".join(settings),
                did_you_mean(setting, settings),
            )


def of_eds_nlp(name: str, where: str, found: str) -> ConfigError | None:
    """Return the error for a name of EDS-NLP, with the name that replaces it; None for another name."""
    if not name.startswith("eds."):
        return None
    ours = EDS_NLP.get(name.removeprefix("eds."))
    allowed = ours or "none: this package has no such block"
    return ConfigError(where, f"found {found}, a name of EDS-NLP", allowed, f"See {MIGRATION}")


def _reference(reference: Reference, where: str, root: Mapping[str, Any]) -> Iterator[ConfigError]:
    for parts in paths_in(reference):
        found: Any = root
        for part in parts:
            if not isinstance(found, Mapping):
                break
            if part not in found:
                keys = [str(key) for key in found]
                yield ConfigError(
                    where,
                    f"refers to {reference}, which does not exist",
                    ", ".join(keys),
                    did_you_mean(str(part), keys),
                )
                return
            found = found[part]
    try:
        computed(reference, root, where)
    except ConfigError as error:
        yield error


def _family(hint: Any) -> str | None:
    """Return the family of blocks that an annotation such as ``Loss | None`` requires."""
    for kind in (hint, *typing.get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, Block) and kind.family:
            return kind.family
    return None


def within(error: ConfigError, where: str) -> ConfigError:
    """Return `error` with its section in place of ``components.*``."""
    if not error.where.startswith("components.*"):
        return error
    return ConfigError(f"{where}.{error.where.rpartition('.')[2]}", error.found, error.allowed, error.do)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a question with the most similar of `names`; an empty text if none is similar."""
    close = get_close_matches(name, list(names), 1)
    return f"Did you mean {close[0]}?" if close else ""


def flat(text: str) -> str:
    """Return a text of several lines as one line."""
    return " ".join(text.split())
