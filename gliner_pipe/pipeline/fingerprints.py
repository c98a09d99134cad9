"""Fingerprints of the files that were saved together: files of different saves are told apart.

A component's ``cfg.json`` holds the fingerprints of all other files in its folder, and of its section in the
``config.cfg`` of the pipeline. They reveal files of another save, incomplete copies and damaged files. They are
checksums (CRC-32) and no protection against files that somebody forged. Files with redacted secrets are not compared.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confection import Config
from pydantic import BaseModel

from gliner_pipe.errors import CheckpointError
from gliner_pipe.modeling.backbones.hf_weights import listed
from gliner_pipe.util.redact_folder import VOCABULARIES
from gliner_pipe.util.secrets import MARK

CONFIG = "config.cfg"
META = "meta.json"
#: Suffixes of text files, whose line ends do not count.
_TEXTS = frozenset({".json", ".txt", ".cfg", ".jinja"})
#: Bytes that are read at once.
_AT_ONCE = 1 << 20


class OfConfig(BaseModel):
    """Fingerprints of a ``config.cfg``: of its text, of the section of the component, and its main sections."""

    text: str
    section: str
    sections: list[str]


def of_files(folder: Path) -> dict[str, str]:
    """Return the fingerprints of all files in a folder, by their paths in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): _of_file(path) for path in files}
    return {name: fingerprint for name, fingerprint in found.items() if fingerprint}


def check_files(folder: Path, stated: Mapping[str, str], cfg: Path) -> None:
    """Check that files are those that were saved together.

    Parameters
    ----------
    folder
        The folder that was given to ``of_files``.
    stated
        What ``of_files`` returned.
    cfg
        The file that holds it, for errors.

    Raises
    ------
    CheckpointError
        If a file is missing or differs.
    """
    missing = [name for name in stated if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: has no {listed(missing)}, which {cfg.name} names. Copy or save the whole pipeline again."
        )
    other = [name for name, one in stated.items() if _of_file(folder / name) not in (one, None)]
    if other:
        raise CheckpointError(
            f"{folder}: {listed(other)} {'was' if len(other) == 1 else 'were'} not saved together with {cfg.name}: "
            "files of another save, a copy that was cut short, or a change by hand. Copy or save the whole pipeline "
            f"again. To load the files as they are, remove the key files from {cfg}."
        )


def of_config(component: Path) -> OfConfig | None:
    """Return the fingerprints of the ``config.cfg`` beside a component's folder; None if it is not that of a pipeline.

    Parameters
    ----------
    component
        Folder of the component, in that of the pipeline.
    """
    path = component.parent / CONFIG
    if not path.is_file() or not (component.parent / META).is_file():
        return None
    text = _of_file(path)
    section = section_of(component)
    if text is None or section is None:
        return None
    return OfConfig(text=text, section=_of_value(section), sections=sorted(_parsed(path)))


def check_config(component: Path, stated: OfConfig | None, cfg: Path) -> None:
    """Check that the ``config.cfg`` beside a component's folder is the one that was saved with it.

    Changes outside the section of the component are allowed; a file that lacks whole sections is not.

    Parameters
    ----------
    component
        Folder of the component, in that of the pipeline.
    stated
        What ``of_config`` returned when it was saved; None for no check.
    cfg
        The file that holds it, for errors.

    Raises
    ------
    CheckpointError
        If the section of the component differs, or the file is cut short.
    """
    path = component.parent / CONFIG
    if stated is None or not path.is_file() or _of_file(path) in (stated.text, None):
        return
    config = _parsed(path)
    missing = [f"[{name}]" for name in stated.sections if name not in config]
    if missing:
        raise CheckpointError(
            f"{path}: has no {listed(missing)}, so it is cut short. Copy or save the whole pipeline again."
        )
    section = section_of(component)
    if section is None or _of_value(section) != stated.section:
        raise CheckpointError(
            f"{path}: its section [components.{component.name}] was not saved together with {cfg}: a pipeline that was "
            "saved only in part, or a change by hand. Save the pipeline again; give other settings with "
            "spacy.load(..., config=...). To load it as it is, remove the key config from cfg.json."
        )


def section_of(component: Path) -> dict[str, Any] | None:
    """Return the section of a component in the ``config.cfg`` beside its folder, without its factory, if it has one."""
    section = _parsed(component.parent / CONFIG).get("components", {}).get(component.name)
    if section is None:
        return None
    return {option: value for option, value in section.items() if option != "factory"}


def _parsed(path: Path) -> dict[str, Any]:
    try:
        return dict(Config().from_disk(path, interpolate=False))
    except ValueError as error:  # of confection, also for text that is not UTF-8
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: cannot be read ({reason}). Save the pipeline again.") from None


def _of_value(value: Any) -> str:
    return f"{zlib.crc32(json.dumps(value, sort_keys=True).encode()):08x}"


def _of_file(path: Path) -> str | None:
    """Return the checksum of a file; None if secrets in it may have been redacted after saving."""
    checksum = 0
    if path.suffix in _TEXTS:
        content = path.read_bytes().replace(b"\r\n", b"\n")
        may_be_redacted = MARK.encode() in content and path.name not in VOCABULARIES
        return None if may_be_redacted else f"{zlib.crc32(content):08x}"
    with path.open("rb") as file:
        while part := file.read(_AT_ONCE):
            checksum = zlib.crc32(part, checksum)
    return f"{checksum:08x}"
