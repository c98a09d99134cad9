"""A model that is named, not composed: a checkpoint that says itself which blocks it needs."""

from __future__ import annotations

from typing import Any

from confit import Config

from gliner_pipe.blocks import Block
from gliner_pipe.model.gliner import GLiNER
from gliner_pipe.registry import registry


@registry.architectures.register("gliner_pipe.Pretrained.v1")
class Pretrained(Block):
    """A GLiNER checkpoint: a folder, an installed package that holds one, or a hub id.

    ``model = "urchade/gliner_small-v2.1"`` in the component's section is the short form. The checkpoint is opened on
    first use, never by ``nlp.add_pipe``; once saved, the pipeline does not need it any more.

    Parameters
    ----------
    name
        Which checkpoint.
    """

    family = "architectures"

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def materialize(self) -> GLiNER:
        """Read the checkpoint and return the blocks with its weights."""
        from gliner_pipe.checkpoints.gliner import read_checkpoint

        return read_checkpoint(self.name)

    @staticmethod
    def from_blocks(blocks: dict[str, Any]) -> GLiNER:
        """Compose the blocks that a checkpoint asked for when it was read; weights are still to be filled in."""
        model: GLiNER = Config({"model": blocks}).resolve(registry=registry)["model"]
        model.blocks = blocks
        return model
