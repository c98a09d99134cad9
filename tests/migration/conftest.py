"""No test of migrating waits for the hub."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    # read from the environment once, when the package is imported
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
