"""The record of a training: ``train_config.cfg`` beside the models, and the final summary on the console."""

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

from gliner_pipe.evaluation.report import score_text
from gliner_pipe.metrics.alignment import prediction_getter
from gliner_pipe.packaging.source import TRAIN_CONFIG
from gliner_pipe.pipeline.records import entities_of
from gliner_pipe.prediction.rendering import to_terminal
from gliner_pipe.training.validation import VAL_LOSS
from gliner_pipe.util.consent import unstated
from gliner_pipe.util.console import show
from gliner_pipe.util.secrets import redacted_config, tell_redacted

#: Packages whose versions can change the result of a training.
PACKAGES = ("gliner_pipe", "torch", "transformers", "tokenizers", "accelerate", "spacy", "confit", "numpy")


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of `PACKAGES`."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def config_text(config: Config | None, options: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """Return the text of ``train_config.cfg``; secrets are redacted, and their names are logged once.

    Parameters
    ----------
    config
        The unresolved config of the command line, with its overrides; None for a training from Python.
    options
        Options of a training from Python; those that a config file can hold are written.
    versions
        Written as comments at the top.

    Returns
    -------
    str
        A config file; ``--config`` trains the same model from that of a command line. It does not contain the consent
        to run code of models.
    """
    head = "".join(f"# {name} {number}\n" for name, number in versions.items())
    if config is not None:
        return _redacted(f"{head}\n{unstated(config).to_cfg_str()}")
    written: dict[str, Any] = {}
    missing = []
    for name, value in options.items():
        try:
            written[name] = Config.serialize({name: value})[name]
        except TypeError:  # an object without a config
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
    reason: str,
    last: Path,
    best: Path | None,
    metric: str,
    score: float | None,
    step: int,
    sample_texts: Sequence[str],
) -> None:
    """Print why a training ended, its best step and the output paths, and the entities of some texts.

    Parameters
    ----------
    console
        Where to print.
    reason
        Why the training ended.
    last
        Folder of the last model.
    best
        Folder of the best model, if there is one.
    metric, score, step
        Name of the best metric, its best value, and the step of that value.
    sample_texts
        Texts whose entities are printed, as found by the best (else the last) model, loaded from disk.
    """
    _line(console, reason)
    _line(console, f"last model: {last}")
    if best is not None:
        _line(console, f"best model: {best} ({metric} {score_text(metric, score)} at step {step})")
    if best is not None and metric != VAL_LOSS and (score is None or score <= 0):
        _line(console, _no_success(metric, score))
    if not sample_texts:
        return
    folder = last if best is None else best
    nlp = spacy.load(folder)
    _line(console, f"entities found by the model in {folder}:")
    styles: dict[str, str] = {}
    for doc in nlp.pipe(sample_texts):
        shown = to_terminal(doc.text, entities_of(doc, prediction_getter(nlp)), styles)
        show(Text("  ") + shown, console)


def _no_success(metric: str, score: float | None) -> str:
    if score is None:
        return (
            f"warning: {metric} was undefined in every validation: nothing to score. Check [train.val_data]"
        )
    return (
        f"warning: {metric} was 0 in every validation: no prediction was correct. Train longer, raise the learning "
        "rates, or check that the labels of the component are those of the data"
    )


def _line(console: Console, text: str) -> None:
    show(Text(text), console)
