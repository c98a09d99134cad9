"""The project's own code that a package contains: found, imported and copied."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from gliner_pipe.errors import ConfigError
from gliner_pipe.packaging.source import copy_tree


def find_code(code: Sequence[str], root: Path) -> list[Path]:
    """Find the project's code.

    Parameters
    ----------
    code
        Folders with ``__init__.py`` or Python files (paths relative to `root`), or names of importable modules.
    root
        Folder of the project.

    Returns
    -------
    list of Path
        The folders and files.

    Raises
    ------
    ConfigError
        If an item is no Python code.
    """
    return [_find(item, root) for item in code]


def _find(item: str, root: Path) -> Path:
    path = root / item
    if not path.exists() and item.isidentifier():
        spec = find_spec(item)
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin)
            path = path.parent if path.name == "__init__.py" else path
    path = path.resolve()
    if path.stem.isidentifier() and (
        (path / "__init__.py").is_file() or (path.is_file() and path.suffix == ".py")
    ):
        return path
    raise ConfigError(
        "package.code",
        f"contains {item!r}, which is no Python package ({path})",
        "a folder with __init__.py, a .py file, or the name of an importable module",
        "Correct the path",
    )


def import_code(paths: Iterable[Path]) -> None:
    """Import the project's code, which registers its functions."""
    for path in paths:
        sys.path.insert(0, str(path.parent))
        try:
            importlib.import_module(path.stem)
        except ImportError as error:
            raise ConfigError(
                "package.code", f"contains {path.stem!r}, which cannot be imported: {error}"
            ) from error
        finally:
            sys.path.remove(str(path.parent))


def copy_code(paths: Iterable[Path], target: Path) -> list[str]:
    """Copy the project's code into a folder; return the names of the copies."""
    names = []
    for path in paths:
        if path.is_dir():
            copy_tree(path, target / path.name)
        else:
            (target / path.name).write_bytes(path.read_bytes())
        names.append(path.name)
    return names


def modules_to_import(paths: Iterable[Path], used: Iterable[str]) -> list[str]:
    """Return the modules that register the `used` functions; for a path without such a module, its top module."""
    used = sorted(set(used))
    modules = []
    for path in paths:
        modules += [module for module in used if module.split(".")[0] == path.stem] or [path.stem]
    return modules
