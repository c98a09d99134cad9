"""Models given by name: checkpoints whose files define their own blocks."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Any, Literal

from gliner_pipe.checkpoints import gliner_read, hf_read
from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.adapters.base import Adapter
from gliner_pipe.modeling.backbones.pretrained_encoder import PretrainedEncoder
from gliner_pipe.modeling.block import Block, from_blocks
from gliner_pipe.modeling.decoders.tags import Scheme
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.losses.base import Loss
from gliner_pipe.modeling.token_classifier import TokenClassifier
from gliner_pipe.registry import registry
from gliner_pipe.util import consent
from gliner_pipe.util.ranges import Count


class Named(Block):
    """Placeholder for a model that defines its own blocks, until it is loaded."""

    family = "architectures"

    @abstractmethod
    def materialize(self) -> Any:
        """Load the model and return the blocks with its weights."""

    @abstractmethod
    def restore(self, blocks: dict[str, Any]) -> Any:
        """Compose the blocks of a saved pipeline that came from this model; their weights are loaded afterwards."""


@registry.architectures.register("gliner_pipe.Pretrained.v1")
class Pretrained(Named):
    """A checkpoint of GLiNER or GLiNER2: a folder, an installed package that holds one, or a hub id.

    ``model = "urchade/gliner_small-v2.1"`` in the component's section is the short form. The checkpoint is loaded on
    first use, never by ``nlp.add_pipe``. A saved pipeline does not need the checkpoint.

    Parameters
    ----------
    name
        Folder, package or hub id.
    adapter
        Adapter of the text encoder. Only the adapter and the heads are trained.
    label_adapter
        Adapter of a bi-encoder's label encoder.
    loss
        Training loss; the focal loss when None.
    relation_loss
        Loss of pairs and relations; `loss` when None.
    lora
        LoRA weights that the `gliner2` package saved for this checkpoint, which are merged into it: a folder, package
        or hub id. None for none.
    budgets
        How many spans and pairs a GLiNER2.5 checkpoint proposes in a window, in place of what its configuration says:
        for example ``{"start_top_k": 32, "end_top_k": 32, "candidate_budget": 256}``, or ``{"pool_size": 768}``. None
        for those of the checkpoint.
    """

    family = "architectures"
    #: Consent of the caller who loaded a pipeline that has no weights yet.
    trust_remote_code = False

    def __init__(
        self,
        name: str,
        adapter: Adapter | None = None,
        label_adapter: Adapter | None = None,
        loss: Loss | None = None,
        relation_loss: Loss | None = None,
        lora: str | None = None,
        budgets: dict[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.lora = lora
        self.budgets = budgets
        self.loss = loss
        self.relation_loss = relation_loss
        self.adapter = adapter
        self.label_adapter = label_adapter

    def materialize(self) -> GLiNER:
        """Load the checkpoint and return the blocks with its weights and new adapters."""
        with consent.trusting(self.trust_remote_code):
            model = gliner_read.read_checkpoint(self.name, self.lora, self.budgets)
        tokens = getattr(model.encoder, "new_tokens", ())
        for holder, adapter in self._adapted(model):
            holder.adapt(adapter, tokens if holder.part == "encoder.backbone" else ())
        return self._with_losses(model).eval()

    def restore(self, blocks: dict[str, Any]) -> GLiNER:
        """Compose the blocks of a saved pipeline that came from this checkpoint."""
        model = from_blocks(blocks)
        for holder, adapter in self._adapted(model):
            holder.adapter = adapter
        return self._with_losses(model)

    def _with_losses(self, model: GLiNER) -> GLiNER:
        """Set the configured losses."""
        model.loss = self.loss or model.loss
        model.relation_loss = self.relation_loss or self.loss or model.relation_loss
        return model

    def _adapted(self, model: GLiNER) -> list[tuple[PretrainedEncoder, Adapter]]:
        """Record the origin of the encoders, and return those with an adapter."""
        adapters = {"encoder.backbone": self.adapter, "encoder.label_encoder": self.label_adapter}
        found = []
        for holder in (module for module in model.modules() if isinstance(module, PretrainedEncoder)):
            holder.checkpoint = self.name
            holder.read_base = partial(gliner_read.read_encoder, part=holder.part, lora=self.lora)
            name = "adapter" if holder.part == "encoder.backbone" else "label_adapter"
            holder.adapter_section = f"components.*.model.{name}"
            adapter = adapters.pop(holder.part, None)
            if adapter is not None:
                found.append((holder, adapter))
        if adapters.get("encoder.label_encoder") is not None:
            raise ConfigError(
                "components.*.model.label_adapter",
                f"is set, but the checkpoint {self.name!r} has no label encoder",
                "adapter",
            )
        return found


@registry.architectures.register("gliner_pipe.PretrainedTokenClassifier.v1")
class PretrainedTokenClassifier(Named):
    """A model of `transformers` for token classification: a folder, an installed package that holds one, or a hub id.

    ``model = "dslim/bert-base-NER"`` in the component's section is the short form. The model is loaded on first use,
    never by ``nlp.add_pipe``. A saved pipeline does not need the model.

    Parameters
    ----------
    name
        Folder, package or hub id.
    tag_names
        The tags in the order of the model's outputs, or by output number, where its configuration does not name them
        (``LABEL_0``).
    labels
        ``checkpoint``: the model's labels, unless the component has its own. ``data``: the labels of the training
        data; tags in both keep their weights, the others are initialized.
    scheme
        Tag scheme for training on other labels (``io``, ``bio``, ``bioul``); that of the model when None.
    constrained
        Decode the most probable tag sequence that the scheme allows. False: the most probable tag of each word, as in
        `transformers`.
    all_pieces
        Train on all subword tokens of a word, not only the first.
    window, stride
        Subword tokens in a window, and from one window to the next; by default the model's limit, up to 510.
    adapter
        Adapter of the encoder. Only the adapter and the classifier are trained.
    trust_remote_code
        Run code that comes with the model when it is loaded. It is not saved: whoever loads the pipeline must consent
        again.
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
        window: Count | None = None,
        stride: Count | None = None,
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
        """Load the model and return the blocks with its weights and a new adapter."""
        model = hf_read.read_model(
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
        model = from_blocks(blocks)
        self._holder(model).adapter = self.adapter
        return model

    def _holder(self, model: TokenClassifier) -> PretrainedEncoder:
        """Return the module that holds the encoder, and record the encoder's origin."""
        path, holder = next(
            (path, module) for path, module in model.named_modules() if isinstance(module, PretrainedEncoder)
        )
        holder.part, holder.checkpoint, holder.read_base = path, self.name, hf_read.read_encoder
        holder.adapter_section = "components.*.model.adapter"
        return holder
