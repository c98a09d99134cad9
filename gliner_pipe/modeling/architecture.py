"""Base class of the built-in architectures: state, saving and loading."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, TypeVar

import torch

from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.encoders.base import Encoder
from gliner_pipe.modeling.merging import merged
from gliner_pipe.modeling.weights import check_weights, fill_weights, write_weights

_Self = TypeVar("_Self", bound="Architecture")


class Architecture(Block):
    """A model composed of blocks, of which one is an encoder.

    Pure PyTorch: it can be trained, exported and timed without spaCy.

    Parameters
    ----------
    encoder
        Encodes words and, in GLiNER, labels.
    """

    family = "architectures"

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        #: Configuration of the blocks if the pipeline's config does not hold it (a checkpoint given by name).
        self.blocks: dict[str, Any] | None = None
        #: Name of the word splitter that the weights were trained with, if not spaCy's tokens.
        self.word_splitter: str | None = None
        self._has_weights = False

    @property
    def is_built(self) -> bool:
        """Whether the model has weights."""
        return self._has_weights

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def materialize(self: _Self) -> _Self:
        """Return the model itself; an architecture that stands for a checkpoint returns that checkpoint's model."""
        return self

    def save(self, path: Path) -> None:
        """Save weights, and everything else that ``load`` needs, to the folder `path`.

        Adapters are saved as their ``save`` option says; the model itself is not changed.
        """
        model = merged(self, all_of_them=False)
        path.mkdir(parents=True, exist_ok=True)
        model.save_assets(path)
        write_weights(model, path)

    def save_assets(self, path: Path) -> None:
        """Save configuration and tokenizer of the backbone to the folder `path`."""
        self.encoder.save_assets(path / "encoder")

    def load(self, path: Path) -> None:
        """Load all blocks and weights from a folder that ``save`` wrote; no network access.

        Raises
        ------
        CheckpointError
            If the weights do not match the blocks, with the names that differ.
        """
        check_weights(path)
        self.load_assets(path)
        fill_weights(self, path)

    @abstractmethod
    def load_assets(self, path: Path) -> None:
        """Create all blocks from what ``save_assets`` wrote, with weights still to be loaded."""

    def extra_repr(self) -> str:
        """Return "not built" if there are no weights."""
        return "" if self.is_built else "not built"
