"""Where files are written that others name, and with which mode."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
import srsly
from conftest import gliner_config
from spacy.language import Language

from gliner_pipe.convert import to_gliner
from gliner_pipe.errors import ConfigError, DataError, GlinerPipeError
from gliner_pipe.modeling.encoders.label_cache import VectorStore
from gliner_pipe.package import package
from gliner_pipe.packaging.source import copy_pipeline
from gliner_pipe.training.loggers.base import RunInfo
from gliner_pipe.training.loggers.trackers import TensorBoardLogger
from gliner_pipe.util.atomic import inside, replace_directory, replace_file, save_pipeline

BAD = [
    "../x", "../../x", "a/../../x", "/abs", "//abs", "C:/x", "C:x", "c:\\x", "..\\x", "a\\..\\..\\x", "\\\\host\\x",
    "a\0b", "a/\n", "", ".", "..", "a/", "a//b", "./a", 3, None, b"a",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD, ids=repr)
def test_bytes_stay_in_their_folder(
    name: Any, nlp: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "deep" / "deeper"))
    component: Any = nlp.get_pipe("gliner")
    files = srsly.msgpack_loads(component.to_bytes())
    bad = str(tmp_path / "abs") if name == "/abs" else name
    with pytest.raises(GlinerPipeError):
        component.from_bytes(srsly.msgpack_dumps({**files, bad: b"written"}))
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not left
    component.from_bytes(srsly.msgpack_dumps(files))


@pytest.mark.parametrize("data", [b"", b"\xc1", srsly.msgpack_dumps([1]), srsly.msgpack_dumps({"a": "text"})])
def test_other_bytes_are_refused(data: bytes, nlp: Language) -> None:
    component: Any = nlp.get_pipe("gliner")
    with pytest.raises(GlinerPipeError):
        component.from_bytes(data)


@pytest.mark.parametrize("name", [name for name in BAD if isinstance(name, str)] + ["a/b"], ids=repr)
def test_names_of_components_are_no_paths(name: str, backbone: Path) -> None:
    nlp = spacy.blank("en")
    with pytest.raises(ConfigError, match=r"components\."):
        nlp.add_pipe("gliner", name=name, config=gliner_config(backbone))
    for fine in ("ner 2", "ner.2", "persönlich", "..."):
        nlp.add_pipe("gliner", name=fine, config=gliner_config(backbone))


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "out").symlink_to(tmp_path)
    (folder / "in").symlink_to(folder / "sub")
    assert inside(folder, "in/file", "here") == folder / "in" / "file"
    with pytest.raises(DataError):
        inside(folder, "out/file", "here")


@pytest.mark.parametrize("shard", ["../../x.safetensors", "/etc/passwd", "C:\\x"])
def test_lists_of_weights_stay_in_their_folder(shard: str, backbone: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for file in backbone.iterdir():
        if file.name != "model.safetensors":
            (own / file.name).write_bytes(file.read_bytes())
    (own / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"a": shard}})
    )
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(own))
    with pytest.raises(GlinerPipeError, match=r"index\.json"):
        nlp.initialize()


def test_links_to_files_elsewhere_are_reported(
    nlp: Language, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "secret").write_text("secret")
    nlp.to_disk(tmp_path / "model")
    (tmp_path / "model" / "notes.txt").symlink_to(tmp_path / "secret")
    copy_pipeline(tmp_path / "model", tmp_path / "published")
    assert "notes.txt" in caplog.text
    caplog.clear()
    # in the cache of a hub all files are links
    snapshot = tmp_path / "cache" / "snapshots" / "main"
    snapshot.parent.mkdir(parents=True)
    (tmp_path / "model" / "notes.txt").unlink()
    (tmp_path / "model").rename(snapshot)
    (tmp_path / "cache" / "blobs").mkdir()
    (snapshot / "meta.json").rename(tmp_path / "cache" / "blobs" / "0")
    (snapshot / "meta.json").symlink_to("../../blobs/0")
    copy_pipeline(snapshot, tmp_path / "copy")
    assert (tmp_path / "copy" / "meta.json").is_file()
    assert not caplog.text


@pytest.mark.parametrize("options", [{"project": "../x"}, {"run_name": "../../x"}], ids=str)
def test_names_of_runs_are_no_paths(options: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = RunInfo(1, tmp_path / "runs", "", {}, name=None, resumed_step=0)
    with pytest.raises(GlinerPipeError, match=next(iter(options))):
        TensorBoardLogger(**options).start(run)
    assert not list(tmp_path.glob("x*"))


# -- modes -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def check(path: Path, umask: int) -> None:
    found = [path, *path.rglob("*")] if path.is_dir() else [path]
    assert path.is_file() or len(found) > 1
    wrong = {
        str(each.relative_to(path.parent)): oct(stat.S_IMODE(each.stat().st_mode))
        for each in found
        if stat.S_IMODE(each.stat().st_mode) != (0o777 if each.is_dir() else 0o666) & ~umask
    }
    assert not wrong


def test_modes_of_pipelines(umask: int, nlp: Language, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "plain")
    check(tmp_path / "plain", umask)
    spacy.load(tmp_path / "plain").to_disk(tmp_path / "plain")
    check(tmp_path / "plain", umask)
    save_pipeline(nlp, tmp_path / "whole" / "model")
    check(tmp_path / "whole", umask)
    to_gliner(nlp, tmp_path / "checkpoint")
    check(tmp_path / "checkpoint", umask)


def test_modes_of_adapters(umask: int, backbone: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    config = gliner_config(backbone)
    config["model"]["encoder"]["backbone"]["adapter"] = {"@adapters": "lora", "save": "full"}
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    nlp.to_disk(tmp_path / "model")
    check(tmp_path / "model", umask)


def test_modes_of_what_libraries_write(umask: int, tmp_path: Path) -> None:
    with replace_file(tmp_path / "file") as file:
        file.unlink()
        os.close(os.open(file, os.O_CREAT, 0o600))
    check(tmp_path / "file", umask)
    with replace_directory(tmp_path / "folder", marker="a") as folder:
        (folder / "private").mkdir(mode=0o700)
        os.close(os.open(folder / "private" / "a", os.O_CREAT, 0o600))
    check(tmp_path / "folder", umask)


def test_modes_of_label_vectors(umask: int, tmp_path: Path) -> None:
    VectorStore(tmp_path / "cache", "key", 4, "here").get(["text"])
    check(tmp_path / "cache", umask)


def test_modes_of_packages(nlp: Language, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "model")
    (tmp_path / "model" / "gliner" / "model" / "model.safetensors").chmod(0o600)  # of an earlier version
    before = os.umask(0o022)
    try:
        options: dict[str, Any] = {"name": "mode_model", "version": "0.1.0", "distributions": "wheel"}
        wheel, _ = package(tmp_path / "model", root_dir=tmp_path, build_dir=Path("build"), **options)
    finally:
        os.umask(before)
    check(tmp_path / "dist", 0o022)
    check(tmp_path / "build", 0o022)
    with zipfile.ZipFile(wheel) as archive:
        assert {oct(item.external_attr >> 16 & 0o777) for item in archive.infolist()} == {"0o644"}
