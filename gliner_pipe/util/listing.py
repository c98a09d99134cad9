"""What is in a folder, and what a wrong path was probably meant to be, for messages."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path


def names_in(folder: Path, most: int = 8) -> str:
    """Return the names of files and folders in a folder, without hidden ones; ``nothing`` if there are none."""
    names = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "nothing"


def advice_on(path: Path) -> str:
    """Return advice about a path that does not exist: a similar one, or what the folder contains."""
    folder = path.parent
    if not folder.is_dir():
        return f"Check the path; the working folder is {Path.cwd()}"
    names = [item.name for item in folder.iterdir() if not item.name.startswith(".")]
    if close := get_close_matches(path.name, names, 1):
        return f"Did you mean {folder / close[0]}?"
    return f"The folder contains {names_in(folder)}"
