"""What a component offers to the training loop."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from spacy.language import Language
from spacy.training import Example
from torch import nn

from gliner_pipe.modeling.batch import Drawn


@runtime_checkable
class TrainableByLoop(Protocol):
    """A spaCy component that ``gliner_pipe.train`` can train.

    Calling ``model(batch)`` with what ``draw(...).lay_out(...)`` made gives ``LossTerms``, whose total is a sum; the
    loop divides the sums of all sub-batches and processes of a step by ``denominator`` of their summed counts.
    """

    name: str
    model: nn.Module

    def initialize(self, get_examples: Callable[[], Iterable[Example]], *, nlp: Language) -> None:
        """Load the pretrained weights and learn the labels."""

    def from_disk(self, path: Path) -> object:
        """Take the weights and labels that were saved in a folder."""

    def draw(self, examples: Sequence[Example], rng: random.Random) -> Drawn:
        """Settle what is learned from a batch, before it is laid out in parts; all chance comes from `rng`."""

    def denominator(self, count: float) -> float:
        """What the summed loss of a step is divided by."""
