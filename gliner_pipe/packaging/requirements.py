"""Requirements of a pipeline: the packages whose registered functions its config names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

import catalogue
import spacy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.language_splitters import LibraryWords
from gliner_pipe.pipeline.serialize import BLOCKS
from gliner_pipe.registry import registry

#: Distributions that come with spaCy.
WITH_SPACY = ("spacy", "spacy-legacy", "spacy-loggers", "thinc", "srsly", "catalogue", "confection")

#: Distributions of extras that blocks need at run time, by the package of the blocks.
OF_EXTRAS = {"gliner_pipe.onnx": "onnxruntime"}


def function_modules(config: Mapping[str, Any]) -> dict[str, str]:
    """Find the modules of the registered functions that a pipeline with this interpolated config uses.

    Returns
    -------
    dict
        Module by section, e.g. ``{"components.ner.factory": "spacy.pipeline.ner"}``.

    Raises
    ------
    ConfigError
        If a function is not registered.
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
                "Install the package that registers it, or add the code that does with --code; the __init__.py of "
                "that code must import the module",
            )
        modules[where] = module
    return modules


def third_party(modules: Mapping[str, str], code: Sequence[str]) -> list[str]:
    """Find the requirements of the modules of registered functions.

    Parameters
    ----------
    modules
        Result of `function_modules`.
    code
        Top-level modules that are included in the package.

    Returns
    -------
    list of str
        For example ``["gliner_pipe>=0.1.0", "regex>=2.5.1,<2.6"]``, without distributions that come with spaCy.

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
                f"is a function of the module {module!r}, which no installed package contains",
                "functions of installed packages and of the project's code",
                f"Add its folder with --code {top}",
            ) from None
    return sorted(found)


def splitter_extras(config: Mapping[str, Any], artifacts: Path) -> list[str]:
    """Return the requirement of this package with the extras of the word splitters that a pipeline uses, if any.

    Parameters
    ----------
    config
        The pipeline's config, interpolated.
    artifacts
        Folder of the pipeline: its components hold the splitters that come from GLiNER checkpoints.
    """
    sections: list[Any] = [config.get("components", {})]
    for path in artifacts.glob(f"*/model/{BLOCKS}"):
        settings = config["components"].get(path.parents[1].name, {})
        if settings.get("word_splitter") is None:
            sections.append(json.loads(path.read_text(encoding="utf8")))
    used = {name for one in sections for _, family, name in _functions(one, "") if family == "word_splitters"}
    made = registry.word_splitters.get_all()
    extras = sorted(
        name for name in used if isinstance(made.get(name), type) and issubclass(made[name], LibraryWords)
    )
    own = _range("gliner_pipe", Version(version("gliner_pipe")))
    return [own.replace(">", f"[{','.join(extras)}]>", 1)] if extras else []


def read_requirements(given: Sequence[str]) -> list[str]:
    """Read requirements; an item that ends in ``.txt`` is a file with one requirement per line."""
    lines: list[str] = []
    for item in given:
        if item.endswith(".txt"):
            text = [line.split("#")[0].strip() for line in Path(item).read_text(encoding="utf8").splitlines()]
            lines += [line for line in text if line]
        else:
            lines.append(item)
    return lines


def merge(*groups: Sequence[str]) -> list[str]:
    """Merge requirements; a later requirement replaces an earlier one of the same distribution.

    Raises
    ------
    ConfigError
        If an item is not a requirement as in ``pyproject.toml``.
    """
    merged: dict[str, str] = {}
    for item in (item for group in groups for item in group):
        try:
            merged[canonicalize_name(Requirement(item).name)] = item
        except InvalidRequirement as error:
            raise ConfigError(
                "package.requirements",
                f"contains {item!r}",
                "requirements such as 'pandas>=2,<3', or a file that ends in .txt",
                'For several write --requirements \'["pandas>=2,<3", "regex"]\'',
            ) from error
    return list(merged.values())


def is_spacy(requirement: str) -> bool:
    """Return whether a requirement is spaCy itself, for which ``meta.json`` has a separate field."""
    return canonicalize_name(Requirement(requirement).name) == "spacy"


def _range(name: str, found: Version) -> str:
    if name == "gliner_pipe":
        return f"{name}>={found.public}"
    return f"{name}>={found.public},<{found.major}.{found.minor + 1}"


def _functions(block: Any, where: str) -> Iterator[tuple[str, str, str]]:
    """Yield (section, registry, name) of each function that a section names, lists included."""
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
    """Return the function that ``@Language.component`` wraps, or the function itself."""
    inside = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    wrapped = [item for item in inside if callable(item)]
    return wrapped[0] if wrapped and function.__module__ == "spacy.language" else function
