"""Blocks: torch modules that are registered by name in a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from confit import Config
from pydantic_core import core_schema
from torch import nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry


class Block(nn.Module):
    """Base of all blocks.

    A constructor only stores its arguments; weights, tokenizers and files are loaded by ``build()``, once sizes are
    known. An argument annotated with a block class accepts a block of that family, or a mapping such as
    ``{"@backbones": "transformer", "window": 256}``.
    """

    family: ClassVar[str] = ""

    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(cls._validated)

    @classmethod
    def _validated(cls, value: Any) -> Any:
        key = f"@{cls.family}"
        if isinstance(value, Mapping) and key in value:
            arguments = dict(value)
            value = getattr(registry, cls.family).get(arguments.pop(key))(**arguments)
        if isinstance(value, cls):
            return value
        raise ValueError(f"found {described(value)}; allowed: {key} = {', '.join(available(cls.family))}")


def available(family: str) -> list[str]:
    """Return the sorted names of the blocks registered in `family`, also by other packages.

    In registries that are shared with spaCy or thinc, entries that are not a :class:`Block` are left out.
    """
    view = getattr(registry, family)
    names = sorted(view.get_available())
    if view.namespace[0] == "gliner_pipe":
        return names
    return [name for name in names if isinstance(found := view.get(name), type) and issubclass(found, Block)]


def described(value: Any) -> str:
    """Describe `value` for an error: a block by its registered name, anything else by value and type."""
    if isinstance(value, Block):
        try:
            value = Config.serialize({"block": value})["block"]
        except TypeError:  # copied blocks and unregistered ones have no config
            return f"a {type(value).__name__} (a block of @{value.family})"
    if isinstance(value, Mapping):
        named = [f"{key} = {name}" for key, name in value.items() if str(key).startswith("@")]
        return " and ".join(named) or "a section without @ key"
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def check_divides(option: str, found: int, width: int) -> None:
    """Raise a :class:`ConfigError` if an option of the model, such as ``fusion.n_heads``, does not divide the width."""
    if width % found:
        where = f"components.*.model.{option}"
        raise ConfigError(where, f"found {found} with vectors of width {width}", f"a divisor of {width}")


def from_blocks(blocks: dict[str, Any]) -> Any:
    """Build a model, without weights, from its configuration.

    Parameters
    ----------
    blocks
        The section ``model``: an ``@architectures`` with its blocks. It is stored as ``model.blocks``.
    """
    model = Config({"model": blocks}).resolve(registry=registry)["model"]
    model.blocks = blocks
    return model
