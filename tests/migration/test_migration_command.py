from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from confit import Config

from gliner_pipe.convert import convert
from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import configured, convert_file
from tests.migration.migration_files import FLAT, UNIFIED, written


def test_a_file_is_converted_with_its_notes(backbone, tmp_path):
    source = written(tmp_path, FLAT, backbone)
    target = tmp_path / "new" / "new.cfg"
    assert convert(str(source), target) == target
    text = target.read_text()
    assert "# - num_steps is an older name, read as train.max_steps\n" in text
    assert Config.from_disk(target)["train"]["max_steps"] == 300
    assert [path.name for path in target.parent.iterdir()] == ["new.cfg"]


def test_a_mistake_leaves_nothing_behind(tmp_path):
    source = written(tmp_path, FLAT.replace("num_steps", "num_step"))
    with pytest.raises(ConfigError, match="num_steps"):
        convert_file(source, tmp_path / "new.cfg")
    assert [path.name for path in tmp_path.iterdir()] == ["old.yaml"]


def test_targets_and_sources(backbone, tmp_path):
    source = written(tmp_path, FLAT, backbone)
    with pytest.raises(ConfigError, match=r"target\] is .*ends in .cfg"):
        convert(str(source), tmp_path / "pipeline")
    with pytest.raises(ConfigError, match=r"to\] is 'spacy'"):
        convert(str(source), tmp_path / "new.cfg", to="spacy")
    with pytest.raises(ConfigError, match=r"source\] is .*ends in .yaml"):
        convert(str(tmp_path), tmp_path / "new.cfg", to="cfg")
    with pytest.raises(FileNotFoundError):
        convert(str(tmp_path / "missing.yaml"), tmp_path / "new.cfg")


def test_command_lines(backbone, tmp_path, capsys):
    source = written(tmp_path, UNIFIED, backbone)
    for line in (["--config", str(source), "--seed", "3"], [f"--config={source}", "--seed", "3"]):
        option, path, *rest = configured(line)
        assert option == "--config" and path.endswith(".cfg") and rest == ["--seed", "3"]
        assert Config.from_disk(path)["train"]["max_epochs"] == 3.0
        Path(path).unlink()
    assert "note: group_by_length changes nothing" in capsys.readouterr().err


def test_steps_on_the_command_line_take_the_place_of_epochs(backbone, tmp_path):
    source = written(tmp_path, UNIFIED, backbone)
    for option in ("--max_steps", "--train.max-steps", "--max_steps=5"):
        path = configured(["--config", str(source), option])[1]
        assert "max_epochs" not in Config.from_disk(path)["train"]
    source = written(tmp_path, FLAT, backbone)
    path = configured(["--config", str(source), "--max_epochs", "1"])[1]
    assert "max_steps" not in Config.from_disk(path)["train"]


def test_other_files_stay_as_they_are(tmp_path):
    own = written(tmp_path, "nlp: {lang: en}\ntrain: {max_steps: 3}\n")
    line = ["--config", "configs/config.cfg", "--config", str(own), "--max_steps", "5", "--cpu"]
    assert configured(line) == line
    assert configured(["--config"]) == ["--config"]
    assert configured([]) == []


def test_only_the_first_process_tells(backbone, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    configured(["--config", str(written(tmp_path, UNIFIED, backbone))])
    assert capsys.readouterr().err == ""


def test_training_from_the_command_line(backbone, tmp_path):
    """Options hold over those of the file, and the temporary file is gone at the end."""
    source = written(
        tmp_path, UNIFIED.replace("enabled: true\n  method", "enabled: false\n  method"), backbone
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "gliner_pipe.train", "--config", str(source), "--max_steps", "1"]
    command += [
        "--components.gliner.threshold",
        "0.3",
        "--train.train_data.limit",
        "6",
        "--train.val_data.limit",
        "3",
    ]
    command += ["--cpu", "true", "--loggers", '["jsonl"]']
    environment = {**os.environ, "TMPDIR": str(scratch), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "note: group_by_length changes nothing" in done.stderr
    folder = tmp_path / "out"
    assert Config.from_disk(folder / "train_config.cfg")["components"]["gliner"]["threshold"] == 0.3
    rows = [json.loads(row) for row in (folder / "train_log.jsonl").read_text().splitlines()]
    assert max(row.get("step", 0) for row in rows) == 1
    assert list(scratch.glob("*.cfg")) == []


def test_a_mistake_is_one_line(tmp_path):
    source = written(tmp_path, FLAT.replace("num_steps", "num_step"))
    command = [sys.executable, "-m", "gliner_pipe.convert", str(source), str(tmp_path / "new.cfg")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "(num_step)" in done.stderr and "Did you mean 'num_steps'?" in done.stderr
    assert not Path(tmp_path / "new.cfg").exists()
