"""Loads a pipeline from a folder, a package or a model hub, or makes one from a checkpoint of GLiNER or GLiNER2."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language

from gliner_pipe.errors import ConfigError, unreadable
from gliner_pipe.pipeline.labels import check_threshold
from gliner_pipe.pipeline.serialize import unchanged
from gliner_pipe.util.consent import trusting
from gliner_pipe.util.console import console_note
from gliner_pipe.util.hub_client import hub_error, make_api

#: Folder inside a training checkpoint with the state needed to resume.
TRAINING_STATE = "training_state"
PIPELINE = "meta.json"
#: Names of the two models in the folder of a training.
LAST_MODEL, BEST_MODEL = "model-last", "model-best"
CHECKPOINT = "gliner_config.json"
#: Configuration of a GLiNER2 checkpoint; other models have a file of this name, too.
GLINER2 = "config.json"

#: Files that a training may have pushed next to the pipeline.
_BESIDE = [f"{TRAINING_STATE}/*", "last-checkpoint/*", "step-*/*", "runs/*"]
_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+", re.ASCII)


def load(
    name: str | Path,
    *,
    revision: str | None = None,
    labels: Sequence[Any] | None = None,
    relations: Sequence[Any] | None = None,
    classes: Any = None,
    records: Any = None,
    threshold: float | None = None,
    lang: str = "en",
    trust_remote_code: bool = False,
    **options: Any,
) -> Language:
    """Load a pipeline, or make one from a checkpoint of GLiNER or GLiNER2.

    Parameters
    ----------
    name
        Folder of a pipeline, of a training or of a checkpoint, name of an installed package, or hub id
        ``user/name`` of a pipeline or a checkpoint. Folders and packages take precedence. Of a training the best model
        is loaded, or the last one if there is no best.
    revision
        Branch, tag or commit on the hub.
    labels, relations, classes, records, threshold
        Settings of the pipeline's ``gliner`` component to change.
    lang
        Language of a pipeline made from a GLiNER checkpoint.
    trust_remote_code
        Consent to run Python code that comes with the models of the pipeline. Read that code first. A consent stored in
        a saved pipeline is ignored.
    options
        Other options of ``spacy.load``, e.g. ``exclude=["tagger"]`` or ``config={...}``.

    Returns
    -------
    Language
        The pipeline.

    Raises
    ------
    ConfigError
        If there is no such pipeline, or the value of a setting is not allowed.
    OSError
        If `name` does not exist here and is not a hub id.

    Examples
    --------
    >>> nlp = load("urchade/gliner_small-v2.1", labels=["person", "city"])  # doctest: +SKIP
    """
    settings = {
        "labels": labels,
        "relations": relations,
        "classes": classes,
        "records": records,
        "threshold": threshold,
    }
    folder = Path(name)
    # "artifacts/model-lost" is a path if the folder "artifacts" exists: no request to the hub
    is_hub_id = _HUB_ID.fullmatch(str(name)) and not folder.exists() and not folder.parent.is_dir()
    with trusting(trust_remote_code):
        if folder.is_dir() and not (folder / PIPELINE).is_file() and _is_checkpoint(folder):
            return _with_settings(_from_checkpoint(str(name), lang), settings)
        if is_hub_id and not spacy.util.is_package(str(name)):
            return _with_settings(from_hub(str(name), revision=revision, lang=lang, **options), settings)
        return _with_settings(load_saved(name, **options), settings)


def load_saved(name: str | Path, **options: Any) -> Language:
    """Load a pipeline from a folder, or an installed one; of a training's folder its best model, or else its last one.

    If another process saves a pipeline in the same place meanwhile, the old or the new one is returned.

    Parameters
    ----------
    name
        Folder, or name of an installed package.
    options
        Options of ``spacy.load``.

    Raises
    ------
    CheckpointError
        If the folder holds no complete pipeline.
    OSError
        If there is no such package or folder, or the folder holds no pipeline.
    """
    folder = model_in(Path(name))
    if not (folder / PIPELINE).is_file():
        return spacy.load(name, **options)  # an installed package; other folders are errors of spaCy
    with unreadable(folder):  # damaged files, unknown factories, blocks that do not fit
        return unchanged(folder, lambda: spacy.load(folder, **options))


def is_pipeline(folder: Path) -> bool:
    """Return whether a folder is a saved pipeline."""
    return all((folder / name).is_file() for name in (PIPELINE, "config.cfg"))


def model_in(folder: Path) -> Path:
    """Return the best model of a training's folder, else its last one; other folders are returned as they are."""
    if folder.is_dir() and not (folder / PIPELINE).is_file():
        for name in (BEST_MODEL, LAST_MODEL):
            if is_pipeline(folder / name):
                console_note(f"note: {folder} is the folder of a training; its {name} is used")
                return folder / name
    return folder


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

    Use `load` if the name may also be a folder. Earlier downloads come from the hub's cache; with HF_HUB_OFFLINE=1
    there are no requests at all.

    Parameters
    ----------
    repo_id
        Hub id, ``user/name``.
    cache_dir
        Folder for downloads; the hub's own cache by default.
    local_files_only
        Whether to use only the cache.
    revision, lang, trust_remote_code, options
        As for `load`.

    Returns
    -------
    Language
        The pipeline.

    Raises
    ------
    ConfigError
        If the repository cannot be downloaded, or is neither.
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
        from gliner_pipe.checkpoints.gliner_read import FILES

        patterns = {"allow_patterns": list(FILES)}
    try:
        folder = api.snapshot_download(repo_id, **how, **patterns)
    except Exception as error:
        raise hub_error("pipeline", f"{repo_id!r} cannot be downloaded from the hub", error) from None
    with trusting(trust_remote_code):
        if marker == CHECKPOINT:
            return _from_checkpoint(folder, lang)
        return spacy.load(folder, **options)


def _marker(api: Any, repo_id: str, how: dict[str, Any]) -> str:
    """Return the file that identifies a repository as a pipeline or as a checkpoint of GLiNER or GLiNER2."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    failed: Exception | None = None
    for name in (PIPELINE, CHECKPOINT, GLINER2):
        try:
            file = api.hf_hub_download(repo_id, name, **how)
        except LocalEntryNotFoundError as error:  # the hub cannot be reached: do not try again
            failed = failed or error
            how = {**how, "local_files_only": True}
        except EntryNotFoundError:
            continue
        except Exception as error:
            failed = error
            break
        else:
            if name != GLINER2:
                return name
            if _is_checkpoint(Path(file).parent):
                return CHECKPOINT
    if failed is not None:
        what = f"found {repo_id!r}: no folder here, no installed package, and it cannot be downloaded from the hub"
        raise hub_error("pipeline", what, failed) from None
    raise ConfigError(
        "pipeline",
        f"{repo_id!r} on the hub holds neither {PIPELINE} nor {CHECKPOINT}, nor the {GLINER2} of GLiNER2",
        "a spaCy pipeline, or a checkpoint of GLiNER or GLiNER2",
    )


def _is_checkpoint(folder: Path) -> bool:
    from gliner_pipe.checkpoints.gliner_read import config_file

    return config_file(folder) is not None


def _from_checkpoint(source: str, lang: str) -> Language:
    from gliner_pipe.pipeline.convert import from_gliner

    return from_gliner(source, lang=lang)


def _with_settings(nlp: Language, settings: dict[str, Any]) -> Language:
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
    if "threshold" in given:
        check_threshold(given["threshold"], "threshold")
    for name, value in given.items():
        setattr(components[0], name, value)
    return nlp
