"""Blocks: torch modules that are registered by name in a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from confit import Config
from confit.utils.collections import split_path
from confit.utils.xjson import Reference
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
    #: What ``toDict`` returned; copies keep it, since confit knows the arguments of the original only.
    _section: dict[str, Any] | None = None

    def __init__(self) -> None:
        super().__init__()

    def toDict(self) -> dict[str, Any]:
        """Return the section of a config that builds the block, so that ``nlp.add_pipe`` accepts block objects.

        Raises
        ------
        ConfigError
            If a config cannot build it: its class, or that of a block inside, is not registered.
        """
        if self._section is None:
            self._section = section_of(self)
        return self._section

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


def section_of(block: Block) -> dict[str, Any]:
    """Return the section of a config that builds `block`; see :meth:`Block.toDict`."""
    for part in block.modules():
        if isinstance(part, Block) and part.family:
            view = getattr(registry, part.family)
            if not any(view.get(name) is type(part) for name in available(part.family)):
                raise ConfigError(
                    f"@{part.family}",
                    f"found an object of {type(part).__name__}, a class that is not registered",
                    ", ".join(available(part.family)),
                    f'Register it: @registry.{part.family}.register("my_name") above the class',
                )
    try:
        root = Config.serialize(block)
    except TypeError as error:
        found = f"found a {type(block).__name__} whose arguments are no JSON ({error})"
        raise ConfigError(f"@{block.family}", found, "strings, numbers, lists and blocks") from None
    section: dict[str, Any] = _without_references(root, root)
    return section


def _without_references(value: Any, root: Mapping[str, Any]) -> Any:
    """Replace references to a block that occurs twice by its section."""
    if isinstance(value, Reference):
        found: Any = root
        for key in split_path(value.value):
            found = found[key]
        return _without_references(found, root)
    if isinstance(value, Mapping):
        return {key: _without_references(inner, root) for key, inner in value.items()}
    return (
        [_without_references(inner, root) for inner in value] if isinstance(value, (list, tuple)) else value
    )


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
