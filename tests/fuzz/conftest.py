"""The time that a fuzz test may take, and the figures at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fuzz.rule import OUTCOMES
from hypothesis import settings


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give a test of the profile ``nightly`` an hour."""
    if settings.default.max_examples == settings.get_profile("nightly").max_examples:
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.timeout(3600))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show how many inputs had which outcome."""
    if OUTCOMES:
        total = sum(OUTCOMES.values())
        parts = ", ".join(f"{count} {name}" for name, count in sorted(OUTCOMES.items()))
        terminalreporter.write_line(f"fuzz: {total} inputs: {parts}")
