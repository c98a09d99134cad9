from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.packaging.project_code import copy_code, find_code, import_code, modules_to_import


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src" / "pkg_of_project").mkdir(parents=True)
    (tmp_path / "src" / "pkg_of_project" / "__init__.py").write_text("from . import parts\n", encoding="utf8")
    (tmp_path / "src" / "pkg_of_project" / "parts.py").touch()
    (tmp_path / "file_of_project.py").touch()
    (tmp_path / "broken_of_project.py").write_text("import nowhere_to_be_found\n", encoding="utf8")
    (tmp_path / "notes").mkdir()
    return tmp_path


def test_folders_files_and_modules_are_found(project: Path) -> None:
    import srsly

    found = find_code(["src/pkg_of_project", "file_of_project.py", "srsly"], project)
    expected = [
        project / "src" / "pkg_of_project",
        project / "file_of_project.py",
        Path(srsly.__file__).parent,
    ]
    assert found == [path.resolve() for path in expected]


@pytest.mark.parametrize("item", ["notes", "nowhere", "src", "../x.py"])
def test_items_that_are_no_python_code(project: Path, item: str) -> None:
    with pytest.raises(ConfigError) as error:
        find_code([item], project)
    assert error.value.where == "package.code" and repr(item) in error.value.found


def test_code_is_imported_and_the_search_path_stays(project: Path) -> None:
    before = list(sys.path)
    import_code(find_code(["src/pkg_of_project", "file_of_project.py"], project))
    assert {"pkg_of_project.parts", "file_of_project"} <= sys.modules.keys()
    with pytest.raises(ConfigError, match="No module named 'nowhere_to_be_found'"):
        import_code([project / "broken_of_project.py"])
    assert sys.path == before


def test_code_is_copied_without_caches(project: Path) -> None:
    (project / "src" / "pkg_of_project" / "__pycache__").mkdir()
    target = project / "target"
    target.mkdir()
    paths = find_code(["src/pkg_of_project", "file_of_project.py"], project)
    assert copy_code(paths, target) == ["pkg_of_project", "file_of_project.py"]
    assert sorted(path.name for path in target.rglob("*")) == [
        "__init__.py",
        "file_of_project.py",
        "parts.py",
        "pkg_of_project",
    ]


def test_the_modules_in_use_are_imported_with_the_package() -> None:
    paths = [Path("mine"), Path("other.py")]
    used = ["spacy.pipeline", "mine.b", "mine.a", "mine.b", "miner.c"]
    assert modules_to_import(paths, used) == ["mine.a", "mine.b", "other"]
