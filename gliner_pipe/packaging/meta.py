"""The package's ``meta.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import spacy
from confection import Config
from spacy.util import get_minor_version_range, load_config

from gliner_pipe.errors import ConfigError, DataError

#: Versions and names that spaCy gives to a pipeline whose author gave none.
UNSET_VERSION = "0.0.0"
UNSET_NAMES = ("", "pipeline")


def read_meta(folder: Path) -> dict[str, Any]:
    """Read the ``meta.json`` of a pipeline's folder."""
    meta = _read_object(folder / "meta.json")
    if not meta.get("lang"):
        raise DataError(f"{folder / 'meta.json'}:", "has no lang", do="Save the pipeline with nlp.to_disk")
    return meta


def read_config(folder: Path) -> Config:
    """Read the ``config.cfg`` of a pipeline's folder, interpolated."""
    try:
        config = load_config(folder / "config.cfg").interpolate()
    except ValueError as error:
        raise ConfigError("package.pipeline", f"has a config.cfg that cannot be read: {error}") from error
    if "nlp" not in config or "components" not in config:
        raise ConfigError(
            "package.pipeline",
            "has a config.cfg without [nlp] or [components]",
            "the config.cfg that nlp.to_disk writes",
            "Give the pipeline's folder, not a training config",
        )
    return config


def read_scores(file: Path | None, folder: Path) -> dict[str, Any] | None:
    """Read scores from `file`, else from the pipeline's ``scores.json``; None where there is neither."""
    if file is not None:
        return _read_object(file)
    beside = folder / "scores.json"
    return _read_object(beside) if beside.is_file() else None


def make_meta(
    meta: Mapping[str, Any],
    *,
    name: str,
    version: str,
    metadata: Mapping[str, Any],
    scores: Mapping[str, Any] | None,
    requirements: Sequence[str],
) -> dict[str, Any]:
    """Return the package's ``meta.json``.

    Parameters
    ----------
    meta
        The pipeline's ``meta.json``: language, labels and components are kept.
    name
        Name of the package.
    version
        Version of the package.
    metadata
        Description, author, licence and so on; missing fields are kept.
    scores
        Replaces the pipeline's ``performance``.
    requirements
        Requirements other than spaCy.

    Returns
    -------
    dict
        The content of ``meta.json``.
    """
    filled = {
        **meta,
        "name": name,
        "version": version,
        **metadata,
        "spacy_version": spacy_range(meta),
        "requirements": list(requirements),
        "performance": dict(scores if scores is not None else meta.get("performance") or {}),
        "sources": metadata.get("sources") or meta.get("sources") or [],
    }
    for key in ("description", "author", "email", "url", "license"):
        filled[key] = str(filled.get(key) or "")
    return filled


def spacy_range(meta: Mapping[str, Any]) -> str:
    """Return the versions of spaCy that the pipeline runs with, e.g. ``>=3.8.7,<3.9.0``."""
    return str(meta.get("spacy_version") or get_minor_version_range(spacy.__version__))


def _read_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf8"))
    except ValueError as error:
        raise DataError(f"{file}:", f"is not valid JSON: {error}", "a JSON object") from error
    if not isinstance(value, dict):
        raise DataError(f"{file}:", f"holds a {type(value).__name__}", "a JSON object")
    return value
