"""Damaged copies of folders: other values in JSON files, and files that are missing, cut, changed or another one."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

#: Values that are of another type, absurd, or at the end of a range.
VALUES = [
    *(
        None,
        True,
        False,
        "",
        "a",
        "-1",
        "\x1b[31m",
        "x" * 5000,
        -1,
        0,
        1,
        2,
        3,
        5,
        7,
        300,
        65536,
        10**6,
        10**9,
        10**12,
    ),
    *(
        10**400,
        0.5,
        -0.5,
        1e-300,
        1e308,
        float("nan"),
        float("inf"),
        [],
        [1],
        ["a"],
        {},
        {"a": 1},
        [[[]]],
        "../../x",
    ),
]
#: A change: which file, which place in it, what happens, and with which value.
CHANGES = st.tuples(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.sampled_from(["value"] * 6 + ["file"]),
    st.integers(0, 10**6),
)


def damage(source: Path, target: Path, change: tuple[int, int, str, int]) -> str:
    """Write a copy of a folder with one change, and return what it is."""
    which, place, kind, value = change
    shutil.copytree(source, target)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    jsons = [path for path in files if path.suffix == ".json" and path.stat().st_size < 50_000]
    if kind == "value" and jsons:
        path = jsons[which % len(jsons)]
        return f"{path.relative_to(target)}: {_damage_json(path, place, value)}"
    path = files[which % len(files)]
    return f"{path.relative_to(target)}: {_damage_file(path, files, place, value)}"


def _damage_json(path: Path, place: int, value: int) -> str:
    content = json.loads(path.read_text("utf8"))
    places = list(_places(content))
    if not places:
        return "unchanged"
    holder, key = places[place % len(places)]
    if value % (len(VALUES) + 2) >= len(VALUES):
        del holder[key]
        what = f"without {key}"
    else:
        holder[key] = VALUES[value % (len(VALUES) + 2)]
        what = f"{key} = {str(holder[key])[:40]!r}"
    path.write_text(json.dumps(content), "utf8")
    return what


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Yield all places of a JSON value: what holds it, and its key or number."""
    keys = (
        list(content)
        if isinstance(content, dict)
        else range(len(content))
        if isinstance(content, list)
        else ()
    )
    for key in keys:
        yield content, key
        yield from _places(content[key])


def _damage_file(path: Path, files: list[Path], place: int, value: int) -> str:
    data = path.read_bytes()
    kind = ("missing", "empty", "cut", "changed", "other", "folder", "noise", "longer")[value % 8]
    if kind in ("missing", "folder"):
        path.unlink()
    if kind == "folder":
        path.mkdir()
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "cut":
        path.write_bytes(data[: place % max(len(data), 1)])
    if kind == "changed" and data:
        at = place % len(data)
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 + place % 255)]) + data[at + 1 :])
    if kind == "other":
        path.write_bytes(files[place % len(files)].read_bytes())
    if kind == "noise":
        path.write_bytes(random.Random(place).randbytes(200))
    if kind == "longer":
        path.write_bytes(data + b"\0" * 100)
    return f"{kind} ({place})"
