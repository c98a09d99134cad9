"""The commands of project.yml find what they need."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_every_command_needs_what_is_there_or_made_before() -> None:
    run = pytest.importorskip("weasel.cli.run")
    project = run.load_project_config(ROOT, overrides={})
    commands = {command["name"]: command for command in project["commands"]}
    made: set[str] = set()
    for name in project["workflows"]["all"]:
        for path in commands[name]["deps"]:
            assert path in made or (ROOT / path).exists(), f"{name} needs {path}"
        made.update(commands[name]["outputs"])
    assert "artifacts/project/model-last" in made
