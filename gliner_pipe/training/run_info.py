"""What a training records about itself: ``train_config.cfg`` beside the model, and the closing summary."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import spacy
from confit import Config
from rich.console import Console
from rich.text import Text

from gliner_pipe.metrics.alignment import prediction_getter
from gliner_pipe.packaging.source import TRAIN_CONFIG
from gliner_pipe.prediction.rendering import entities_of, to_terminal
from gliner_pipe.util.consent import unstated
from gliner_pipe.util.secrets import redacted_config, tell_redacted

#: Packages whose versions decide what comes out of a training.
PACKAGES = ("gliner_pipe", "torch", "transformers", "tokenizers", "accelerate", "spacy", "confit", "numpy")


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
        tell_redacted(TRAIN_CONFIG, found)
    return text


def print_summary(
    console: Console,
    last: Path,
    best: Path | None,
    metric: str,
    score: float | None,
    step: int,
    sample_texts: Sequence[str],
) -> None:
    """Say what a training has left on disk, and try it.

    Parameters
    ----------
    console
        Where to print.
    last
        Folder of the last model.
    best
        Folder of the best model, if there is one.
    metric, score, step
        Which score is the best metric, its best value, and the step it was reached at.
    sample_texts
        Texts to find entities in, with the best model (else the last) as loaded back from disk.
    """
    _line(console, f"last model: {last}")
    if best is not None:
        value = "nothing to measure" if score is None or score == float("-inf") else f"{score:.4f}"
        _line(console, f"best model: {best} ({metric} {value} at step {step})")
    if best is not None and score is not None and score <= 0:
        _line(console, _nothing_found(metric, score))
    if not sample_texts:
        return
    folder = last if best is None else best
    nlp = spacy.load(folder)
    _line(console, f"found with the model loaded from {folder}:")
    styles: dict[str, str] = {}
    for doc in nlp.pipe(sample_texts):
        shown = to_terminal(doc.text, entities_of(doc, prediction_getter(nlp)), styles)
        console.print(Text("  ") + shown, soft_wrap=True)


def _nothing_found(metric: str, score: float) -> str:
    if score == float("-inf"):
        return (
            f"warning: no validation had anything to measure: {metric} has no value. Check [train.val_data]"
        )
    return (
        f"warning: no validation found anything right: {metric} was never above 0. Train longer, raise the learning "
        "rates, or check that the labels of the component are those of the data"
    )


def _line(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
