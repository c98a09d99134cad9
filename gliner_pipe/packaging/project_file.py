"""What the ``pyproject.toml`` of a project says about its package."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gliner_pipe.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib

PROJECT_FILE = "pyproject.toml"


@dataclass
class Project:
    """The section ``[project]`` of a ``pyproject.toml``.

    Attributes
    ----------
    path
        The file; None if there is none.
    name, version
        Name, as that of a module, and version; None if not stated.
    metadata
        Description, author, email, url, license and keywords, as far as they are stated.
    dependencies
        Requirements of the project.
    """

    path: Path | None = None
    name: str | None = None
    version: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    dependencies: list[str] = field(default_factory=list)


def find_project(folders: Sequence[Path]) -> Project:
    """Read the ``[project]`` of the first folder with a ``pyproject.toml``, other than that of gliner_pipe itself.

    Its authors, licence and requirements are not those of a pipeline that is packaged in its repository.

    Raises
    ------
    ConfigError
        If a file is not valid.
    """
    files = (one / PROJECT_FILE for one in folders)
    found = (read_project(path) for path in files if path.is_file())
    return next((project for project in found if project.name != "gliner_pipe"), Project())


def read_project(path: Path) -> Project:
    """Read the ``[project]`` of a ``pyproject.toml``; values that are computed at build time are not stated.

    Raises
    ------
    ConfigError
        If the file, or a value in the section, is not valid.
    """
    try:
        stated = tomllib.loads(path.read_text(encoding="utf8")).get("project", {})
    except (ValueError, OSError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", "a file in TOML") from None
    kinds: dict[str, type] = {
        **dict.fromkeys(("name", "version", "description"), str),
        **dict.fromkeys(("authors", "keywords", "dependencies"), list),
    }
    for key, kind in kinds.items():
        if not isinstance(stated.get(key, kind()), kind):
            allowed = "a string" if kind is str else "a list"
            raise ConfigError(f"{path} (project.{key})", f"is {stated[key]!r}", allowed)
    authors = [one for one in stated.get("authors", []) if isinstance(one, Mapping)]
    license_ = stated.get("license", "")
    urls = {str(key).lower(): value for key, value in stated.get("urls", {}).items()}
    found = {
        "description": stated.get("description", ""),
        "author": ", ".join(one["name"] for one in authors if one.get("name")),
        "email": next((one["email"] for one in authors if one.get("email")), ""),
        "url": urls.get("homepage") or urls.get("repository") or "",
        "license": license_.get("text", "") if isinstance(license_, Mapping) else license_,
        "keywords": stated.get("keywords", []),
    }
    name = stated.get("name", "").replace("-", "_").replace(".", "_")
    return Project(
        path,
        name or None,
        stated.get("version") or None,
        {key: value for key, value in found.items() if value},
        list(stated.get("dependencies", [])),
    )
