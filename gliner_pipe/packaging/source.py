"""Finds and copies the pipeline to package: a folder, an installed package or a pipeline in memory."""

from __future__ import annotations

import fnmatch
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from spacy.language import Language
from spacy.util import get_package_path, is_package

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.load import is_pipeline, model_in
from gliner_pipe.util.atomic import recover
from gliner_pipe.util.listing import names_in

logger = logging.getLogger("gliner_pipe.package")

#: Files of every spaCy pipeline.
MARKERS = ("config.cfg", "meta.json")
#: Config that a training run writes into the pipeline's folder or beside it.
TRAIN_CONFIG = "train_config.cfg"
#: Files that are never packaged.
NEVER = (".git", ".DS_Store", ".ipynb_checkpoints", "__pycache__", "*.pyc")

_ALLOWED = (
    "a folder that nlp.to_disk wrote (with config.cfg and meta.json), or the name of an installed pipeline"
)


def copy_pipeline(pipeline: str | Path | Language, target: Path) -> Path | None:
    """Copy the pipeline into the new folder `target`; files are hard-linked if the filesystem allows it.

    Parameters
    ----------
    pipeline
        Folder, name of an installed package, or pipeline in memory.
    target
        Folder to create.

    Returns
    -------
    Path or None
        The folder that was copied; None for a pipeline in memory.

    Raises
    ------
    ConfigError
        If there is no such pipeline.
    """
    if isinstance(pipeline, Language):
        pipeline.to_disk(target)
        return None
    folder = find_pipeline(pipeline)
    _report_links(folder)
    for _ in range(5):
        inode = folder.stat().st_ino
        try:
            copy_tree(folder, target)
        except (FileNotFoundError, shutil.Error):
            if folder.stat().st_ino == inode:
                raise
        if folder.stat().st_ino == inode:
            return folder
        shutil.rmtree(target, ignore_errors=True)  # a training run has just replaced the folder
    found = f"is {str(folder)!r}, which is being written"
    raise ConfigError("package.pipeline", found, _ALLOWED, "Wait until it is complete")


def _report_links(folder: Path) -> None:
    """Warn of links that lead out of a pipeline's folder, as their files are copied; a hub's cache is made of links."""
    here = folder.resolve()
    own = [here, here.parent.parent / "blobs"] if here.parent.name == "snapshots" else [here]
    links = [
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() and not any(path.resolve().is_relative_to(place) for place in own)
    ]
    if links:
        logger.warning(
            "%s: %d links lead to files outside the folder, which are copied: %s",
            folder,
            len(links),
            ", ".join(sorted(links)),
        )


def find_pipeline(pipeline: str | Path) -> Path:
    """Return the folder that holds the pipeline's files."""
    if not isinstance(pipeline, (str, Path)):
        raise ConfigError("package.pipeline", f"is {pipeline!r}", _ALLOWED)
    path = Path(pipeline)
    recover(path)
    if path.is_dir():
        path = model_in(path)
        if is_pipeline(path):
            return path
        raise ConfigError("package.pipeline", _not_a_pipeline(path), _ALLOWED, "Give the pipeline's folder")
    if path.exists():
        found = f"is {str(path)!r}, a file"
        raise ConfigError("package.pipeline", found, _ALLOWED, "Give the pipeline's folder")
    if isinstance(pipeline, str) and is_package(pipeline):
        return _in_package(pipeline)
    raise ConfigError("package.pipeline", _missing(path), _ALLOWED, "Train first, or correct the path")


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder without `NEVER`; files are hard-linked if the filesystem allows it."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*NEVER), copy_function=_link_or_copy)


def remove_excluded(folder: Path, patterns: Sequence[str]) -> None:
    """Remove the files that match a pattern, e.g. ``*.pt``, ``ner/cache`` or ``vocab/*``.

    Parameters
    ----------
    folder
        The copied pipeline.
    patterns
        Shell patterns of names of files or folders, or of paths relative to the pipeline's folder.

    Raises
    ------
    ConfigError
        If a pattern matches nothing, or a file that every pipeline needs.
    """
    for pattern in patterns:
        files = (path for path in sorted(folder.rglob("*")) if path.is_file())
        found = [path for path in files if _matches(path.relative_to(folder).as_posix(), pattern)]
        needed = [path.name for path in found if path.relative_to(folder).as_posix() in MARKERS]
        if needed or not found:
            what = f"removes {needed[0]}" if needed else "matches no file of the pipeline"
            held = names_in(folder, 20)
            raise ConfigError(
                "package.exclude", f"contains {pattern!r}, which {what}", held, "Correct the pattern"
            )
        for path in found:
            path.unlink()


def _matches(path: str, pattern: str) -> bool:
    pure = PurePosixPath(path)
    candidates = [str(part) for part in (pure, *pure.parents)] + list(pure.parts)
    return any(
        fnmatch.fnmatchcase(candidate, pattern.strip("/")) for candidate in candidates if candidate != "."
    )


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
    return target


def _in_package(name: str) -> Path:
    root = get_package_path(name)
    for folder in (root, *sorted(item for item in root.iterdir() if item.is_dir())):
        if all((folder / marker).is_file() for marker in MARKERS):
            return folder
    found = f"is {name!r}, a package without a pipeline"
    raise ConfigError("package.pipeline", found, _ALLOWED, "Give another package")


def _not_a_pipeline(path: Path) -> str:
    names = {item.name for item in path.iterdir()}
    if "gliner_config.json" in names:
        return f"is {str(path)!r}, a GLiNER checkpoint; add it to a pipeline and save that with nlp.to_disk"
    missing = " and no ".join(name for name in MARKERS if name not in names)
    return f"is {str(path)!r}, which has no {missing} ({_holds(path)})"


def _missing(path: Path) -> str:
    parent = path.parent
    where = f"{parent}: {_holds(parent)}" if parent.is_dir() else f"neither does {parent}"
    return f"is {str(path)!r}, which does not exist ({where})"


def _holds(folder: Path) -> str:
    names = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
    if not names:
        return "it is empty"
    return "it holds " + ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
