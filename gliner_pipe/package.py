"""Build an installable package of a pipeline: ``python -m gliner_pipe.package --help``."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports below, which --help does not need
    from gliner_pipe.cli.commands import start

    start("package")

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spacy.language import Language

from gliner_pipe.cli.application import Cli
from gliner_pipe.cli.options import command_line
from gliner_pipe.packaging import build, options
from gliner_pipe.packaging.build import assemble
from gliner_pipe.packaging.meta import UNSET_NAMES, UNSET_VERSION, read_meta
from gliner_pipe.packaging.own_wheel import build_own_wheel, needs_own_wheel
from gliner_pipe.packaging.project_file import Project, find_project, read_project
from gliner_pipe.packaging.source import find_pipeline
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import replace_directory, replace_file, scratch_directory
from gliner_pipe.util.file_lock import only_writer

logger = logging.getLogger("gliner_pipe.package")
app = Cli()

#: Largest file that the public package index accepts by default.
INDEX_LIMIT = 100 * 1024**2


@app.command(name="package", registry=registry)
def package(
    pipeline: Any,
    name: Any = None,
    version: Any = None,
    metadata: dict[str, Any] = {},  # noqa: B006 (confit reads the default; it is never changed)
    distributions: str | list[str] = "wheel,sdist",
    dist_dir: Path = Path("dist"),
    root_dir: Path = Path(),
    build_dir: Path | None = None,
    artifacts_name: str = "artifacts",
    requirements: str | list[str] | None = None,
    code: str | list[str] | None = None,
    exclude: str | list[str] | None = None,
    scores: Path | None = None,
    config_settings: dict[str, Any] = {},  # noqa: B006
    isolation: bool = False,
    vendor: bool = False,
    project: Path | None = None,
    config_meta: dict[str, Any] | None = None,
) -> list[Path]:
    """Build an installable Python package of a spaCy pipeline.

    ``pip install dist/<name>-<version>-py3-none-any.whl`` installs it, and ``spacy.load("<name>")`` or
    ``<name>.load()`` loads it. A file in `dist_dir` is replaced atomically.

    Parameters
    ----------
    pipeline : str, Path or Language
        Folder of the pipeline, name of an installed pipeline, or (from Python) the pipeline itself.
    name : str
        Name of the package and of its module, e.g. ``my_ner_model``; by default the pipeline's name.
    version : str
        Version, e.g. ``0.1.0``; by default the project's version, else the pipeline's, else 0.1.0.
    metadata : dict
        Any of description, author, email, url, license, keywords, notes and sources.
    distributions : list of str or str
        ``wheel``, ``sdist`` or both: a list, or names separated by commas.
    dist_dir : Path
        Folder for the files.
    root_dir : Path
        Folder of the project: `dist_dir`, `build_dir` and `code` are relative to it.
    build_dir : Path, optional
        Folder in which to keep the source tree, as ``<name>-<version>``.
    artifacts_name : str
        Name of the pipeline's folder inside the package.
    requirements : list of str or str, optional
        Requirements to add to those found (spaCy, and the packages whose functions the pipeline's config names), or to
        replace them. An item that ends in ``.txt`` is a file of requirements.
    code : list of str or str, optional
        Code of the project that the pipeline needs: folders, Python files or importable modules. It is installed under
        its own name and imported with the package.
    exclude : list of str or str, optional
        Patterns of files of the pipeline to leave out, e.g. ``*.pt`` or ``ner/cache``.
    scores : Path, optional
        JSON file with scores; by default ``scores.json`` in the pipeline's folder, or the scores in its ``meta.json``.
    config_settings : dict
        Settings of the build backend, hatchling.
    isolation : bool
        Whether to build in an isolated environment, for which the build backend is downloaded.
    vendor : bool
        Whether to put the wheel of gliner_pipe beside the package, for machines whose package index does not have it.
    project : Path, optional
        A ``pyproject.toml`` whose ``[project]`` gives version, description, authors, url, license, keywords and
        dependencies; other options take precedence. On the command line by default the one beside the config, or in
        `root_dir`, unless it is that of gliner_pipe itself.
    config_meta
        Set by the command line.

    Returns
    -------
    list of Path
        The distributions, the wheel of gliner_pipe if asked for, then the model card, in `dist_dir`.

    Raises
    ------
    ConfigError
        If an option is invalid; nothing is written then.
    BuildError
        If the build backend fails.
    DataError
        If another process writes the same distributions.
    """
    kinds = options.check_distributions(distributions)
    metadata = options.check_metadata(metadata)
    artifacts_name = options.check_folder_name(artifacts_name)
    build.check_backend(isolation)
    own = pipeline.meta if isinstance(pipeline, Language) else read_meta(find_pipeline(pipeline))
    stated = _project(project, root_dir, config_meta)
    own_name = None if own["name"] in UNSET_NAMES else own["name"]
    own_version = "0.1.0" if own["version"] == UNSET_VERSION else own["version"]
    taken = [
        *(["name"] if stated.name and not name and not own_name else []),
        *(["version"] if stated.version and not version else []),
        *(key for key in stated.metadata if key not in metadata),
        *([f"dependencies ({', '.join(stated.dependencies)})"] if stated.dependencies else []),
    ]
    name = options.check_name(name or own_name or stated.name)
    version = options.check_version(version or stated.version or own_version)
    metadata = {**stated.metadata, **metadata}
    if taken:
        logger.info("%s gives %s", stated.path, ", ".join(taken))
    with (
        only_writer(root_dir / dist_dir / f".{name}-{version}.lock"),
        scratch_directory(root_dir / dist_dir / "package") as scratch,
    ):
        sources = scratch / "sources"
        needed = assemble(
            pipeline,
            sources,
            name=name,
            version=version,
            metadata=metadata,
            artifacts_name=artifacts_name,
            requirements=[*stated.dependencies, *options.as_list(requirements)],
            code=options.as_list(code),
            root_dir=root_dir,
            exclude=options.as_list(exclude),
            scores=scores,
            vendor=vendor,
        )
        built = build.build_distributions(sources, scratch / "built", kinds, config_settings, isolation)
        if build_dir is not None:
            with replace_directory(
                root_dir / build_dir / f"{name}-{version}", marker="pyproject.toml"
            ) as kept:
                shutil.copytree(sources, kept, dirs_exist_ok=True)
        own = [build_own_wheel(scratch / "own", isolation)] if vendor else []
        card = (sources / "README.md").rename(scratch / f"{name}-{version}.README.md")
        files = [_deliver(file, root_dir / dist_dir) for file in (*built, *own, card)]
    if vendor:
        logger.info("Install it: pip install --find-links %s %s==%s", root_dir / dist_dir, name, version)
    elif needs_own_wheel(needed):
        logger.info(
            "It needs gliner_pipe: --vendor true puts its wheel beside the package, for pip to find it"
        )
    return files


def _project(given: Path | None, root_dir: Path, config_meta: dict[str, Any] | None) -> Project:
    """Read the project file that is named, or that the command line finds beside the config or in `root_dir`."""
    if given is not None:
        return read_project(given)
    if config_meta is None:
        return Project()
    configs = config_meta.get("config_path") or []
    configs = configs if isinstance(configs, (list, tuple)) else [configs]
    return find_project([*(Path(one).parent for one in configs), root_dir])


def _deliver(file: Path, folder: Path) -> Path:
    target = folder / file.name
    size = file.stat().st_size
    with replace_file(target) as sibling:
        file.replace(sibling)
    logger.info("%s (%.1f MB)", target, size / 1e6)
    if size > INDEX_LIMIT:
        logger.warning(
            "%s is larger than the 100 MB that the public package index accepts by default: share the file, which "
            "pip installs from a path or URL, or leave files out with --exclude",
            target,
        )
    return target


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line, and log the files."""
    command_line(
        "package",
        app,
        package,
        argv,
        text=[f"metadata.{key}" for key in ("description", "author", "email", "url", "license", "notes")],
        parsed=("requirements", "code", "exclude"),
        logs=True,
    )
