"""``train_config.cfg``: what a model was trained with, written beside it so that it can be trained again."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from confit import Config

from gliner_pipe.consent import unstated
from gliner_pipe.secrets import redacted_config, tell_redacted

#: Packages whose versions decide what comes out of a training.
PACKAGES = ("gliner_pipe", "torch", "transformers", "tokenizers", "accelerate", "spacy", "confit", "numpy")

#: Name of the file.
FILE_NAME = "train_config.cfg"


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def config_text(config: Config | None, options: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """Return the text of ``train_config.cfg``; secrets in it are redacted, and which is logged once.

    Parameters
    ----------
    config
        The config with the overrides of the command line in it and its references unresolved, from a training
        that was started by the command line.
    options
        Arguments of a training that was started from Python: those that can be written are.
    versions
        Written as comments at the head.

    Returns
    -------
    str
        A config file; started by the command line, ``--config`` trains the same model from it. Consent to run code of
        models is not in it: whoever trains from it gives theirs.
    """
    head = "".join(f"# {name} {number}\n" for name, number in versions.items())
    if config is not None:
        return _redacted(f"{head}\n{unstated(config).to_cfg_str()}")
    written: dict[str, Any] = {}
    missing = []
    for name, value in options.items():
        try:
            written[name] = Config.serialize({name: value})[name]
        except TypeError:  # an object that no config made
            missing.append(name)
    note = f"# Objects made in Python, not written here: {', '.join(missing)}\n" if missing else ""
    return _redacted(f"{head}{note}\n{unstated(Config({'train': Config(written)})).to_cfg_str()}")


def _redacted(text: str) -> str:
    found: list[str] = []
    text = redacted_config(text, found)
    if found:
        tell_redacted(FILE_NAME, found)
    return text
