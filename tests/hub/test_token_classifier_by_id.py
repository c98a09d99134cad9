"""Token classification models by their hub id."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import spacy
from checkpoints.test_token_classification import WORDS, make_model, spans, tagged_with
from hub.hub_server import TOKEN, HubServer, Repo


def test_a_hub_id_is_converted(hub: HubServer, tmp_path: Path) -> None:
    """In a process of its own: the client reads its address when it is imported."""
    folder = make_model(tmp_path / "model")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    hub.repos["ada/ner"] = Repo(branches={"main": files})
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
    }
    command = [sys.executable, "-m", "gliner_pipe.convert", "ada/ner", str(tmp_path / "pipeline")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    nlp = spacy.load(tmp_path / "pipeline")
    assert spans(nlp, WORDS) == spans(tagged_with(folder), WORDS) != []
    assert nlp.config["components"]["token_classifier"]["model"] == "ada/ner"
