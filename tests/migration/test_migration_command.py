from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import pytest
from confit import Config
from forked import Forked

from gliner_pipe import train
from gliner_pipe.convert import convert, main
from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import configured
from tests.migration.migration_files import FLAT, UNIFIED, written


def test_a_file_is_converted_with_its_notes(backbone, tmp_path):
    source = written(tmp_path, FLAT, backbone)
    target = tmp_path / "new" / "new.cfg"
    assert convert(str(source), target) == target
    text = target.read_text()
    assert "# - num_steps is an older name, read as train.max_steps\n" in text
    assert Config.from_disk(target)["train"]["max_steps"] == 300
    assert [path.name for path in target.parent.iterdir()] == ["new.cfg"]


@pytest.mark.parametrize(
    ("source", "target", "to", "where"),
    [
        ("old.yaml", "pipeline", None, "target"),
        ("old.yaml", "new.cfg", "spacy", "to"),
        (".", "new.cfg", "cfg", "source"),
    ],
)
def test_wrong_targets_and_sources(source, target, to, where, tmp_path):
    written(tmp_path, FLAT)
    with pytest.raises(ConfigError) as raised:
        convert(str(tmp_path / source), tmp_path / target, to=to)
    assert raised.value.where == where


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        convert(str(tmp_path / "missing.yaml"), tmp_path / "new.cfg")


def test_config_files_are_replaced_by_cfg_files(backbone, tmp_path, capsys):
    source = written(tmp_path, UNIFIED, backbone)
    for line in (["--config", str(source), "--seed", "3"], [f"--config={source}", "--seed", "3"]):
        option, path, *rest = configured(line)
        assert option == "--config" and path.endswith(".cfg") and rest == ["--seed", "3"]
        assert Config.from_disk(path)["train"]["max_epochs"] == 3.0
        Path(path).unlink()
    assert "note: group_by_length" in capsys.readouterr().err


def test_steps_on_the_command_line_replace_epochs(backbone, tmp_path):
    source = written(tmp_path, UNIFIED, backbone)
    for option in ("--max_steps", "--train.max-steps", "--max_steps=5"):
        path = configured(["--config", str(source), option])[1]
        assert "max_epochs" not in Config.from_disk(path)["train"]
    source = written(tmp_path, FLAT, backbone)
    path = configured(["--config", str(source), "--max_epochs", "1"])[1]
    assert "max_steps" not in Config.from_disk(path)["train"]


def test_other_arguments_are_unchanged(tmp_path):
    own = written(tmp_path, "nlp: {lang: en}\ntrain: {max_steps: 3}\n")
    line = ["--config", "configs/config.cfg", "--config", str(own), "--max_steps", "5", "--cpu"]
    assert configured(line) == line
    assert configured(["--config"]) == ["--config"]
    assert configured([]) == []


def test_only_the_first_process_prints_notes(backbone, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    configured(["--config", str(written(tmp_path, UNIFIED, backbone))])
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is forked")
def test_training_from_the_command_line(backbone, tmp_path, monkeypatch):
    """Options on the command line take precedence over the file, and the temporary file is removed at the end."""
    text = UNIFIED.replace("enabled: true\n  method", "enabled: false\n  method")
    source = written(tmp_path, text, backbone)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = ["--config", str(source), "--max_steps", "1"]
    command += ["--components.gliner.threshold", "0.3", "--train.train_data.limit", "6"]
    command += ["--train.val_data.limit", "3", "--cpu", "true", "--loggers", '["jsonl"]']
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    Forked(train.main, command, tmp_path / "process").output()
    assert "note: group_by_length" in (tmp_path / "process" / "stderr").read_text("utf8")
    folder = tmp_path / "out"
    assert Config.from_disk(folder / "train_config.cfg")["components"]["gliner"]["threshold"] == 0.3
    rows = [json.loads(row) for row in (folder / "train_log.jsonl").read_text().splitlines()]
    assert max(row.get("step", 0) for row in rows) == 1
    assert list(scratch.glob("*.cfg")) == []


def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, capsys):
    source = written(tmp_path, FLAT.replace("num_steps", "num_step"))
    with pytest.raises(SystemExit) as stopped:
        main([str(source), str(tmp_path / "new.cfg")])
    message = capsys.readouterr().err
    assert stopped.value.code == 1 and message.count("\n") == 1
    assert "(num_step)" in message and "'num_steps'" in message
    assert [path.name for path in tmp_path.iterdir()] == ["old.yaml"]
