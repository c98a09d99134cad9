"""Reads YAML and JSON files, and keeps the line of every key for error messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.names import unknown
from gliner_pipe.migration.tables import SECTIONS
from gliner_pipe.pipeline.config_files import MOST_YAML, compose, construct, read_text

#: Suffixes of the files that are read.
SUFFIXES = (".yaml", ".yml", ".json")

#: ``sections``: GLiNER's model, training, data, peft. ``flat``: all their keys side by side. ``autotrain``: task,
#: base_model, data, params, hub. ``own``: a configuration of this package, written as YAML.
Shape = Literal["sections", "flat", "autotrain", "own"]

_AUTOTRAIN = ("task", "base_model", "project_name", "params", "hub", "backend", "log", "data")
_OWN = ("train", "nlp", "components", "scorer", "package", "vars")


@dataclass
class Document:
    """Content of a YAML or JSON file.

    Parameters
    ----------
    path
        The file.
    data
        Its mapping.
    shape
        Kind of the file.
    lines
        Line of each key, by its path.
    """

    path: Path
    data: dict[str, Any]
    shape: Shape
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)

    def where(self, *keys: str) -> str:
        """Return the place of a key, for messages: file, line and key."""
        line = self.lines.get(keys)
        return f"{self.path}{'' if line is None else f':{line}'}" + (f" ({'.'.join(keys)})" if keys else "")

    def find(self, *keys: str) -> str:
        """Return the place of a key by the end of its path: in whichever section it is."""
        return self.where(*next((path for path in self.lines if path[-len(keys) :] == keys), keys))

    def items(self, *keys: str, allowed: str = "") -> Iterator[tuple[str, Any, str]]:
        """Yield each key of a section with its value and its place.

        Parameters
        ----------
        *keys
            Path of the section; its keys may be null, which yields nothing.
        allowed
            Keys of the section, for the error if it is something else.
        """
        section: Any = self.data
        for key in keys:
            section = section[key]
        if section is None:
            return
        if not isinstance(section, dict):
            expected = f"a section: indented keys with values{f', such as {allowed}' if allowed else ''}"
            raise ConfigError(self.where(*keys), f"is {section!r}", expected)
        for key, value in section.items():
            yield str(key), value, self.where(*keys, str(key))


def read_yaml(path: str | Path) -> Document:
    """Read a YAML or JSON file, and recognise its kind.

    Raises
    ------
    ConfigError
        If it is not valid YAML (with line and column), has a key twice, or holds no mapping.
    OSError
        If it cannot be opened.
    """
    path = Path(path)
    text = read_text(path, MOST_YAML)
    if path.suffix.lower() == ".json":
        text = text.replace("\t", " ")  # indentation: a JSON string cannot hold a tab
    node = compose(text, str(path))
    lines = dict(_lines(node, path))
    data = construct(node, str(path))
    if not isinstance(data, dict) or not data:
        found = "is empty" if not data else f"holds a {type(data).__name__}"
        raise ConfigError(str(path), found, "a mapping with model, training and data")
    return Document(path, data, _shape(data, path, lines), lines)


def _lines(node: Any, path: Path, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the line of each key, and refuse a key that appears twice."""
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen and name != "<<":
            where = f"{path}:{line} ({'.'.join((*keys, name))})"
            raise ConfigError(where, f"is set in line {seen[name]} already", do="Keep one of the two")
        seen[name] = line
        yield (*keys, name), line
        yield from _lines(value, path, (*keys, name))


def _shape(data: Mapping[str, Any], path: Path, lines: Mapping[tuple[str, ...], int]) -> Shape:
    if wrong := next((key for key in data if not isinstance(key, str)), None):
        where = f"{path}:{lines.get((str(wrong),), 1)}"
        raise ConfigError(where, f"has the key {wrong!r}", "names as keys")
    if any(isinstance(data.get(key), dict) for key in _OWN):
        return "own"
    if {"base_model", "task", "params"} & data.keys():
        return "autotrain"
    if any(isinstance(data.get(key), dict) or (key in data and key != "model") for key in SECTIONS):
        return "sections"
    flat = {key for keys in SECTIONS.values() for key in keys}
    if flat & data.keys():
        return "flat"
    known = [*SECTIONS, *_AUTOTRAIN, *sorted(flat)]
    name = next(iter(data))
    raise unknown(name, f"{path}:{lines.get((name,), 1)} ({name})", known, ", ".join(SECTIONS))
