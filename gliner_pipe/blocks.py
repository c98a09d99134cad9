"""What every registered block is: a torch module that belongs to a family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic_core import PydanticCustomError, core_schema
from torch import nn

from gliner_pipe.registry import registry


class Block(nn.Module):
    """Base of all blocks.

    A constructor stores its arguments and does nothing else; weights, tokenizers and files come in ``build()``, once
    sizes are known. An argument annotated with a block class accepts a block of that family only, or a mapping such
    as ``{"@backbones": "transformer", "window": 256}``.
    """

    family: ClassVar[str] = ""

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
        raise PydanticCustomError(
            "wrong_family",
            "found {found}; allowed: a block of the family {key} ({names}). Give this section one of these names",
            {"found": _described(value), "key": key, "names": ", ".join(available(cls.family))},
        )


def available(family: str) -> list[str]:
    """Names registered in `family`, entry points included, sorted."""
    return sorted(getattr(registry, family).get_available())


def _described(value: Any) -> str:
    if isinstance(value, Block):
        return f"{type(value).__name__} (a block of the family @{value.family})"
    return f"{value!r} ({type(value).__name__})"
