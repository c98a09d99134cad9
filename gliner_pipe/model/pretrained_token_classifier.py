"""A tagger that is named, not composed: a token classification model of Hugging Face."""

from __future__ import annotations

from typing import Any, Literal

from confit import Config

from gliner_pipe.adapters.base import Adapter
from gliner_pipe.backbones._holder import EncoderHolder
from gliner_pipe.decoders.tags_base import Scheme
from gliner_pipe.model.pretrained import Named
from gliner_pipe.model.token_classifier import TokenClassifier
from gliner_pipe.registry import registry


@registry.architectures.register("gliner_pipe.PretrainedTokenClassifier.v1")
class PretrainedTokenClassifier(Named):
    """A model of `transformers` for token classification: a folder, an installed package that holds one, or a hub id.

    ``model = "dslim/bert-base-NER"`` in the component's section is the short form. The model is opened on first use,
    never by ``nlp.add_pipe``; once saved, the pipeline does not need it any more.

    Parameters
    ----------
    name
        Which model.
    tag_names
        The tags in the order of the model's outputs, or by their numbers, where its own configuration does not tell
        (``LABEL_0``).
    labels
        ``checkpoint``: its labels are those of the component, unless it names others itself. ``data``: the training
        decides; tags that model and data have in common keep their weights, the others begin anew.
    scheme
        How tags spell entities when it is trained on other labels (``io``, ``bio``, ``bioul``); as in the model when
        not given.
    constrained
        Take the most probable of all sequences of tags that the scheme allows. False: the most probable tag of each
        word, as `transformers` does.
    all_pieces
        In training, learn all pieces of a word, and not the first alone.
    window, stride
        Pieces in a window, and from one to the next; by default what the model can read at once, up to 510.
    adapter
        New weights that learn in place of the encoder's own; the classifier learns as ever.
    trust_remote_code
        Run code that comes with the model when it is first read. It is not saved: whoever loads the pipeline consents
        anew.
    """

    family = "architectures"
    is_tagger = True

    def __init__(
        self,
        name: str,
        tag_names: list[str] | dict[str, str] | None = None,
        labels: Literal["checkpoint", "data"] = "checkpoint",
        scheme: Scheme | None = None,
        constrained: bool = False,
        all_pieces: bool = False,
        window: int | None = None,
        stride: int | None = None,
        adapter: Adapter | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self.tag_names = tag_names
        self.labels_from = labels
        self.scheme = scheme
        self.constrained = constrained
        self.all_pieces = all_pieces
        self.window, self.stride = window, stride
        self.adapter = adapter
        self.trust_remote_code = trust_remote_code

    def materialize(self) -> TokenClassifier:
        """Read the model and return the blocks with its weights, and with a new adapter."""
        from gliner_pipe.checkpoints.token_classification import read_model

        model = read_model(
            self.name,
            tag_names=self.tag_names,
            any_names=self.labels_from == "data",
            scheme=self.scheme,
            constrained=self.constrained,
            all_pieces=self.all_pieces,
            window=self.window,
            stride=self.stride,
            trust_remote_code=self.trust_remote_code,
        )
        model.keeps_labels = self.labels_from == "checkpoint"
        holder = self._holder(model)
        if self.adapter is not None:
            holder.adapt(self.adapter)
        return model.eval()

    def restore(self, blocks: dict[str, Any]) -> TokenClassifier:
        """Compose the blocks of a saved pipeline that came from this model."""
        model = self.from_blocks(blocks)
        self._holder(model).adapter = self.adapter
        return model

    def _holder(self, model: TokenClassifier) -> EncoderHolder:
        """Return what holds the encoder, and tell it where that came from."""
        from gliner_pipe.checkpoints.token_classification import read_encoder

        path, holder = next(
            (path, module) for path, module in model.named_modules() if isinstance(module, EncoderHolder)
        )
        holder.part, holder.checkpoint, holder.read_base = path, self.name, read_encoder
        holder.adapter_section = "components.*.model.adapter"
        return holder

    @staticmethod
    def from_blocks(blocks: dict[str, Any]) -> TokenClassifier:
        """Compose the blocks that a model asked for when it was read; weights are still to be filled in."""
        model: TokenClassifier = Config({"model": blocks}).resolve(registry=registry)["model"]
        model.blocks = blocks
        return model
