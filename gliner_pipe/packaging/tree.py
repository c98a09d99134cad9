"""The source tree of a package: its Python module and the ``pyproject.toml`` that builds it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

#: What the project itself needs.
PYTHON = ">=3.10"

INIT = '''"""The spaCy pipeline {name}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.util import load_model_from_path
{imports}
__version__ = "{version}"


def load(**overrides: Any) -> Language:
    """Load the pipeline; takes what ``spacy.load`` takes beside a name, e.g. `disable` and `config`."""
    return load_model_from_path(Path(__file__).parent / "{artifacts}", **overrides)
'''


def init_text(name: str, version: str, artifacts: str, modules: Sequence[str]) -> str:
    """Return the package's ``__init__.py``; `modules` register the functions of the project's code."""
    lines = [f"import {module}  # registers functions of the pipeline" for module in modules]
    imports = "\n".join(["", *lines, ""]) if lines else ""
    return INIT.format(name=name, version=version, artifacts=artifacts, imports=imports)


def pyproject_text(meta: Mapping[str, Any], requirements: Sequence[str], code: Sequence[str]) -> str:
    """Return the package's ``pyproject.toml``.

    Parameters
    ----------
    meta
        The package's ``meta.json``.
    requirements
        All its requirements.
    code
        Files and folders of the project's code at the top of the tree.

    Returns
    -------
    str
        Text in TOML; the build backend is hatchling.
    """
    name = meta["name"]
    author = {key: meta[field] for key, field in (("name", "author"), ("email", "email")) if meta[field]}
    project: dict[str, Any] = {
        "name": name,
        "version": meta["version"],
        "description": " ".join(meta["description"].split()),
        "readme": "README.md",
        "requires-python": PYTHON,
        "license": {"text": meta["license"]} if meta["license"] else None,
        "authors": [author] if author else None,
        "keywords": meta.get("keywords"),
        "dependencies": list(requirements),
    }
    sections = {
        "build-system": {"requires": ["hatchling>=1.24"], "build-backend": "hatchling.build"},
        "project": project,
        "project.urls": {"Homepage": meta["url"]} if meta["url"] else {},
        "project.entry-points.spacy_models": {name: name},
        # The tree may stand below a folder that some version control ignores.
        "tool.hatch.build": {"ignore-vcs": True, "only-include": [name, *code]},
    }
    return "\n".join(_section(title, values) for title, values in sections.items() if values)


def _section(title: str, values: Mapping[str, Any]) -> str:
    lines = [f"[{title}]", *(f"{key} = {_toml(value)}" for key, value in values.items() if value is not None)]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    # JSON's strings are TOML's, but for one control character.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
