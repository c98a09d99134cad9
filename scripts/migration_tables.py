"""The tables of the documentation, made from those of the code: ``python scripts/migration_tables.py PAGE``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from gliner_pipe.migration.names import Name
from gliner_pipe.migration.tables.autotrain import AUTOTRAIN
from gliner_pipe.migration.tables.model import DATA, MODEL, PEFT
from gliner_pipe.migration.tables.training import TRAINING

_OLDER, _EDS = ("GLiNER (older)",), ("EDS-NLP",)
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def tables() -> Mapping[str, str]:
    """Return the tables by name, as Markdown."""
    current = [name for name in TRAINING if name.systems not in (_OLDER, _EDS)]
    return {
        "model": _table(name for name in MODEL if name.systems != _OLDER),
        "peft": _table(PEFT),
        "data": _table(name for name in DATA if name.systems != _OLDER),
        "training": _table(name for name in current if name.fate == "option"),
        "ignored": _table((name for name in current if name.fate == "ignored"), "Why it changes nothing"),
        "refused": _table((name for name in current if name.fate == "refused"), "What to do instead"),
        "older": _table(name for name in (*TRAINING, *DATA, *MODEL) if name.systems == _OLDER),
        "edsnlp": _table(name for name in TRAINING if name.systems == _EDS),
        "autotrain": _table(AUTOTRAIN),
    }


def _table(names: Iterable[Name], last: str = "What it does") -> str:
    """Return a table; names with the same fate and meaning share a line where they go nowhere."""
    names = list(names)
    with_target = any(name.target for name in names)
    head = ["Name", *(["Goes to"] if with_target else []), last]
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    grouped: dict[tuple[str, str], list[str]] = {}
    for name in names:
        meaning = name.meaning
        if name.fate == "refused":
            meaning = f"{'Refused: ' if with_target else ''}{meaning} {name.do}."
        elif name.fate == "ignored" and with_target:
            meaning = f"Nothing: {meaning}"
        key = (name.target or meaning, meaning)
        grouped.setdefault((name.name, name.name) if name.target else key, []).append(name.name)
        if len(grouped) == len(rows) - 1:  # a new line
            target = [f"`{name.target}`" if name.target else ""] if with_target else []
            rows.append("| {names} | " + " | ".join([*target, meaning.replace("|", "\\|")]) + " |")
    lists = [", ".join(f"`{item}`" for item in group) for group in grouped.values()]
    return "\n".join(
        rows[:2] + [row.replace("{names}", text) for row, text in zip(rows[2:], lists, strict=True)]
    )


def filled(page: str) -> str:
    """Return a page with its tables written anew."""
    made = tables()
    return _TABLE.sub(lambda match: f"{match.group(1)}\n{made[match.group(2)]}\n\n{match.group(3)}", page)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        file = Path(argument)
        file.write_text(filled(file.read_text("utf-8")), encoding="utf-8")
