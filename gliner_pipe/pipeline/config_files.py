"""Reads config files within limits; what is wrong in their form is refused with its place.

confit reads the values. Sections, keys and nesting are checked here, because confit would lose some of them or fail.
"""

from __future__ import annotations

import configparser
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from confit import Config
from confit.utils.collections import split_path
from confit.utils.xjson import loads

from gliner_pipe.errors import ConfigError

#: Longest file, in bytes; YAML is read more slowly. A value of more than `_LONG` characters is first read as JSON,
#: which is some 100 times faster, and one of more than `_LONGEST` only so.
MOST_BYTES, MOST_YAML = 4 << 20, 1 << 20
_LONG, _LONGEST = 10_000, 500_000
#: Deepest section, list or mapping.
MOST_DEPTH = 50
#: Most values of a YAML file, where an alias counts as all that it stands for.
MOST_VALUES = 50_000
#: Suffixes of YAML files.
YAML_SUFFIXES = (".yaml", ".yml")


def read_configs(paths: Sequence[Path]) -> list[Config]:
    """Return the config of the first file, that of the first two, and so on: later files replace options.

    Raises
    ------
    ConfigError
        As :func:`read_config`.
    """
    found: list[Config] = []
    for path in paths:
        config = read_config(path)
        found.append(found[-1].merge(config) if found else config)
    return found


def read_config(path: str | Path) -> Config:
    """Return the config in a ``.cfg`` or YAML file, unresolved.

    Raises
    ------
    ConfigError
        If the file is too large, is not UTF-8 text, is nested too deep, or its form is wrong.
    OSError
        If it cannot be opened.
    """
    if Path(path).suffix.lower() not in YAML_SUFFIXES:
        with warnings.catch_warnings():
            # confit warns about values that it takes as text; `_value` refuses those that look like JSON or a reference
            warnings.filterwarnings("ignore", "Some values may be malformed", UserWarning)
            return _parsed_cfg(read_text(path), str(path))
    text = read_text(path, MOST_YAML)
    compose(text, str(path))
    config = Config.from_yaml_str(text)
    if not isinstance(config, Mapping):
        raise ConfigError(str(path), "holds no sections", "a mapping with sections, such as train")
    _check_keys(config, str(path))
    return config


def read_text(path: str | Path, most: int = MOST_BYTES) -> str:
    """Return the text of a config file of at most so many bytes.

    Raises
    ------
    ConfigError
        If it is too large, or is not UTF-8.
    OSError
        If it cannot be opened.
    """
    with Path(path).open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ConfigError(
            str(path), "is too large for a config", f"at most {most >> 20} MiB", "Put data into other files"
        )
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"is not UTF-8 text ({error})", do="Save it as UTF-8") from None


def compose(text: str, path: str) -> yaml.Node | None:
    """Return the node of a YAML text; None if it is empty.

    Raises
    ------
    ConfigError
        If it is not valid YAML (with line and column), is nested too deep, or is too large with its aliases.
    """
    with _yaml_errors(path):
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        _check_size(node, path, {})
        return node


def construct(node: yaml.Node | None, path: str) -> Any:
    """Return the value of a YAML node.

    Raises
    ------
    ConfigError
        If a value in it is not what its form or tag says, e.g. a date.
    """
    with _yaml_errors(path):
        return None if node is None else yaml.SafeLoader("").construct_document(node)


@contextmanager
def _yaml_errors(path: str) -> Iterator[None]:
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        problem = " ".join(str(error.problem or error.context).split())
        do = "Indent with spaces" if "\\t" in problem else "Check colons, quotes and indentation"
        raise ConfigError(where, f"is not valid YAML: {problem}", do=do) from None
    except yaml.YAMLError as error:
        raise ConfigError(path, f"is not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise _too_deep(path) from None
    except (ValueError, OverflowError) as error:  # of a date, or a number of thousands of digits
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            path, f"holds a value that cannot be read ({error})", "numbers, texts and dates"
        ) from None


def _check_size(node: Any, path: str, sizes: dict[int, int | None], depth: int = 0) -> int:
    """Return the number of values below a node; each node is counted once, and added wherever an alias stands."""
    key = id(node)
    where = f"{path}:{node.start_mark.line + 1}" if node is not None else path
    if key in sizes and sizes[key] is None:
        raise ConfigError(where, "is part of itself", do="Remove the alias (*NAME) inside its own value")
    if depth > MOST_DEPTH:
        raise _too_deep(where)
    size = sizes.get(key)
    if size is None:
        sizes[key] = None
        inner = node.value if isinstance(node, yaml.CollectionNode) else ()
        parts = [one for pair in inner for one in pair] if isinstance(node, yaml.MappingNode) else inner
        size = 1 + sum(_check_size(one, path, sizes, depth + 1) for one in parts)
        sizes[key] = size
    if size > MOST_VALUES:
        raise ConfigError(
            where,
            "has too many values",
            f"at most {MOST_VALUES:,}, aliases included",
            "Put data into other files",
        )
    return size


def _check_keys(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ConfigError(where, f"has the key {key!r}", "names as keys", f'Write "{key}" in quotes')
            _check_keys(inner, f"{where} ({key})" if where.count("(") == 0 else where)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_keys(inner, where)


def _parsed_cfg(text: str, path: str) -> Config:
    parser = configparser.ConfigParser(interpolation=None, default_section="\0")
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    try:
        parser.read_string(text, path)
    except configparser.Error as error:
        allowed = "sections in brackets, each once, with lines NAME = VALUE, each name once"
        raise ConfigError(path, f"is no config file: {error.message}", allowed) from None
    config = Config()
    for section in parser.sections():
        parts = _parts(section, path)
        found: Any = config
        for depth, part in enumerate(parts, 1):
            above = ".".join(parts[:depth])
            if depth == len(parts) and part in found:
                do = "Move it up" if isinstance(found[part], Mapping) else "Remove one of them"
                kind = "parts of it" if isinstance(found[part], Mapping) else "a value of the same name"
                raise ConfigError(section, f"stands after {kind}", "a section before its parts", do)
            found = found.setdefault(part, Config())
            if not isinstance(found, Mapping):
                raise ConfigError(section, f"is below [{above}], which is a value and no section")
        for key, value in parser.items(section):
            name = _name(key)
            if name in found:
                raise ConfigError(f"{section}.{name}", "is set twice", do="Keep one of the two")
            found[name] = _value(value, f"{section}.{name}")
    return config


def _parts(section: str, path: str) -> tuple[str, ...]:
    try:
        parts = tuple(map(str, split_path(section)))
    except AssertionError:
        parts = ()
    if len(parts) > MOST_DEPTH:
        raise _too_deep(path)
    if not all(part.strip() for part in parts) or not parts:
        raise ConfigError(
            section, f"is no name of a section, in {path}", "names joined by dots, as train.schedule"
        )
    return parts


def _name(key: str) -> str:
    """Return a key as text; in quotes it may hold any character."""
    name = loads(key) if key[:1] in ("'", '"') else key
    return name if isinstance(name, str) else key


def _value(text: str, where: str) -> Any:
    """Return a value as confit reads it."""
    value: Any = None
    if len(text) > _LONG and "\\" not in text:
        with suppress(ValueError, RecursionError):
            value = json.loads(text)
    if value is None and len(text) > _LONGEST:
        allowed = "JSON: texts in double quotes and without backslashes, lists in brackets"
        raise ConfigError(where, "is a very long value that is no JSON", allowed)
    value = loads(text) if value is None else value
    if isinstance(value, str) and re.match(r"[\[{]|\$\{", text):
        raise ConfigError(
            where,
            f"cannot be read: {text}",
            'JSON, as ["a", "b"] or {"a": 1}, or a reference, as ${section.name}',
        )
    if max(_depths(value), default=0) > MOST_DEPTH:
        raise _too_deep(where)
    return value


def _depths(value: Any) -> Iterator[int]:
    todo = [(value, 1)]
    while todo:
        one, depth = todo.pop()
        if isinstance(one, (Mapping, list, tuple)):
            yield depth
            todo += [(inner, depth + 1) for inner in (one.values() if isinstance(one, Mapping) else one)]


def _too_deep(where: str) -> ConfigError:
    return ConfigError(where, "is nested too deep", f"at most {MOST_DEPTH} levels")
