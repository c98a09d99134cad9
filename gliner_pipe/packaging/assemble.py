"""Puts the source tree of a package together: pipeline, code, metadata, model card, build settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spacy.language import Language

from gliner_pipe.errors import ConfigError
from gliner_pipe.packaging.card import model_card
from gliner_pipe.packaging.code import copy_code, find_code, import_code, modules_to_import
from gliner_pipe.packaging.meta import make_meta, read_config, read_meta, read_scores, spacy_range
from gliner_pipe.packaging.requirements import (
    function_modules,
    is_spacy,
    merge,
    read_requirements,
    third_party,
)
from gliner_pipe.packaging.source import copy_pipeline, remove_excluded
from gliner_pipe.packaging.tree import init_text, pyproject_text
from gliner_pipe.secrets import redact_folder
from gliner_pipe.training.run_config import FILE_NAME


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
    """Write the source tree into the new folder `sources`; the options are those of `gliner_pipe.package`.

    Secrets in its text files are redacted.
    """
    module = sources / name
    artifacts = module / artifacts_name
    module.mkdir(parents=True)
    origin = copy_pipeline(pipeline, artifacts)
    own, config = read_meta(artifacts), read_config(artifacts)

    paths = find_code(code, root_dir)
    if name in [path.stem for path in paths]:
        raise ConfigError(
            "package.name", f"is {name!r}, as is the code's", "two names", "Give another --name"
        )
    import_code(paths)
    functions = function_modules(config)
    needed = merge(
        [f"spacy{spacy_range(own)}"],
        own.get("requirements") or [],
        third_party(functions, [path.stem for path in paths]),
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
    card = model_card(filled, config, trained_with, f"{name}/{artifacts_name}")
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


def _training_config(folders: Sequence[Path]) -> str | None:
    """Read the config that a training run wrote with or beside the pipeline."""
    files = [folder / FILE_NAME for folder in folders if (folder / FILE_NAME).is_file()]
    return files[0].read_text(encoding="utf8") if files else None
