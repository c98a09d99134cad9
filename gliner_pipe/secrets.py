"""Passwords, tokens and keys: told from other settings, and blotted out of what leaves this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: What stands in the place of a secret.
BLOT = "***"

_NAME = re.compile(
    r"(^|[_-])(((hub|hf|auth|access|api|bearer|secret)[_-]?)(token|key)|password|passwd|secret|credentials?)$"
    r"|^token$",
    re.IGNORECASE,
)
_VALUE = re.compile(r"\bhf_[A-Za-z0-9]{16,}|\bsk-[\w-]{16,}|\bAKIA[0-9A-Z]{16}\b|://[^/\s:@]+:[^/\s@]+@")
_LINE = re.compile(r"^([^\s=\[#;][^=]*?)(\s*=\s*)(.*)$", re.MULTILINE)


def is_secret(name: str, value: Any) -> bool:
    """Tell whether a setting should not leave this machine: a password, a token of a login, a key.

    Parameters
    ----------
    name
        Name of the setting, with or without those of its sections. That ``max_tokens`` or ``ent_token`` is no
        secret is known.
    value
        Its value, whose form may give a secret away.
    """
    return bool(_NAME.search(name.rpartition(".")[2]) or _VALUE.search(str(value)))


def blotted(name: str, value: Any) -> Any:
    """Return `value` with the secrets in it blotted out, also those in lists and mappings."""
    if isinstance(value, Mapping):
        return {key: blotted(str(key), item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [blotted(name, item) for item in value]
    return BLOT if value is not None and is_secret(name, value) else value


def blotted_config(text: str) -> str:
    """Return the text of a config file with the secrets in it blotted out."""

    def line(match: re.Match[str]) -> str:
        name, equals, value = match.groups()
        return f'{name}{equals}"{BLOT}"' if value != "null" and is_secret(name, value) else match.group()

    return _LINE.sub(line, text)
