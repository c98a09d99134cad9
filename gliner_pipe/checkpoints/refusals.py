"""Refusals of blocks and settings that another format does not support; nothing is written then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from gliner_pipe.errors import ConfigError

_Block = TypeVar("_Block")


@dataclass(frozen=True)
class Format:
    """A format that supports some blocks only.

    Parameters
    ----------
    name
        Its name in messages, such as "a GLiNER checkpoint".
    """

    name: str

    def refusal(self, option: str, found: str, allowed: str, do: str = "") -> ConfigError:
        """Return the error about an option of the model's section."""
        return ConfigError(
            f"components.*.model.{option}",
            f"{found}, which {self.name} does not support",
            allowed,
            do or "Keep the pipeline in spaCy's format, which supports all blocks",
        )

    def require(self, option: str, value: object, *allowed: object, why: str = "", do: str = "") -> None:
        """Raise the error unless the option has one of the allowed values; `why` explains them."""
        if value not in allowed:
            raise self.refusal(option, f"found {value!r}", ", ".join(map(str, allowed)) + why, do)

    def require_kind(self, option: str, block: object, kind: type[_Block], allowed: str) -> _Block:
        """Return a block of this kind, which `allowed` names, or raise the error."""
        if not isinstance(block, kind):
            raise self.refusal(option, f"found {type(block).__name__}", allowed)
        return block
