"""A model that is named, not composed: a checkpoint that says itself which blocks it needs."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from confit import Config

from gliner_pipe import consent
from gliner_pipe.adapters.base import Adapter
from gliner_pipe.backbones._holder import EncoderHolder
from gliner_pipe.blocks import Block
from gliner_pipe.errors import ConfigError
from gliner_pipe.losses.base import Loss
from gliner_pipe.model.gliner import GLiNER
from gliner_pipe.registry import registry


class Named(Block):
    """Stands for a model that brings its own blocks, until it is opened."""

    family = "architectures"

    @abstractmethod
    def materialize(self) -> Any:
        """Read the model and return the blocks with its weights."""

    @abstractmethod
    def restore(self, blocks: dict[str, Any]) -> Any:
        """Compose the blocks of a saved pipeline that came from this model; weights are still to be filled in."""


@registry.architectures.register("gliner_pipe.Pretrained.v1")
class Pretrained(Named):
    """A GLiNER checkpoint: a folder, an installed package that holds one, or a hub id.

    ``model = "urchade/gliner_small-v2.1"`` in the component's section is the short form. The checkpoint is opened on
    first use, never by ``nlp.add_pipe``; once saved, the pipeline does not need it any more.

    Parameters
    ----------
    name
        Which checkpoint.
    adapter
        New weights that learn in place of the text encoder's own; the heads learn as ever.
    label_adapter
        The same for the label encoder of a bi-encoder.
    loss
        The training signal, in place of the focal loss that a checkpoint brings.
    relation_loss
        That of pairs and relations; `loss` when not given.
    """

    family = "architectures"
    #: What the caller said when a pipeline was loaded that has no weights yet.
    trust_remote_code = False

    def __init__(
        self,
        name: str,
        adapter: Adapter | None = None,
        label_adapter: Adapter | None = None,
        loss: Loss | None = None,
        relation_loss: Loss | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.loss = loss
        self.relation_loss = relation_loss
        self.adapter = adapter
        self.label_adapter = label_adapter

    def materialize(self) -> GLiNER:
        """Read the checkpoint and return the blocks with its weights, and with new adapters."""
        from gliner_pipe.checkpoints.gliner import read_checkpoint

        with consent.trusting(self.trust_remote_code):
            model = read_checkpoint(self.name)
        tokens = getattr(model.encoder, "new_tokens", ())
        for holder, adapter in self._adapted(model):
            holder.adapt(adapter, tokens if holder.part == "encoder.backbone" else ())
        return self._taught(model).eval()

    def restore(self, blocks: dict[str, Any]) -> GLiNER:
        """Compose the blocks of a saved pipeline that came from this checkpoint."""
        model = self.from_blocks(blocks)
        for holder, adapter in self._adapted(model):
            holder.adapter = adapter
        return self._taught(model)

    def _taught(self, model: GLiNER) -> GLiNER:
        """Give the model the losses that are asked for."""
        model.loss = self.loss or model.loss
        model.relation_loss = self.relation_loss or self.loss or model.relation_loss
        return model

    def _adapted(self, model: GLiNER) -> list[tuple[EncoderHolder, Adapter]]:
        """Set where the encoders came from, and return those that are to have an adapter."""
        asked = {"encoder.backbone": self.adapter, "encoder.label_encoder": self.label_adapter}
        found = []
        for holder in (module for module in model.modules() if isinstance(module, EncoderHolder)):
            holder.checkpoint = self.name
            name = "adapter" if holder.part == "encoder.backbone" else "label_adapter"
            holder.adapter_section = f"components.*.model.{name}"
            adapter = asked.pop(holder.part, None)
            if adapter is not None:
                found.append((holder, adapter))
        if asked.get("encoder.label_encoder") is not None:
            raise ConfigError(
                "components.*.model.label_adapter",
                f"is set, but the checkpoint {self.name!r} has no label encoder",
                "adapter",
            )
        return found

    @staticmethod
    def from_blocks(blocks: dict[str, Any]) -> GLiNER:
        """Compose the blocks that a checkpoint asked for when it was read; weights are still to be filled in."""
        model: GLiNER = Config({"model": blocks}).resolve(registry=registry)["model"]
        model.blocks = blocks
        return model
