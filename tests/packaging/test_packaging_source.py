from __future__ import annotations

from pathlib import Path

import pytest
import spacy

from gliner_pipe.errors import ConfigError
from gliner_pipe.packaging.source import copy_pipeline, find_pipeline, remove_excluded


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    spacy.blank("en").to_disk(path)
    return path


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_is_copied_without_what_does_not_belong_there(model: Path, tmp_path: Path) -> None:
    expected = files(model)
    (model / "__pycache__").mkdir()
    (model / "__pycache__" / "a.pyc").touch()
    (model / ".DS_Store").touch()
    assert copy_pipeline(model, tmp_path / "copy") == model
    assert files(tmp_path / "copy") == expected


def test_links_to_files_elsewhere_become_files(model: Path, tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / "1"
    blob.parent.mkdir()
    (model / "tokenizer").rename(blob)
    (model / "tokenizer").symlink_to(blob)
    copy_pipeline(str(model), tmp_path / "copy")
    copied = tmp_path / "copy" / "tokenizer"
    assert not copied.is_symlink()
    assert copied.read_bytes() == blob.read_bytes()


def test_a_pipeline_in_memory_is_written(tmp_path: Path) -> None:
    assert copy_pipeline(spacy.blank("de"), tmp_path / "copy") is None
    assert spacy.load(tmp_path / "copy").lang == "de"


def test_a_folder_that_a_killed_process_had_set_aside_is_found(model: Path) -> None:
    model.rename(model.with_name(f".old-0123456789abcdef-{model.name}"))
    assert find_pipeline(model) == model


@pytest.mark.parametrize(
    ("make", "found"),
    [
        ([], r"which does not exist \(.*: it is empty\)"),
        (["other/"], r"which does not exist \(.*: it holds other\)"),
        (["model"], "a file"),
        (["model/"], r"which has no config.cfg and no meta.json \(it is empty\)"),
        (["model/", "model/meta.json"], r"which has no config.cfg \(it holds meta.json\)"),
        (["model/", "model/gliner_config.json"], "a GLiNER checkpoint; add it to a pipeline"),
    ],
)
def test_what_is_no_pipeline_is_described(tmp_path: Path, make: list[str], found: str) -> None:
    for name in make:
        path = tmp_path / name
        path.mkdir() if name.endswith("/") else path.touch()
    with pytest.raises(ConfigError, match=found):
        find_pipeline(tmp_path / "model")


def test_an_installed_package_without_a_pipeline() -> None:
    with pytest.raises(ConfigError, match="is 'srsly', a package without a pipeline"):
        find_pipeline("srsly")


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("*.cfg.bak", {"old.cfg.bak"}),
        ("vocab/key2row", {"vocab/key2row"}),
        ("vocab/v*", {"vocab/vectors", "vocab/vectors.cfg"}),
        ("cache", {"ner/cache/1", "ner/cache/2"}),
        ("ner/cache/", {"ner/cache/1", "ner/cache/2"}),
    ],
)
def test_patterns_take_files_out(model: Path, pattern: str, gone: set[str]) -> None:
    (model / "ner" / "cache").mkdir(parents=True)
    for name in ("ner/cache/1", "ner/cache/2", "ner/weights", "old.cfg.bak"):
        (model / name).touch()
    before = files(model)
    remove_excluded(model, [pattern])
    assert before - files(model) == gone


@pytest.mark.parametrize(
    ("pattern", "found"), [("*.pt", "matches no file"), ("*.cfg", "takes out config.cfg"), ("*", "takes out")]
)
def test_patterns_that_cannot_be_meant(model: Path, pattern: str, found: str) -> None:
    before = files(model)
    with pytest.raises(ConfigError, match=f"which {found}"):
        remove_excluded(model, [pattern])
    assert files(model) == before
