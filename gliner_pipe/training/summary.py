"""The last lines of a training: where the models are, how good they are, and what they find."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import spacy
from rich.console import Console
from rich.text import Text

from gliner_pipe.metrics.getters import prediction_getter
from gliner_pipe.prediction.rendering import entities_of, to_terminal


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
