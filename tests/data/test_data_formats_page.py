"""The Python blocks of docs/data-formats.md run, each on its own in an empty folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "data-formats.md"
SECTIONS = re.split(r"^## ", PAGE.read_text("utf8"), flags=re.MULTILINE)
BLOCKS = [
    (section.split("\n", 1)[0], code)
    for section in SECTIONS
    for code in re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
]


def test_all_blocks_are_found():
    assert len(BLOCKS) == PAGE.read_text("utf8").count("```python") == 17


@pytest.mark.parametrize(("heading", "code"), BLOCKS, ids=[heading for heading, _ in BLOCKS])
def test_block(heading, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"{PAGE.name}: {heading}", "exec"), {"__name__": heading})
