"""Builds the wheel and the source distribution of a pipeline: the source tree, then the build backend."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from spacy.language import Language

from gliner_pipe.errors import ConfigError, GlinerPipeError
from gliner_pipe.packaging.card import model_card
from gliner_pipe.packaging.meta import make_meta, read_config, read_meta, read_scores, spacy_range
from gliner_pipe.packaging.project_code import copy_code, find_code, import_code, modules_to_import
from gliner_pipe.packaging.requirements import (
    function_modules,
    is_spacy,
    merge,
    read_requirements,
    splitter_extras,
    third_party,
)
from gliner_pipe.packaging.source import TRAIN_CONFIG, copy_pipeline, remove_excluded
from gliner_pipe.util.redact_folder import redact_folder

#: Python versions of the package, those of gliner_pipe.
PYTHON = ">=3.10"

INIT = '''"""The spaCy pipeline {name}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.util import load_model_from_path
{imports}
__version__ = "{version}"


def load(**overrides: Any) -> Language:
    """Load the pipeline; accepts the options of ``spacy.load``, e.g. `disable` and `config`."""
    return load_model_from_path(Path(__file__).parent / "{artifacts}", **overrides)
'''


def assemble(
    pipeline: str | Path | Language,
    sources: Path,
    *,
    name: str,
    version: str,
    metadata: Mapping[str, Any],
    artifacts_name: str,
    requirements: Sequence[str],
    code: Sequence[str],
    root_dir: Path,
    exclude: Sequence[str],
    scores: Path | None,
    vendor: bool,
) -> list[str]:
    """Write the source tree into the new folder `sources`; the options are those of `gliner_pipe.package`.

    Secrets in its text files are redacted. Returns the requirements of the package.
    """
    module = sources / name
    artifacts = module / artifacts_name
    module.mkdir(parents=True)
    origin = copy_pipeline(pipeline, artifacts)
    own, config = read_meta(artifacts), read_config(artifacts)

    paths = find_code(code, root_dir)
    if name in [path.stem for path in paths]:
        found = f"is {name!r}, also the name of a module in --code"
        raise ConfigError("package.name", found, "another name", "Change --name")
    import_code(paths)
    functions = function_modules(config)
    needed = merge(
        [f"spacy{spacy_range(own)}"],
        own.get("requirements") or [],
        third_party(functions, [path.stem for path in paths]),
        splitter_extras(config, artifacts),
        read_requirements(requirements),
    )
    filled = make_meta(
        own,
        name=name,
        version=version,
        metadata=metadata,
        scores=read_scores(scores, artifacts),
        requirements=[item for item in needed if not is_spacy(item)],
    )
    trained_with = _training_config([artifacts] if origin is None else [artifacts, origin.parent])
    remove_excluded(artifacts, exclude)
    text = json.dumps(filled, indent=2, ensure_ascii=False) + "\n"
    card = model_card(filled, config, trained_with, f"{name}/{artifacts_name}", has_own_wheel=vendor)
    modules = modules_to_import(paths, functions.values())
    for path, content in {
        artifacts / "meta.json": text,
        module / "meta.json": text,
        module / "README.md": card,
        sources / "README.md": card,
        module / "__init__.py": init_text(name, version, artifacts_name, modules),
        sources / "pyproject.toml": pyproject_text(filled, needed, copy_code(paths, sources)),
    }.items():
        path.unlink(missing_ok=True)  # it may be a link to the pipeline's own file
        path.write_text(content, encoding="utf8")
    redact_folder(sources)
    return needed


def _training_config(folders: Sequence[Path]) -> str | None:
    """Read the config that a training run wrote into the pipeline's folder or beside it."""
    files = [folder / TRAIN_CONFIG for folder in folders if (folder / TRAIN_CONFIG).is_file()]
    return files[0].read_text(encoding="utf8") if files else None


# -- generated files ---------------------------------------------------------------------------------------------


def init_text(name: str, version: str, artifacts: str, modules: Sequence[str]) -> str:
    """Return the package's ``__init__.py``; `modules` register the functions of the project's code."""
    lines = [f"import {module}  # registers functions of the pipeline" for module in modules]
    imports = "\n".join(["", *lines, ""]) if lines else ""
    return INIT.format(name=name, version=version, artifacts=artifacts, imports=imports)


def pyproject_text(meta: Mapping[str, Any], requirements: Sequence[str], code: Sequence[str]) -> str:
    """Return the package's ``pyproject.toml``.

    Parameters
    ----------
    meta
        The package's ``meta.json``.
    requirements
        All its requirements.
    code
        Files and folders of the project's code at the top of the tree.

    Returns
    -------
    str
        Text in TOML; the build backend is hatchling.
    """
    name = meta["name"]
    author = {key: meta[field] for key, field in (("name", "author"), ("email", "email")) if meta[field]}
    project: dict[str, Any] = {
        "name": name,
        "version": meta["version"],
        "description": " ".join(meta["description"].split()),
        "readme": "README.md",
        "requires-python": PYTHON,
        "license": {"text": meta["license"]} if meta["license"] else None,
        "authors": [author] if author else None,
        "keywords": meta.get("keywords"),
        "dependencies": list(requirements),
    }
    sections = {
        "build-system": {"requires": ["hatchling>=1.24"], "build-backend": "hatchling.build"},
        "project": project,
        "project.urls": {"Homepage": meta["url"]} if meta["url"] else {},
        "project.entry-points.spacy_models": {name: name},
        # the tree may be below a folder that version control ignores
        "tool.hatch.build": {"ignore-vcs": True, "only-include": [name, *code]},
    }
    return "\n".join(_section(title, values) for title, values in sections.items() if values)


def _section(title: str, values: Mapping[str, Any]) -> str:
    lines = [f"[{title}]", *(f"{key} = {_toml(value)}" for key, value in values.items() if value is not None)]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    # strings of JSON are strings of TOML, except for one control character
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


# -- build backend -----------------------------------------------------------------------------------------------


class BuildError(GlinerPipeError, RuntimeError):
    """The build backend failed."""


def check_backend(isolation: bool) -> None:
    """Check that the build backend is installed.

    Raises
    ------
    ConfigError
        If ``build``, or without isolation ``hatchling``, cannot be imported.
    """
    needed = ["build"] if isolation else ["build", "hatchling"]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ConfigError(
            "package", f"needs {' and '.join(missing)}", do='Install it: pip install "gliner_pipe[package]"'
        )


def build_distributions(
    tree: Path, output: Path, kinds: Sequence[str], settings: Mapping[str, Any], isolation: bool
) -> list[Path]:
    """Build wheel and source distribution.

    Parameters
    ----------
    tree
        Folder with ``pyproject.toml``.
    output
        Folder for the files.
    kinds
        Of ``wheel`` and ``sdist``.
    settings
        The backend's ``config_settings``.
    isolation
        Whether to build in an isolated environment, for which hatchling is downloaded.

    Returns
    -------
    list of Path
        One file per kind.

    Raises
    ------
    BuildError
        With the last output of the backend.
    """
    from build import BuildBackendException, BuildException, FailedProcessError, ProjectBuilder
    from build.env import DefaultIsolatedEnv
    from pyproject_hooks import quiet_subprocess_runner

    def run(builder: ProjectBuilder) -> list[Path]:
        return [Path(builder.build(kind, output, config_settings=settings)) for kind in kinds]

    try:
        if not isolation:
            return run(ProjectBuilder(tree, python_executable=sys.executable, runner=quiet_subprocess_runner))
        with DefaultIsolatedEnv() as environment:
            builder = ProjectBuilder.from_isolated_env(environment, tree, runner=quiet_subprocess_runner)
            environment.install(builder.build_system_requires)
            for kind in kinds:
                environment.install(builder.get_requires_for_build(kind, settings))
            return run(builder)
    except (BuildException, BuildBackendException, FailedProcessError, CalledProcessError) as error:
        raise BuildError(f"The package could not be built: {error}. {_last_output(error)}".strip()) from error


def _last_output(error: Exception) -> str:
    """Return the last lines that the failed process printed."""
    process = getattr(error, "exception", error)
    output = getattr(process, "output", None) or b""
    text = output if isinstance(output, str) else output.decode("utf8", errors="replace")
    return "\n".join(text.strip().splitlines()[-5:])
