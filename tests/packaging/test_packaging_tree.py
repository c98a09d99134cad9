from __future__ import annotations

import ast
from typing import Any

import pytest

from gliner_pipe.packaging.build import init_text, pyproject_text

META: dict[str, Any] = {
    "name": "m",
    "version": "1.0",
    "description": 'Says "hi"\nin \\ two lines',
    "author": "Zoë 😀\x7f",
    "email": "",
    "url": "https://example.org",
    "license": "MIT",
}


def test_init_is_python_that_imports_the_code() -> None:
    module = ast.parse(init_text("m", "1.0", "artifacts", ["mine.parts", "other"]))
    imported = [name.name for node in module.body if isinstance(node, ast.Import) for name in node.names]
    assert imported == ["mine.parts", "other"]
    assert [node.name for node in module.body if isinstance(node, ast.FunctionDef)] == ["load"]


def test_pyproject_is_valid_toml_for_any_text() -> None:
    tomllib = pytest.importorskip("tomllib")
    found = tomllib.loads(pyproject_text(META, ["spacy>=3.8"], ["mine", "other.py"]))
    project = found["project"]
    assert project["description"] == 'Says "hi" in \\ two lines'
    assert project["authors"] == [{"name": "Zoë 😀\x7f"}]
    assert project["license"] == {"text": "MIT"}
    assert project["dependencies"] == ["spacy>=3.8"]
    assert project["urls"] == {"Homepage": "https://example.org"}
    assert project["entry-points"] == {"spacy_models": {"m": "m"}}
    assert found["tool"]["hatch"]["build"] == {"ignore-vcs": True, "only-include": ["m", "mine", "other.py"]}


def test_pyproject_omits_empty_fields() -> None:
    tomllib = pytest.importorskip("tomllib")
    empty = dict.fromkeys(("author", "url", "license", "description"), "")
    project = tomllib.loads(pyproject_text({**META, **empty}, [], []))["project"]
    assert not {"authors", "urls", "license", "keywords"} & project.keys()
