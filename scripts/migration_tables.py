"""Writes the tables of names into a page of the documentation: ``python scripts/migration_tables.py PAGE``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from gliner_pipe.migration.names import Name
from gliner_pipe.migration.tables import AUTOTRAIN, DATA, EDSNLP, GLINER_SPACY, MODEL, PEFT, TRAINING

_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def tables() -> Mapping[str, str]:
    """Return the tables by name, as Markdown."""
    training = [row for row in TRAINING if not row.older and row not in EDSNLP]
    return {
        "model": _table(row for row in MODEL if not row.older),
        "peft": _table(PEFT),
        "data": _table(row for row in DATA if not row.older),
        "training": _table(row for row in training if row.fate == "option"),
        "ignored": _table((row for row in training if row.fate == "ignored"), "Why it changes nothing"),
        "refused": _table((row for row in training if row.fate == "refused"), "What to do instead"),
        "older": _table(row for row in (*TRAINING, *DATA, *MODEL) if row.older),
        "edsnlp": _table(EDSNLP),
        "autotrain": _table(AUTOTRAIN),
        "gliner_spacy": _table(GLINER_SPACY),
    }


def _table(rows: Iterable[Name], last: str = "What it does") -> str:
    """Return a table; names with the same target and meaning share a line."""
    rows = list(rows)
    with_target = any(row.target for row in rows)
    lines: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        meaning = row.meaning
        if row.fate == "refused":
            meaning = f"{'Refused: ' if with_target else ''}{meaning} {row.do}."
        elif row.fate == "ignored" and with_target:
            meaning = f"Ignored: {meaning}"
        cells = (f"`{row.target}`" if row.target else "", meaning) if with_target else (meaning,)
        lines.setdefault(cells, []).append(f"`{row.name}`")
    head = ("Name", "Goes to", last) if with_target else ("Name", last)
    table = [head, ("---",) * len(head), *((", ".join(names), *cells) for cells, names in lines.items())]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in table)


def filled(page: str) -> str:
    """Return a page with its tables replaced by the current ones."""
    current = tables()
    return _TABLE.sub(lambda match: f"{match.group(1)}\n{current[match.group(2)]}\n\n{match.group(3)}", page)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        file = Path(argument)
        file.write_text(filled(file.read_text("utf-8")), encoding="utf-8")
