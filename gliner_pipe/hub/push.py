"""Pushes a pipeline to a model hub, with a model card."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from spacy.language import Language

from gliner_pipe.errors import ConfigError, GlinerPipeError
from gliner_pipe.packaging.card import model_card
from gliner_pipe.packaging.meta import UNSET_VERSION, make_meta, read_config, read_meta, read_scores
from gliner_pipe.packaging.requirements import function_modules, is_spacy, merge, third_party
from gliner_pipe.packaging.source import TRAIN_CONFIG, copy_pipeline
from gliner_pipe.pipeline.load import TRAINING_STATE
from gliner_pipe.util.atomic import replace_file, scratch_directory
from gliner_pipe.util.hub_client import check_hub, hub_error, make_api, make_repo
from gliner_pipe.util.redact_folder import redact_folder

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
#: Last line of a card that a training may replace.
OURS = "<!-- Written by gliner_pipe -->"

logger = logging.getLogger("gliner_pipe.push")

#: Metadata files that this package and spaCy write.
_METADATA = (TRAIN_CONFIG, "config.cfg", "meta.json", "cfg.json", "blocks.json", "config.json")
_TEXT = (".cfg", ".json", ".jsonl", ".md", ".txt", ".csv", ".toml", ".yml", ".yaml", ".py")
_TEXT_LIMIT = 16 * 1024**2


def push_to_hub(
    pipeline: str | Path | Language,
    repo_id: str,
    *,
    private: bool = True,
    message: str = "A spaCy pipeline",
    revision: str | None = None,
    path_in_repo: str | None = None,
) -> str:
    """Push a pipeline to a model hub, with a model card.

    Others, and other machines, load it with ``gliner_pipe.load("user/name")``, and a tagger also with
    ``transformers.pipeline(model="user/name")`` where `transformers` has its layers. The login is HF_TOKEN or that of
    ``hf auth login``. A ``README.md`` in the folder is used as the card; otherwise one is generated from the pipeline's
    labels, scores and training config. Secrets in text files are redacted. Files of an earlier push that are not part
    of the pipeline any more are removed.

    Parameters
    ----------
    pipeline
        Folder of the pipeline, name of an installed one, or the pipeline itself.
    repo_id
        Repository, ``user/name``; created if it does not exist.
    private
        Whether a new repository is private.
    message
        Commit message.
    revision
        Branch; created if it does not exist. The main branch by default.
    path_in_repo
        Folder in the repository; by default the top, from which `from_hub` loads.

    Returns
    -------
    str
        URL of the commit.

    Raises
    ------
    ConfigError
        If there is no pipeline or no login, or the hub refuses the push.
    """
    where = "push_to_hub"
    with staged(pipeline) as folder:
        tagger = path_in_repo is None and add_transformers(folder)  # which loads the top of a repository
        complete(folder, repo_id, tagger)
        check_hub(where)
        api = make_api()
        repo_id = make_repo(api, repo_id, private, revision, where)
        try:
            return upload(api, folder, repo_id, message, revision, path_in_repo)
        except ConfigError:
            raise
        except Exception as error:
            raise hub_error(where, f"could not upload to {repo_id!r}", error) from None


@contextmanager
def staged(pipeline: str | Path | Language, with_state: bool = False) -> Iterator[Path]:
    """Yield a folder with the files to upload; they are hard links, so that the original folder may be replaced.

    Parameters
    ----------
    pipeline
        As in `push_to_hub`.
    with_state
        Whether to include the training state, which only a resumed training needs.
    """
    beside = None if isinstance(pipeline, Language) else Path(pipeline).absolute()
    if beside is not None and beside.is_dir() and os.access(beside.parent, os.W_OK):
        with scratch_directory(beside.with_name("upload")) as scratch:  # on the same filesystem
            yield _fill(pipeline, scratch / "pipeline", with_state)
    else:
        with tempfile.TemporaryDirectory() as name:
            yield _fill(pipeline, Path(name) / "pipeline", with_state)


def _fill(pipeline: str | Path | Language, folder: Path, with_state: bool) -> Path:
    try:
        copy_pipeline(pipeline, folder)
    except ConfigError as error:
        raise ConfigError("push_to_hub", error.found, error.allowed, error.do) from None
    if not with_state:
        shutil.rmtree(folder / TRAINING_STATE, ignore_errors=True)
    return folder


def add_transformers(folder: Path) -> bool:
    """Add the files that `transformers` loads to a staged pipeline with one tagger; return whether this was possible.

    If not, the log says why.
    """
    from gliner_pipe.pipeline.convert import to_transformers
    from gliner_pipe.pipeline.token_classifier.component import TokenTagger

    factories = [item.get("factory") for item in read_config(folder)["components"].values()]
    if factories.count(TokenTagger.factory) != 1:
        return False
    with tempfile.TemporaryDirectory() as name:
        try:
            files = to_transformers(str(folder), Path(name) / "model")
        except (GlinerPipeError, ImportError, OSError, ValueError) as error:
            logger.warning(
                "transformers cannot load the repository, gliner_pipe can: %s", str(error).splitlines()[0]
            )
            return False
        for file in files.iterdir():
            if file.name != CARD:
                (folder / file.name).unlink(missing_ok=True)  # may be a link to a file of the original folder
                shutil.move(file, folder / file.name)
    return True


def complete(folder: Path, repo_id: str | None, transformers: bool = False) -> None:
    """Redact secrets in the metadata of a staged pipeline, and write its model card if there is a repository.

    Parameters
    ----------
    folder
        The staged pipeline.
    repo_id
        Its repository.
    transformers
        Whether the folder also has the files that `transformers` loads.
    """
    redact_folder(folder, _METADATA)
    if repo_id is not None and not (folder / CARD).is_file():
        card = pipeline_card(folder, repo_id, repo_id if transformers else None)
        (folder / CARD).write_text(card, encoding="utf8")


def upload(
    api: HfApi,
    folder: Path,
    repo_id: str,
    message: str,
    revision: str | None = None,
    path_in_repo: str | None = None,
) -> str:
    """Upload a folder in one commit and return the URL; files that the folder no longer has are removed.

    A file that contains the token of the login is an error; other secrets in text files are redacted. At the top of a
    repository, files are removed only inside the pipeline's folders, so that checkpoints beside them are kept.
    """
    _refuse_token(folder)
    redact_folder(folder)
    ours = [f"{item.name}/*" for item in sorted(folder.iterdir()) if item.is_dir()]
    commit = api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        path_in_repo=path_in_repo,
        commit_message=message,
        revision=revision,
        delete_patterns=["*"] if path_in_repo else ours,
    )
    return str(getattr(commit, "commit_url", commit))


def pipeline_card(folder: Path, repo_id: str | None, transformers: str | None = None) -> str:
    """Return the model card of the pipeline in a folder; the names are those of :func:`model_card`."""
    own, config = read_meta(folder), read_config(folder)
    needed = merge(own.get("requirements") or [], third_party(function_modules(config), []))
    meta = make_meta(
        own,
        name=(repo_id or str(transformers)).rpartition("/")[2],
        version=own.get("version") or UNSET_VERSION,
        metadata={},
        scores=read_scores(None, folder),
        requirements=[item for item in needed if not is_spacy(item)],
    )
    trained_with = folder / TRAIN_CONFIG
    text = trained_with.read_text(encoding="utf8") if trained_with.is_file() else None
    return model_card(meta, config, text, "", repo_id, transformers)


def write_card(folder: Path, pipeline: Path) -> None:
    """Write the ``README.md`` of a folder for `transformers`; one that this package did not write is kept."""
    path = folder / CARD
    if path.is_file() and OURS not in path.read_text(encoding="utf8", errors="replace"):
        return
    with replace_file(path) as sibling:
        sibling.write_text(f"{pipeline_card(pipeline, None, folder.as_posix())}\n{OURS}\n", encoding="utf8")


def push_transformers(nlp: Language, pipeline: Path, repo_id: str) -> str:
    """Add the files that `transformers` loads to a repository that holds a tagger; return the URL of the commit.

    Parameters
    ----------
    nlp
        The pipeline with the tagger.
    pipeline
        Its folder, for the model card.
    repo_id
        Repository, ``user/name``.
    """
    from gliner_pipe.pipeline.convert import to_transformers

    with tempfile.TemporaryDirectory() as name:
        files = to_transformers(nlp, Path(name) / "model")
        (files / CARD).write_text(pipeline_card(pipeline, repo_id, repo_id), encoding="utf8")
        return upload(make_api(), files, repo_id, "Files for transformers")


def _refuse_token(folder: Path) -> None:
    """Raise an error if a file contains the token of the login, which gives all rights of its owner."""
    from huggingface_hub import get_token

    token = (get_token() or "").encode()
    for path in folder.rglob("*") if token else ():
        if path.suffix in _TEXT and path.stat().st_size <= _TEXT_LIMIT and token in path.read_bytes():
            raise ConfigError(
                "push_to_hub",
                f"would publish the token of your login, which is in {path.relative_to(folder)}",
                do="Remove it from that file, and revoke it on the hub",
            )
