from __future__ import annotations

import errno
import fcntl
import os
import random
import shutil
import sys
import time
from pathlib import Path

import numpy
import pytest
import spacy
from forked import kill_and_check
from safetensors import SafetensorError
from spacy.language import Language

from gliner_pipe.errors import DataError
from gliner_pipe.util import atomic as saving
from gliner_pipe.util.atomic import (
    check_writable,
    recover,
    replace_directory,
    replace_file,
    save_pipeline,
    scratch_directory,
    shared,
)

DEAD = ".tmp-0123456789abcdef-model"
SET_ASIDE = ".old-0123456789abcdef-model"


def pipeline(label: str) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([{"label": label, "pattern": "Paris"}])
    return nlp


def label_at(path: Path) -> str:
    return spacy.load(path)("I saw Paris.").ents[0].label_


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


@pytest.mark.parametrize(
    "output", ["file", "file/model", "file/deep/model", "/dev/full/model", "/proc/model"]
)
def test_outputs_that_cannot_be_written(tmp_path: Path, output: str) -> None:
    (tmp_path / "file").write_text("mine")
    if output == "file":
        check_writable(tmp_path / output)  # a file may be replaced
        return
    with pytest.raises(DataError) as error:
        check_writable(tmp_path / output)
    assert error.value.found and names(tmp_path) == ["file"]


def test_outputs_on_a_disk_that_is_too_full(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "model", 1000)
    with pytest.raises(DataError, match="free"):
        check_writable(tmp_path / "new" / "model", 1 << 62)
    assert names(tmp_path) == []


def test_a_swap_waits_for_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not wait for ever; and who writes a folder may also read it."""
    monkeypatch.setattr(saving, "READING_GRACE", 0.2)
    target = tmp_path / "model"
    for text in ("one", "two"):
        with shared(target), replace_directory(target, marker="text") as folder, shared(folder):
            (folder / "text").write_text(text)
        assert (target / "text").read_text() == text and names(tmp_path) == ["model"]


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 525184 vs 525136"),
    ],
)
def test_a_full_disk_is_an_error_of_the_system(tmp_path: Path, error: Exception) -> None:
    """As safetensors and torch report it."""
    with pytest.raises(OSError) as raised, replace_file(tmp_path / "weights"):
        raise error
    assert raised.value.errno == errno.ENOSPC and raised.value.filename == str(tmp_path / "weights")
    assert names(tmp_path) == []


def test_save_makes_parents_and_can_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "artifacts" / "deep" / "model"
    assert save_pipeline(pipeline("CITY"), path, files={"train_config.cfg": "[train]\n"}) == path
    assert label_at(path) == "CITY"
    assert (path / "train_config.cfg").read_text(encoding="utf8") == "[train]\n"
    assert names(path.parent) == ["model"]


def test_save_replaces_the_whole_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"
    save_pipeline(pipeline("CITY"), path)
    (path / "left_by_the_old_one").mkdir()
    save_pipeline(pipeline("PLACE"), path)
    assert label_at(path) == "PLACE"
    assert "left_by_the_old_one" not in names(path)
    assert names(tmp_path) == ["model"]


def test_a_loaded_pipeline_can_be_saved_over_itself(tmp_path: Path) -> None:
    path = tmp_path / "model"
    save_pipeline(pipeline("CITY"), path)
    save_pipeline(spacy.load(path), path)
    assert label_at(path) == "CITY"


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "disk" / "run1", tmp_path / "model"
    save_pipeline(pipeline("CITY"), target)
    link.symlink_to(target)
    save_pipeline(pipeline("PLACE"), link)
    assert link.is_symlink()
    assert label_at(target) == "PLACE"


def test_a_failed_save_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model"
    save_pipeline(pipeline("CITY"), path)
    with pytest.raises(RuntimeError, match="full"), replace_directory(path, marker="meta.json") as folder:
        (folder / "meta.json").write_text("half", encoding="utf8")
        raise RuntimeError("disk full")
    assert label_at(path) == "CITY"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("files", [["thesis.txt"], [".git", "meta.json"]])
def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path, files: list[str]) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(DataError) as error:
        save_pipeline(pipeline("CITY"), tmp_path)
    assert str(tmp_path) in error.value.where and ", ".join(files) in error.value.found
    assert names(tmp_path) == files


def test_a_file_is_not_replaced_by_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_text("notes", encoding="utf8")
    with pytest.raises(DataError) as error:
        save_pipeline(pipeline("CITY"), path)
    assert str(path) in error.value.where
    assert path.read_text(encoding="utf8") == "notes"


def test_leftovers_of_dead_processes_are_removed_but_not_those_in_use(tmp_path: Path) -> None:
    path = tmp_path / "model"
    others = [".tmp-0123456789abcdef-model.best", ".tmp-mine-model"]
    for name in (DEAD, *others):
        (tmp_path / name).mkdir()
    with scratch_directory(path) as held:
        save_pipeline(pipeline("CITY"), path)
        assert names(tmp_path) == sorted(["model", held.name, *others])
    assert names(tmp_path) == sorted(["model", *others])


def test_without_locks_a_leftover_is_stale_after_a_day(tmp_path: Path) -> None:
    leftover = tmp_path / DEAD
    leftover.mkdir()
    (leftover / "weights").touch()
    two_days_ago = time.time() - 2 * saving.STALE_AFTER
    os.utime(leftover, (two_days_ago, two_days_ago))
    assert not saving._is_stale(leftover)
    os.utime(leftover / "weights", (two_days_ago, two_days_ago))
    assert saving._is_stale(leftover)


def test_two_step_replacement(tmp_path: Path) -> None:
    path, new = tmp_path / "model", tmp_path / "new"
    save_pipeline(pipeline("CITY"), path)
    pipeline("PLACE").to_disk(new)
    saving._replace_in_two_steps(new, path)
    assert label_at(path) == "PLACE"
    assert names(tmp_path) == ["model"]


def test_recover_restores_the_folder_of_an_interrupted_replacement(tmp_path: Path) -> None:
    path = tmp_path / "model"
    save_pipeline(pipeline("CITY"), tmp_path / SET_ASIDE)
    (tmp_path / DEAD).mkdir()
    assert recover(path)
    assert label_at(path) == "CITY"
    assert names(tmp_path) == ["model"]
    assert not recover(path)


def test_recover_leaves_a_finished_replacement_alone(tmp_path: Path) -> None:
    path = tmp_path / "model"
    save_pipeline(pipeline("CITY"), tmp_path / SET_ASIDE)
    pipeline("PLACE").to_disk(path)
    assert not recover(path)
    assert label_at(path) == "PLACE"
    assert names(tmp_path) == ["model"]


def test_recover_waits_for_a_living_process(tmp_path: Path) -> None:
    path, aside = tmp_path / "model", tmp_path / SET_ASIDE
    aside.mkdir()
    descriptor = os.open(aside, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert not recover(path)
    assert aside.is_dir()
    os.close(descriptor)
    assert recover(path)


def test_recover_of_a_path_that_never_existed(tmp_path: Path) -> None:
    assert not recover(tmp_path / "nowhere" / "model")
    assert names(tmp_path) == []


def test_replace_file(tmp_path: Path) -> None:
    path = tmp_path / "out" / "scores.json"
    with replace_file(path) as sibling:
        assert sibling.suffix == ".json"
        sibling.write_text("1", encoding="utf8")
        assert not path.exists()
    assert path.read_text(encoding="utf8") == "1"
    with pytest.raises(RuntimeError), replace_file(path) as sibling:
        sibling.write_text("2", encoding="utf8")
        raise RuntimeError
    assert path.read_text(encoding="utf8") == "1"
    assert names(path.parent) == ["scores.json"]


@pytest.mark.skipif(sys.platform != "linux", reason="folders are swapped in one step on Linux only")
def test_a_killed_save_leaves_a_whole_pipeline(tmp_path: Path) -> None:
    """Two fat pipelines are saved in turn over one path."""
    path, rows, pipelines = tmp_path / "model", {"FIRST": 20_000, "SECOND": 30_000}, {}
    for label, count in rows.items():
        pipelines[label] = nlp = pipeline(label)
        nlp.meta["description"] = label
        nlp.vocab.set_vector("fill", numpy.zeros(50, dtype="float32"))
        nlp.vocab.vectors.resize((count, 50))
    save_pipeline(pipelines["FIRST"], path)

    def work() -> None:
        while True:
            save_pipeline(pipelines["SECOND"], path)
            save_pipeline(pipelines["FIRST"], path)

    def check() -> None:
        nlp = spacy.load(path)
        label = nlp.meta["description"]
        assert nlp.get_pipe("entity_ruler").labels == (label,)
        assert nlp.vocab.vectors.shape == (rows[label], 50)

    rng = random.Random(0)
    kill_and_check(work, check, [rng.uniform(0.02, 0.3) for _ in range(6)], tmp_path / "process")
    shutil.rmtree(tmp_path / "process")
    save_pipeline(pipelines["FIRST"], path)
    assert names(tmp_path) == ["model"]
