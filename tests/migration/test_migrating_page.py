from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from gliner_pipe.migration.tables import PARAMETERS, SECTIONS

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "migrating.md"
SCRIPT = ROOT / "scripts" / "migration_tables.py"

spec = importlib.util.spec_from_file_location("migration_tables", SCRIPT)
assert spec is not None and spec.loader is not None
migration_tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(migration_tables)
filled, tables = migration_tables.filled, migration_tables.tables


def test_the_page_has_the_current_tables():
    text = PAGE.read_text("utf-8")
    assert filled(text) == text, "outdated; run: python scripts/migration_tables.py docs/migrating.md"
    assert set(re.findall(r"<!-- table: (\w+) -->", text)) == set(tables())


def test_every_name_is_on_the_page():
    text = PAGE.read_text("utf-8")
    names = [*PARAMETERS, *(name for section in SECTIONS.values() for name in section)]
    assert [name for name in names if f"`{name}`" not in text] == []
