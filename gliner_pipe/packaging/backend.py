"""Runs the build backend on a source tree."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from gliner_pipe.errors import ConfigError, GlinerPipeError


class BuildError(GlinerPipeError, RuntimeError):
    """The build backend failed."""


def check_backend(isolation: bool) -> None:
    """Make sure that what builds the package is installed.

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
        Build in an environment of its own, for which hatchling is downloaded; else in this one.

    Returns
    -------
    list of Path
        One file a kind.

    Raises
    ------
    BuildError
        With what the backend said.
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
        raise BuildError(f"The package could not be built: {error}. {_said(error)}".strip()) from error


def _said(error: Exception) -> str:
    """Return the last lines that the failed process wrote."""
    process = getattr(error, "exception", error)
    output = getattr(process, "output", None) or b""
    text = output if isinstance(output, str) else output.decode("utf8", errors="replace")
    return "\n".join(text.strip().splitlines()[-5:])
