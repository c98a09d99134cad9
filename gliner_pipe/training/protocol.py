"""The interface that a component implements to be trained, and the components of a pipeline that do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from spacy.language import Language
from spacy.training import Example
from torch import nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.batch import Drawn


@runtime_checkable
class TrainableByLoop(Protocol):
    """A spaCy component that ``gliner_pipe.train`` can train.

    ``model(batch)``, with a batch from ``draw(...).lay_out(...)``, returns ``LossTerms`` whose total is a sum; the
    trainer divides the sums of all sub-batches and processes of a step by ``denominator`` of their summed counts.
    """

    name: str
    model: nn.Module

    def initialize(self, get_examples: Callable[[], Iterable[Example]], *, nlp: Language) -> None:
        """Load the pretrained weights and read the labels from the examples."""

    def from_disk(self, path: Path) -> object:
        """Load the weights and labels from a folder."""

    def draw(self, examples: Sequence[Example], rng: random.Random) -> Drawn:
        """Sample the labels of a batch, before it is split into sub-batches; `rng` is the only source of chance."""

    def denominator(self, count: float) -> float:
        """Return the divisor of the summed loss of a step, given the summed counts of its batches."""


def trainable_components(nlp: Language) -> dict[str, TrainableByLoop]:
    """Return the enabled components that can be trained, by name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    found = {name: pipe for name, pipe in nlp.pipeline if isinstance(pipe, TrainableByLoop)}
    if not found:
        names = ", ".join(map(repr, nlp.pipe_names)) or "no component at all"
        raise ConfigError(
            "train.nlp",
            f"has nothing to train: it has {names}",
            'a pipeline with a component of the factory "gliner" or "token_classifier"',
            "Add one of these, or train the other components with spacy train",
        )
    return found
