"""The wheel of this package itself, from its source tree and from an installation."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from gliner_pipe.packaging.own_wheel import build_own_wheel, needs_own_wheel, pack_installed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_own_wheel(tmp_path_factory.mktemp("wheel"), isolation=False)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_from_the_source_tree(wheel: Path) -> None:
    files = contents(wheel)
    assert "gliner_pipe/__init__.py" in files
    (entry_points,) = [text for name, text in files.items() if name.endswith("entry_points.txt")]
    assert b"spacy_factories" in entry_points


def test_from_an_installation(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same files, without those that pip or an import adds."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (info,) = site.glob("*.dist-info")
    (info / "INSTALLER").write_text("pip\n", encoding="utf8")
    with (info / "RECORD").open("a", encoding="utf8") as record:
        record.write(f"{info.name}/INSTALLER,,\ngliner_pipe/__pycache__/a.pyc,,\n../../bin/gliner,,\n")
    monkeypatch.syspath_prepend(site)
    again = pack_installed(tmp_path / "packed")
    assert again.name == wheel.name
    ours, theirs = contents(again), contents(wheel)
    record_of = f"{info.name}/RECORD"
    assert sorted(ours.pop(record_of).splitlines()) == sorted(theirs.pop(record_of).splitlines())
    assert ours == theirs


def test_needed_by() -> None:
    assert needs_own_wheel(["spacy>=3.8", "gliner-pipe[onnx]>=0.1"])
    assert not needs_own_wheel(["spacy>=3.8", "gliner>=0.2"])
