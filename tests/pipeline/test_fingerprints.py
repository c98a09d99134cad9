"""Files of different saves, and a config that is cut short, are refused by name; earlier files are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config
from spacy.language import Language

import gliner_pipe
from gliner_pipe.errors import CheckpointError, GlinerPipeError
from gliner_pipe.util.atomic import save_pipeline


@pytest.fixture
def two(backbone: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two pipelines with the same blocks, other weights, another threshold and another tokenizer."""
    folders = tmp_path / "one", tmp_path / "two"
    for place, folder in enumerate(folders):
        nlp = spacy.blank("en")
        nlp.add_pipe("gliner", config=gliner_config(backbone, threshold=0.25 + place / 2))
        nlp.initialize()
        component: Any = nlp.get_pipe("gliner")
        with torch.no_grad():
            next(component.gliner.parameters()).add_(place)
        component.gliner.encoder.backbone.tokenizer.add_tokens([f"token{place}"])
        save_pipeline(nlp, folder)
    return folders


@pytest.mark.parametrize(
    "name",
    [
        "gliner/cfg.json",
        "gliner/model/model.safetensors",
        "gliner/model/encoder/backbone/tokenizer.json",
        "gliner/model",
        "gliner",
        "config.cfg",
    ],
)
@pytest.mark.parametrize("load", [spacy.load, gliner_pipe.load])
def test_a_mixture_of_two_saves(two: tuple[Path, Path], name: str, load: Any) -> None:
    source, target = (folder / name for folder in two)
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    with pytest.raises(CheckpointError, match=r"not saved together with .*cfg\.json"):
        load(two[1])


def test_every_cut_config(two: tuple[Path, Path]) -> None:
    """The component is refused, or nothing that it reads is missing."""
    path = two[0] / "config.cfg"
    text = path.read_text()
    wanted = spacy.load(two[0]).config["components"]["gliner"]
    for end in [*range(0, len(text), 97), text.index("threshold = 0.25") + len("threshold = 0.2")]:
        path.write_text(text[:end])
        try:
            nlp = gliner_pipe.load(two[0])
        except GlinerPipeError:
            continue
        assert "gliner" in nlp.pipe_names and nlp.config["components"]["gliner"] == wanted


def test_earlier_files_have_no_fingerprints(two: tuple[Path, Path]) -> None:
    path = two[0] / "gliner" / "cfg.json"
    content = json.loads(path.read_text())
    assert set(content["files"]) > {"model/model.safetensors", "model/encoder/backbone/tokenizer.json"}
    path.write_text(json.dumps({key: content[key] for key in ("configured", "current", "weights")}))
    shutil.copy(two[1] / "gliner" / "model" / "model.safetensors", two[0] / "gliner" / "model")
    gliner_pipe.load(two[0])


def test_what_may_differ(two: tuple[Path, Path]) -> None:
    """Other line ends, other sections of the config, redacted secrets, files beside, settings given on loading."""
    config = two[0] / "config.cfg"
    config.write_text(config.read_text().replace("seed = 0", "seed = 1"))
    tokenizer = two[0] / "gliner" / "model" / "encoder" / "backbone" / "tokenizer_config.json"
    tokenizer.write_bytes(tokenizer.read_bytes().replace(b"\n", b"\r\n"))
    settings = two[0] / "gliner" / "model" / "encoder" / "backbone" / "config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "note": "***"}))
    (two[0] / "gliner" / "README.md").write_text("mine")
    nlp: Any = spacy.load(two[0], config={"components.gliner.threshold": 0.7})
    assert nlp.get_pipe("gliner").threshold == 0.7


def test_other_files_of_a_folder_are_kept(nlp: Language, tmp_path: Path) -> None:
    component: Any = nlp.get_pipe("gliner")
    (tmp_path / "notes.txt").write_text("mine")
    for threshold in (0.4, 0.6):
        component.threshold = threshold
        component.to_disk(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} >= {"notes.txt", "cfg.json", "model"}
        component.threshold = 0.1
        component.from_disk(tmp_path)
        assert component.threshold == threshold
    component.to_disk(tmp_path, exclude=["model"])
    assert (tmp_path / "model" / "model.safetensors").is_file()
