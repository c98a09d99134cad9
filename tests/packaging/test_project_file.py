"""The ``[project]`` of a ``pyproject.toml`` gives what the options of the package do not state."""

from __future__ import annotations

import json
import shutil
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
import spacy

from gliner_pipe.errors import ConfigError
from gliner_pipe.package import main
from gliner_pipe.packaging.project_file import read_project

pytest.importorskip("tomllib")
TOML = """
[project]
name = "my-ner-project"
version = "1.2.0"
description = "Finds cities"
authors = [{ name = "Ada Smith", email = "ada@example.org" }, { name = "Alan" }]
dependencies = ["regex>=2024", "spacy>=3.7"]
license = { text = "MIT" }

[project.urls]
Homepage = "https://example.org"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a project: a pipeline, a config below it, and a project file."""
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.to_disk(tmp_path / "model-last")
    (tmp_path / "pyproject.toml").write_text(TOML, encoding="utf8")
    (tmp_path / "configs").mkdir()
    text = '[package]\npipeline = "model-last"\ndistributions = ["wheel"]\n'
    (tmp_path / "configs" / "config.cfg").write_text(text, encoding="utf8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode("utf8"))


def test_the_project_of_a_config(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gliner_pipe")
    main(["--config", "configs/config.cfg"])
    wheel = project / "dist" / "my_ner_project-1.2.0-py3-none-any.whl"
    found = metadata_of(wheel)
    assert found["Summary"] == "Finds cities"
    assert "Ada Smith, Alan" in f"{found['Author']} {found['Author-email']}"
    assert {"regex>=2024", "spacy>=3.7"} <= set(found.get_all("Requires-Dist") or [])
    with zipfile.ZipFile(wheel) as archive:
        meta = json.loads(archive.read("my_ner_project/meta.json"))
    assert (meta["email"], meta["url"], meta["license"]) == ("ada@example.org", "https://example.org", "MIT")
    (said,) = (line for line in caplog.messages if "pyproject.toml gives" in line)
    assert all(word in said for word in ("version", "description", "author", "regex>=2024"))


def test_options_take_precedence(project: Path) -> None:
    beside = TOML.replace("1.2.0", "3.0").replace("Finds cities", "Beside the config")
    (project / "configs" / "pyproject.toml").write_text(beside, encoding="utf8")
    arguments = ["--name", "mine", "--metadata.author", "Grace", "--requirements", "regex>=2025"]
    main(["--config", "configs/config.cfg", *arguments])
    found = metadata_of(project / "dist" / "mine-3.0-py3-none-any.whl")
    assert found["Summary"] == "Beside the config" and "Grace" in f"{found['Author']} {found['Author-email']}"
    assert "regex>=2025" in (found.get_all("Requires-Dist") or [])
    main(["--config", "configs/config.cfg", "--name", "mine", "--version", "4.0"])
    assert (project / "dist" / "mine-4.0-py3-none-any.whl").is_file()


def test_the_project_file_of_gliner_pipe_says_nothing_about_a_pipeline(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "gliner_pipe")
    own = Path(__file__).parents[2] / "pyproject.toml"
    shutil.copy(own, project / "pyproject.toml")
    main(["--config", "configs/config.cfg", "--name", "mine"])
    found = metadata_of(project / "dist" / "mine-0.1.0-py3-none-any.whl")
    assert "confit" not in " ".join(found.get_all("Requires-Dist") or [])
    assert found["Author"] is None and found["Author-email"] is None and found["License"] is None
    assert "pyproject.toml gives" not in caplog.text
    (project / "configs" / "pyproject.toml").write_text(own.read_text("utf8"), encoding="utf8")
    (project / "pyproject.toml").write_text(TOML, encoding="utf8")
    main(["--config", "configs/config.cfg", "--name", "mine"])
    assert (project / "dist" / "mine-1.2.0-py3-none-any.whl").is_file()  # that of root_dir counts


@pytest.mark.parametrize("text", ["[project", '[project]\nauthors = "Ada"', "[project]\nversion = 1"])
def test_wrong_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf8")
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        read_project(tmp_path / "pyproject.toml")


def test_a_file_without_a_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nline-length = 99\n", encoding="utf8")
    found = read_project(tmp_path / "pyproject.toml")
    assert (found.name, found.version, found.metadata, found.dependencies) == (None, None, {}, [])
