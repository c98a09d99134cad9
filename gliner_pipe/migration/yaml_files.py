"""Reads YAML and JSON files, and remembers where everything stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.names import unknown
from gliner_pipe.migration.tables import SECTIONS

#: Ends of the names of files that are read.
SUFFIXES = (".yaml", ".yml", ".json")

#: ``sections``: model, training, data, peft. ``flat``: all their keys side by side. ``autotrain``: task, base_model,
#: data, params, hub. ``own``: a configuration of this package, written as YAML.
Shape = Literal["sections", "flat", "autotrain", "own"]

_AUTOTRAIN = ("task", "base_model", "project_name", "params", "hub", "backend", "log", "data")
_OWN = ("train", "nlp", "components", "scorer", "package", "vars")


@dataclass
class Document:
    """What a file holds.

    Parameters
    ----------
    path
        The file.
    data
        Its mapping.
    shape
        Whose file it is.
    lines
        Line of each key, by its path.
    """

    path: Path
    data: dict[str, Any]
    shape: Shape
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)

    def where(self, *keys: str) -> str:
        """Name a place for messages: file, line and key."""
        line = self.lines.get(keys)
        return f"{self.path}{'' if line is None else f':{line}'}" + (f" ({'.'.join(keys)})" if keys else "")


def read_yaml(path: str | Path) -> Document:
    """Read a YAML or JSON file and tell whose it is.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    ConfigError
        If it is no YAML (with line and column), says a key twice, or holds no mapping.
    OSError
        If it cannot be opened.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".json":
            text = text.replace("\t", " ")  # indentation: no string of JSON holds a tab
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            lines = dict(_lines(node, path))
            data = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"is no UTF-8 text ({error})", do="Write it anew as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = " ".join(str(error.problem or error.context).split())
        do = "Indent with blanks" if "\\t" in problem else "Mind colons, quotes and indents"
        raise ConfigError(where, f"is no YAML: {problem}", do=do) from None
    except yaml.YAMLError as error:
        raise ConfigError(str(path), f"is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict) or not data:
        found = "is empty" if not data else f"holds a {type(data).__name__}"
        raise ConfigError(str(path), found, "a mapping with model, training and data")
    return Document(path, data, _shape(data, path, lines), lines)


def _lines(node: Any, path: Path, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the line of each key, and refuse keys that stand twice."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen and name != "<<":
            raise ConfigError(
                f"{path}:{line} ({'.'.join((*keys, name))})",
                f"stands in line {seen[name]} already",
                do="Keep one",
            )
        seen[name] = line
        yield (*keys, name), line
        yield from _lines(value, path, (*keys, name))


def _shape(data: Mapping[str, Any], path: Path, lines: Mapping[tuple[str, ...], int]) -> Shape:
    if wrong := next((key for key in data if not isinstance(key, str)), None):
        raise ConfigError(f"{path}:{lines.get((str(wrong),), 1)}", f"has the key {wrong!r}", "names as keys")
    if any(isinstance(data.get(key), dict) for key in _OWN):
        return "own"
    if "base_model" in data or "task" in data or "params" in data:
        return "autotrain"
    if any(
        isinstance(data.get(section), dict) or (section in data and section != "model")
        for section in SECTIONS
    ):
        return "sections"
    flat = {key for keys in SECTIONS.values() for key in keys}
    if any(key in flat for key in data):
        return "flat"
    known = [*SECTIONS, *_AUTOTRAIN, *sorted(flat)]
    name = next(iter(data))
    raise unknown(name, f"{path}:{lines.get((name,), 1)} ({name})", known, ", ".join(SECTIONS))
