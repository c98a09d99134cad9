"""What a pipeline needs to run: packages that its config names functions of, and code of the project itself."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import catalogue
import spacy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from gliner_pipe.errors import ConfigError
from gliner_pipe.packaging.source import copy_tree


def find_code(code: Sequence[str], root: Path) -> list[Path]:
    """Find the project's code.

    Parameters
    ----------
    code
        Folders with ``__init__.py`` or Python files (paths from `root` on), or names of importable modules.
    root
        Folder of the project.

    Returns
    -------
    list of Path
        The folders and files.

    Raises
    ------
    ConfigError
        If one is no Python code.
    """
    return [_find(item, root) for item in code]


def import_code(paths: Iterable[Path]) -> None:
    """Import the project's code, so that its functions are registered."""
    for path in paths:
        sys.path.insert(0, str(path.parent))
        try:
            importlib.import_module(path.stem)
        except ImportError as error:
            raise ConfigError(
                "package.code", f"has {path.stem!r}, which cannot be imported: {error}"
            ) from error
        finally:
            sys.path.remove(str(path.parent))


def copy_code(paths: Iterable[Path], target: Path) -> list[str]:
    """Copy the project's code into a folder and return the names that it has there."""
    names = []
    for path in paths:
        if path.is_dir():
            copy_tree(path, target / path.name)
        else:
            (target / path.name).write_bytes(path.read_bytes())
        names.append(path.name)
    return names


def modules_to_import(paths: Iterable[Path], used: Iterable[str]) -> list[str]:
    """Return the modules that register the functions in use; of a path that has none of them, the top."""
    used = sorted(set(used))
    modules = []
    for path in paths:
        modules += [module for module in used if module.split(".")[0] == path.stem] or [path.stem]
    return modules


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
        f"has {item!r}, which is no Python package ({path})",
        "a folder with __init__.py, a .py file, or the name of an importable module",
        "Mend the path",
    )


#: Distributions that come with spaCy.
WITH_SPACY = ("spacy", "spacy-legacy", "spacy-loggers", "thinc", "srsly", "catalogue", "confection")

#: Distributions of extras that blocks need when they run, by the package that the blocks are in.
OF_EXTRAS = {"gliner_pipe.onnx": "onnxruntime"}


def function_modules(config: Mapping[str, Any]) -> dict[str, str]:
    """Find the modules of the registered functions that a pipeline is built from.

    Parameters
    ----------
    config
        The pipeline's config, interpolated.

    Returns
    -------
    dict
        Module by what names it, e.g. ``{"components.ner.factory": "spacy.pipeline.ner"}``.

    Raises
    ------
    ConfigError
        If a function is not registered here.
    """
    spacy.blank("xx")  # imports the components of installed packages
    language = config["nlp"]["lang"]
    used = [
        item for section in ("nlp", "components") for item in _functions(config.get(section, {}), section)
    ]
    modules = {}
    for where, family, name in used:
        module = _module(language, family, name)
        if module is None:
            raise ConfigError(
                where,
                f"names {name!r}, which is not registered in {family}",
                "functions of installed packages and of the project's code",
                "Install the package that has it, or give the code that has it with --code; that code's "
                "__init__.py must import the module with the function",
            )
        modules[where] = module
    return modules


def third_party(modules: Mapping[str, str], code: Sequence[str]) -> list[str]:
    """Find the requirements that the modules of registered functions ask for.

    Parameters
    ----------
    modules
        What `function_modules` found.
    code
        Top-level modules that travel inside the package.

    Returns
    -------
    list of str
        For example ``["gliner_pipe>=0.1.0", "regex>=2.5.1,<2.6"]``; nothing that comes with spaCy.

    Raises
    ------
    ConfigError
        If a function's module is neither in an installed distribution nor in the project's code.
    """
    owners = packages_distributions()
    found = set()
    for where, module in modules.items():
        top = module.split(".")[0]
        if top in code:
            continue
        if extra := OF_EXTRAS.get(module.rpartition(".")[0]):
            found.add(_range(extra, Version(version(extra))))
        name = owners.get(top, [top])[0]
        if canonicalize_name(name) in WITH_SPACY:
            continue
        try:
            found.add(_range(name, Version(version(name))))
        except PackageNotFoundError:
            raise ConfigError(
                where,
                f"is a function of the module {module!r}, which no installed package has",
                "functions of installed packages and of the project's code",
                f"Give its folder with --code {top}",
            ) from None
    return sorted(found)


def read_requirements(given: Sequence[str]) -> list[str]:
    """Read requirements; an item that ends in ``.txt`` is a file with one requirement a line."""
    lines: list[str] = []
    for item in given:
        if item.endswith(".txt"):
            text = [line.split("#")[0].strip() for line in Path(item).read_text(encoding="utf8").splitlines()]
            lines += [line for line in text if line]
        else:
            lines.append(item)
    return lines


def merge(*groups: Sequence[str]) -> list[str]:
    """Join requirements; where a distribution is named twice, the later group's requirement stands.

    Raises
    ------
    ConfigError
        If one is not a requirement as in ``pyproject.toml``.
    """
    merged: dict[str, str] = {}
    for item in (item for group in groups for item in group):
        try:
            merged[canonicalize_name(Requirement(item).name)] = item
        except InvalidRequirement as error:
            raise ConfigError(
                "package.requirements",
                f"has {item!r}",
                "requirements such as 'pandas>=2,<3', or a file that ends in .txt",
                'Several of them: --requirements \'["pandas>=2,<3", "regex"]\'',
            ) from error
    return list(merged.values())


def is_spacy(requirement: str) -> bool:
    """Tell whether a requirement is one of spaCy itself, which ``meta.json`` has a field of its own for."""
    return canonicalize_name(Requirement(requirement).name) == "spacy"


def _range(name: str, found: Version) -> str:
    if name == "gliner_pipe":
        return f"{name}>={found.public}"
    return f"{name}>={found.public},<{found.major}.{found.minor + 1}"


def _functions(block: Any, where: str) -> Iterator[tuple[str, str, str]]:
    """Yield (section, registry, name) of each function that a section names, in lists too."""
    items = (
        block.items() if isinstance(block, Mapping) else enumerate(block) if isinstance(block, list) else ()
    )
    for key, value in items:
        place = f"{where}.{key}"
        if isinstance(value, (Mapping, list)):
            yield from _functions(value, place)
        elif isinstance(value, str) and str(key).startswith("@"):
            yield where, str(key)[1:], value
        elif isinstance(value, str) and key == "factory" and where.count(".") == 1:
            yield place, "factories", value


def _module(language: str, family: str, name: str) -> str | None:
    for candidate in (f"{language}.{name}", name):
        try:
            function = spacy.registry.get(family, candidate)
        except catalogue.RegistryError:
            continue
        function = _unwrapped(function)
        return str(getattr(function, "__module__", None) or type(function).__module__)
    return None


def _unwrapped(function: Any) -> Any:
    """Return the function that ``@Language.component`` has wrapped, or the function itself."""
    inside = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    wrapped = [item for item in inside if callable(item)]
    return wrapped[0] if wrapped and function.__module__ == "spacy.language" else function
