"""Checks the options of the command: name, version, kinds of distribution, metadata, lists of strings."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution, packages_distributions
from typing import Any

from packaging.version import InvalidVersion, Version

from gliner_pipe.errors import ConfigError

DISTRIBUTIONS = ("wheel", "sdist")
#: Fields of ``meta.json``, of the distribution's metadata and of the model card that can be set.
METADATA = ("description", "author", "email", "url", "license", "keywords", "notes", "sources")

_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9_]*[A-Za-z0-9])?", re.ASCII)


def check_name(name: object) -> str:
    """Return the name if it is valid as the name of a module and of a distribution.

    Raises
    ------
    ConfigError
        If it is not, or if another installed module has the name.
    """
    allowed = "letters, digits and underscores, with a letter first and no underscore at the end"
    if name is None:
        raise ConfigError("package.name", "is missing", allowed, "Set it, e.g. --name my_ner_model")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or keyword.iskeyword(name):
        allowed += ", and no Python keyword"
        raise ConfigError("package.name", f"is {name!r}", allowed, _name_advice(str(name)))
    owners = [owner for owner in packages_distributions().get(name, []) if not _is_model(owner, name)]
    if name in sys.stdlib_module_names or name == "gliner_pipe" or owners:
        owner = owners[0] if owners else "Python" if name != "gliner_pipe" else name
        found = f"is {name!r}, a module of {owner}"
        raise ConfigError("package.name", found, "an unused name", "Choose another name")
    return name


def check_version(version: object) -> str:
    """Return the version in normal form, e.g. ``1.0rc1`` for ``1.0-rc1``."""
    allowed = "a version such as 0.1.0"
    if isinstance(version, float):  # 0.10 has been parsed as 0.1
        found = f"is the number {version}"
        raise ConfigError("package.version", found, allowed, "Write three numbers, or add quotes")
    try:
        return str(Version(str(version)))
    except InvalidVersion as error:
        found, do = f"is {version!r}", "Write numbers separated by dots"
        raise ConfigError("package.version", found, allowed, do) from error


def check_distributions(value: str | Sequence[str]) -> list[str]:
    """Return the kinds of distribution to build, from a list or a string such as ``wheel,sdist``."""
    found = re.sub(r"['\"\[\]]", "", value).split(",") if isinstance(value, str) else value
    kinds = [str(kind).strip() for kind in found]
    if not kinds or not set(kinds) <= set(DISTRIBUTIONS):
        allowed = ", ".join(DISTRIBUTIONS)
        raise ConfigError("package.distributions", f"is {value!r}", allowed, "Set one of them or both")
    return [kind for kind in DISTRIBUTIONS if kind in kinds]


def check_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata if all its fields are in `METADATA`."""
    unknown = sorted(set(metadata) - set(METADATA))
    if unknown:
        raise ConfigError(
            f"package.metadata.{unknown[0]}",
            "is not a field of the metadata",
            ", ".join(METADATA),
            "Remove it; name, version and requirements are separate options",
        )
    return dict(metadata)


def check_folder_name(name: str) -> str:
    """Return the name of the pipeline's folder in the package if it is a plain name."""
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        return name
    allowed = "letters, digits, '_', '-' and '.'"
    raise ConfigError("package.artifacts_name", f"is {name!r}", allowed, "Use a plain folder name")


def as_list(value: str | Sequence[str] | None) -> list[str]:
    """Return a list of strings; a single string becomes a list of one."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else [str(item) for item in value]


def _name_advice(name: str) -> str:
    better = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    if better and not better[0].isalpha():
        better = f"model_{better}"
    if keyword.iskeyword(better):
        better = f"{better}_model"
    return f"Use, for example, --name {better or 'my_ner_model'}"


def _is_model(owner: str, name: str) -> bool:
    """Return whether an installed distribution is a pipeline of that name: another version of the same package."""
    return any(
        entry.group == "spacy_models" and entry.name == name for entry in distribution(owner).entry_points
    )
