from __future__ import annotations

import re
from pathlib import Path

from gliner_pipe.migration.tables import PARAMETERS, SECTIONS

PAGE = Path(__file__).parent.parent.parent / "docs" / "migrating.md"


def test_the_tables_of_the_page_are_those_of_the_code():
    text = PAGE.read_text("utf-8")
    assert filled(text) == text, "write them anew: python -m gliner_pipe.migration.pages docs/migrating.md"
    assert set(re.findall(r"<!-- table: (\w+) -->", text)) == set(tables())


def test_every_name_is_on_the_page():
    text = PAGE.read_text("utf-8")
    names = [*PARAMETERS, *(name for section in SECTIONS.values() for name in section)]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_lines_have_as_many_cells_as_their_head():
    for table in tables().values():
        assert len({line.replace("\\|", "").count("|") for line in table.splitlines()}) == 1
