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


def test_a_folder_is_copied_without_caches(model: Path, tmp_path: Path) -> None:
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
        ([], "empty"),
        (["other/"], "other"),
        (["model"], "file"),
        (["model/"], r"config.cfg.*meta.json.*empty"),
        (["model/", "model/meta.json"], r"config.cfg.*meta.json"),
        (["model/", "model/gliner_config.json"], "GLiNER checkpoint"),
    ],
)
def test_a_path_without_a_pipeline_is_described(tmp_path: Path, make: list[str], found: str) -> None:
    for name in make:
        path = tmp_path / name
        path.mkdir() if name.endswith("/") else path.touch()
    with pytest.raises(ConfigError, match=rf"\[package.pipeline\] .*{found}"):
        find_pipeline(tmp_path / "model")


def test_an_installed_package_without_a_pipeline() -> None:
    with pytest.raises(ConfigError, match=r"\[package.pipeline\] .*'srsly'"):
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
def test_patterns_exclude_files(model: Path, pattern: str, gone: set[str]) -> None:
    (model / "ner" / "cache").mkdir(parents=True)
    for name in ("ner/cache/1", "ner/cache/2", "ner/weights", "old.cfg.bak"):
        (model / name).touch()
    before = files(model)
    remove_excluded(model, [pattern])
    assert before - files(model) == gone


@pytest.mark.parametrize("pattern", ["*.pt", "*.cfg", "*"])  # no file, or files that every pipeline needs
def test_invalid_patterns(model: Path, pattern: str) -> None:
    before = files(model)
    with pytest.raises(ConfigError) as error:
        remove_excluded(model, [pattern])
    assert error.value.where == "package.exclude" and repr(pattern) in error.value.found
    assert files(model) == before
