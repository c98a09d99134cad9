"""Pipelines by any name: a folder, an installed package, a hub id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language

from gliner_pipe.errors import ConfigError
from gliner_pipe.util.consent import trusting
from gliner_pipe.util.hub_client import hub_error, make_api

#: Folder inside a checkpoint of a training with what resuming needs.
TRAINING_STATE = "training_state"
PIPELINE = "meta.json"
CHECKPOINT = "gliner_config.json"

#: Files of a GLiNER checkpoint that are needed to load it.
_CHECKPOINT_FILES = ["*.json", "*.txt", "*.model", "*_tokenizer/*", "model.safetensors", "pytorch_model.bin"]
#: What a training may have pushed beside the pipeline.
_BESIDE = [f"{TRAINING_STATE}/*", "last-checkpoint/*", "step-*/*", "runs/*"]
_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+", re.ASCII)


def load(
    name: str | Path,
    *,
    revision: str | None = None,
    labels: Sequence[Any] | None = None,
    relations: Sequence[Any] | None = None,
    threshold: float | None = None,
    lang: str = "en",
    trust_remote_code: bool = False,
    **options: Any,
) -> Language:
    """Load a pipeline, or make one of a GLiNER checkpoint.

    Parameters
    ----------
    name
        Folder of a pipeline or of a GLiNER checkpoint, name of an installed package, or hub id ``user/name``
        of either. A folder and a package come first.
    revision
        Branch, tag or commit on the hub.
    labels, relations, threshold
        Settings of the pipeline's ``gliner`` component to change.
    lang
        Language of a pipeline that is made of a GLiNER checkpoint.
    trust_remote_code
        Consent to run Python code that comes with the models of the pipeline. Read that code first. What a saved
        pipeline says about it is not read.
    options
        Other options of ``spacy.load``, e.g. ``exclude=["tagger"]`` or ``config={...}``.

    Returns
    -------
    Language
        The pipeline.

    Raises
    ------
    ConfigError
        If there is none, or a setting cannot be.
    OSError
        If `name` is neither here nor can be a hub id.

    Examples
    --------
    >>> nlp = load("urchade/gliner_small-v2.1", labels=["person", "city"])  # doctest: +SKIP
    """
    settings = {"labels": labels, "relations": relations, "threshold": threshold}
    folder = Path(name)
    # "artifacts/model-lost" is a path where there is a folder "artifacts": the hub need not hear of it
    is_hub_id = _HUB_ID.fullmatch(str(name)) and not folder.exists() and not folder.parent.is_dir()
    with trusting(trust_remote_code):
        if folder.is_dir() and (folder / CHECKPOINT).is_file() and not (folder / PIPELINE).is_file():
            return _settled(_from_checkpoint(str(name), lang), settings)
        if is_hub_id and not spacy.util.is_package(str(name)):
            return _settled(from_hub(str(name), revision=revision, lang=lang, **options), settings)
        return _settled(spacy.load(name, **options), settings)


def from_hub(
    repo_id: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    lang: str = "en",
    trust_remote_code: bool = False,
    **options: Any,
) -> Language:
    """Load a pipeline, or a GLiNER checkpoint, from a model hub.

    Use `load` where the name may be a folder too. What was downloaded once is taken from the hub's cache;
    HF_HUB_OFFLINE=1 asks for nothing else.

    Parameters
    ----------
    repo_id
        Hub id, ``user/name``.
    revision
        Branch, tag or commit.
    cache_dir
        Where downloads are kept; the hub's own cache by default.
    local_files_only
        Whether to take only what is in the cache.
    lang
        Language of a pipeline that is made of a GLiNER checkpoint.
    trust_remote_code
        As for `load`.
    options
        Other options of ``spacy.load``, e.g. ``exclude=["tagger"]``.

    Returns
    -------
    Language
        The pipeline.

    Raises
    ------
    ConfigError
        If the repository cannot be had, or holds neither.
    """
    api = make_api()
    how: dict[str, Any] = {
        "revision": revision,
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
    }
    marker = _marker(api, repo_id, how)
    patterns: dict[str, Any] = {"ignore_patterns": _BESIDE}
    if marker == CHECKPOINT:
        patterns = {"allow_patterns": _CHECKPOINT_FILES}
    try:
        folder = api.snapshot_download(repo_id, **how, **patterns)
    except Exception as error:
        raise hub_error("pipeline", f"{repo_id!r} cannot be had from the hub", error) from None
    with trusting(trust_remote_code):
        if marker == CHECKPOINT:
            return _from_checkpoint(folder, lang)
        return spacy.load(folder, **options)


def _marker(api: Any, repo_id: str, how: dict[str, Any]) -> str:
    """Which of the two a repository is: the file is fetched that tells."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    failed: Exception | None = None
    for name in (PIPELINE, CHECKPOINT):
        try:
            api.hf_hub_download(repo_id, name, **how)
        except LocalEntryNotFoundError as error:  # the hub was not reached: once is enough
            failed = failed or error
            how = {**how, "local_files_only": True}
        except EntryNotFoundError:
            continue
        except Exception as error:
            failed = error
            break
        else:
            return name
    if failed is not None:
        what = f"found {repo_id!r}: no folder here, no installed package, and it cannot be had from the hub"
        raise hub_error("pipeline", what, failed) from None
    raise ConfigError(
        "pipeline",
        f"{repo_id!r} on the hub holds neither {PIPELINE} nor {CHECKPOINT}",
        "a spaCy pipeline or a GLiNER checkpoint",
    )


def _from_checkpoint(source: str, lang: str) -> Language:
    from gliner_pipe.pipeline.convert import from_gliner

    return from_gliner(source, lang=lang)


def _settled(nlp: Language, settings: dict[str, Any]) -> Language:
    from gliner_pipe.pipeline.overrides import gliner_components

    given = {name: value for name, value in settings.items() if value is not None}
    if not given:
        return nlp
    components = gliner_components(nlp)
    if len(components) != 1:
        raise ConfigError(
            next(iter(given)),
            f"is set for a pipeline with {len(components)} gliner components ({', '.join(nlp.pipe_names)})",
            "a pipeline with one",
        )
    threshold = given.get("threshold")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError("threshold", f"is {threshold}", "a number from 0 to 1")
    for name, value in given.items():
        setattr(components[0], name, value)
    return nlp
