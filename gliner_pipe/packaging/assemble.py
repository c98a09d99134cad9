"""Puts the source tree of a package together: pipeline, code, metadata, model card, build settings."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spacy.language import Language

from gliner_pipe.errors import ConfigError
from gliner_pipe.packaging.card import model_card
from gliner_pipe.packaging.meta import make_meta, read_config, read_meta, read_scores
from gliner_pipe.packaging.requirements import function_modules, merge, read_requirements, third_party
from gliner_pipe.packaging.source import copy_pipeline, remove_excluded
from gliner_pipe.packaging.tree import copy_code, init_text, pyproject_text


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
) -> None:
    """Write the source tree into the new folder `sources`; the options are those of ``gliner_pipe.package``."""
    artifacts = sources / name / artifacts_name
    artifacts.parent.mkdir(parents=True)
    copy_pipeline(pipeline, artifacts)
    own, config = read_meta(artifacts), read_config(artifacts)
    files = copy_code(code, root_dir, sources, taken=name)
    with _importable(sources):
        found = _code_modules(files, function_modules(config, _imported(files)))
    filled = make_meta(
        own,
        name=name,
        version=version,
        metadata=metadata,
        scores=read_scores(scores, artifacts),
        requirements=merge(
            own.get("requirements") or [], third_party(modules, tops), read_requirements(requirements)
        ),
    )
