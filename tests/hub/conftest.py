"""A hub on this machine, and the client set to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub.hub_server import TOKEN, HubServer


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """An empty hub, a login to it, and an empty cache."""
    from huggingface_hub import constants

    with HubServer() as server:
        settings = {
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "token"),
        }
        for name, value in settings.items():
            monkeypatch.setattr(
                constants, name, value
            )  # the client read its environment when it was imported
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def saved(nlp, tmp_path: Path) -> Path:
    """Folder of a pipeline that finds something."""
    nlp.get_pipe("gliner").threshold = 0.0
    nlp.meta["performance"] = {"ner": {"micro": {"p": 0.5, "r": 0.25, "f": 1 / 3}}, "ner.micro.f": 1 / 3}
    folder = tmp_path / "artifacts" / "model-last"
    folder.parent.mkdir()
    nlp.to_disk(folder)
    return folder
