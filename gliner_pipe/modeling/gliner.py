"""GLiNER, wired from blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.batch import LossTerms, TrainingBatch
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.context_encoders import ContextEncoder
from gliner_pipe.modeling.decoders.generative import GenerativeDecoder
from gliner_pipe.modeling.decoders.span import Decoder, SpanDecoder
from gliner_pipe.modeling.encoders.base import Encoded, Encoder, EncoderBatch
from gliner_pipe.modeling.fusions import Fusion
from gliner_pipe.modeling.label_generation import writing_loss
from gliner_pipe.modeling.label_projection import ProjectedLabels
from gliner_pipe.modeling.layers.linear import projection
from gliner_pipe.modeling.losses.base import Loss
from gliner_pipe.modeling.losses.focal import FocalLoss
from gliner_pipe.modeling.merging import merged
from gliner_pipe.modeling.relation_layers.base import RelationLayer
from gliner_pipe.modeling.relations import relation_losses
from gliner_pipe.modeling.span_reps.base import Readings, SpanRep, all_alike
from gliner_pipe.modeling.triples.base import Triple
from gliner_pipe.modeling.triples.neural import Concat
from gliner_pipe.modeling.weights import check_weights, fill_weights, write_weights
from gliner_pipe.registry import registry


@registry.architectures.register("gliner_pipe.GLiNER.v1")
class GLiNER(Block):
    """An encoder, a span representation, a decoder and a loss, with or without a fusion.

    Pure torch: it knows no spaCy object and can be trained, exported and timed without one.

    Parameters
    ----------
    encoder
        Lets words and labels meet.
    span_rep
        Scores spans of words against labels.
    loss
        The training signal.
    decoder
        Chooses among spans above the threshold.
    fusion
        What words and labels tell each other after the encoder; nothing when not given.
    context
        Reads the words once more before spans are made of them; nothing when not given.
    relation_layer
        Proposes pairs of entities that are tied; no relations are found when not given.
    triple
        Names the relation of a pair; ``concat`` when not given.
    relation_loss
        The training signal of pairs and relations; `loss` when not given.
    dropout
        Dropout of the label projection.
    span_loss_coef, adjacency_loss_coef, relation_loss_coef, decoder_loss_coef
        Weights of the losses of entities, of pairs, of relations and of written labels.

    Notes
    -----
    Source: GLiNER (Zaratiana et al., 2024), arXiv:2311.08526.
    """

    family = "architectures"

    def __init__(
        self,
        encoder: Encoder,
        span_rep: SpanRep,
        loss: Loss | None = None,
        decoder: Decoder | None = None,
        fusion: Fusion | None = None,
        context: ContextEncoder | None = None,
        relation_layer: RelationLayer | None = None,
        triple: Triple | None = None,
        relation_loss: Loss | None = None,
        dropout: float = 0.4,
        span_loss_coef: float = 1.0,
        adjacency_loss_coef: float = 1.0,
        relation_loss_coef: float = 1.0,
        decoder_loss_coef: float = 0.5,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.fusion = fusion
        self.span_rep = span_rep
        self.loss = loss if loss is not None else FocalLoss()
        self.decoder = decoder if decoder is not None else SpanDecoder()
        self.context = context
        self.relation_layer = relation_layer
        self.triple = Concat(dropout) if relation_layer is not None and triple is None else triple
        self.relation_loss = relation_loss if relation_loss is not None else self.loss
        self.coefficients = {
            "span": span_loss_coef,
            "token": span_loss_coef,
            "adjacency": adjacency_loss_coef,
            "relation": relation_loss_coef,
            "label": decoder_loss_coef,
        }
        self.dropout = dropout
        self.prompt_rep: nn.Module | None = None
        self.projected_labels = ProjectedLabels()
        self._made = False
        #: Configuration of the blocks, where it is not in the pipeline's config (a checkpoint given by name).
        self.blocks: dict[str, Any] | None = None
        #: Name of the word splitter that the weights were trained with, where it is not the tokens of spaCy.
        self.word_splitter: str | None = None

    # -- making it -------------------------------------------------------------------------------------------------

    @property
    def is_built(self) -> bool:
        """Whether there are weights."""
        return self._made

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def max_width(self) -> int | None:
        """Words in the widest span that can be found; None where there is no limit."""
        return self.span_rep.max_width

    @property
    def min_overlap(self) -> int:
        """Words that neighbouring windows share, so that no span is cut."""
        return 2 * (self.max_width or 32)

    @property
    def writer(self) -> GenerativeDecoder | None:
        """The decoder, where it writes labels."""
        return self.decoder if isinstance(self.decoder, GenerativeDecoder) else None

    def materialize(self) -> GLiNER:
        """Return the model that stands behind this block: itself."""
        return self

    def build(self) -> None:
        """Load the pretrained backbone and make the weights of all other blocks.

        Raises
        ------
        ConfigError
            If the encoder cannot read what another block needs.
        """
        where = "components.*.model"
        if self.relation_layer is not None and not self.encoder.reads_relations:
            found = "is not set, though the model has a relation_layer"
            raise ConfigError(f"{where}.encoder.rel_token", found, "a token", 'Write rel_token = "<<REL>>"')
        if self.writer is not None and self.writer.mode == "prompt" and not self.encoder.reads_bare_labels:
            found = f"found 'prompt' with {type(self.encoder).__name__}"
            allowed = "prompt with uni_encoder and embed_ent_token = true; span"
            raise ConfigError(f"{where}.decoder.mode", found, allowed)
        self.encoder.build()
        if self.writer is not None:
            self.writer.build(self.encoder.output_size)
        self.make()

    def make(self) -> None:
        """Make the weights of all blocks on top of the encoder, which is built already."""
        size = self.encoder.output_size
        self.span_rep.needs_vectors = self.relation_layer is not None or self.writer is not None
        if self.fusion is not None:
            self.fusion.build(size)
        self.span_rep.build(size)
        if self.context is not None:
            self.context.build(size)
        if self.relation_layer is not None and self.triple is not None:
            self.relation_layer.build(size)
            self.triple.build(size)
        if self.span_rep.projects_labels:
            self.prompt_rep = projection(size, size, self.dropout)
        self._made = True

    def save(self, path: Path) -> None:
        """Write weights, and configuration and tokenizer of the backbone, into the folder `path`.

        Adapters are written as their ``save`` says; the model itself stays as it is.
        """
        model = merged(self, all_of_them=False)
        path.mkdir(parents=True, exist_ok=True)
        model.encoder.save_assets(path / "encoder")
        if model.writer is not None:
            model.writer.save_assets(path / "decoder")
        write_weights(model, path)

    def load(self, path: Path) -> None:
        """Make all blocks from a folder that ``save`` wrote and fill in the weights; no network.

        Raises
        ------
        CheckpointError
            When the weights are not those of these blocks, with the names that differ.
        """
        check_weights(path)
        self.load_assets(path)
        self.make()
        fill_weights(self, path)

    def load_assets(self, path: Path) -> None:
        """Make encoder and decoder from the folder `path`, with weights still to be filled in."""
        self.encoder.load_assets(path / "encoder")
        if self.writer is not None:
            self.writer.load_assets(path / "decoder", self.encoder.output_size)

    # -- running it ------------------------------------------------------------------------------------------------

    def encode(self, batch: EncoderBatch) -> Readings:
        """Return the vectors of words and labels as the span representation wants them."""
        return self.read(self.encoder(batch), batch.windows.word_mask, batch.label_mask)

    def read(self, encoded: Encoded, word_mask: Tensor, label_mask: Tensor) -> Readings:
        """Return what follows the encoder: fusion, label projection and context encoder."""
        words, labels, relations = encoded
        if self.fusion is not None:
            words, labels = self.fusion(words, labels, word_mask, label_mask)
            labels = labels * label_mask[:, :, None]
        if self.prompt_rep is not None:
            labels = self._projected(self.prompt_rep, labels)
        span_words = words if self.context is None else self.context(words, word_mask)
        return Readings(words, span_words, labels, relations)

    def _projected(self, layer: nn.Module, labels: Tensor) -> Tensor:
        """Apply `layer`: once for all rows where these are views of one tensor, as thousands of labels want it, and
        once for all batches where it is the same again.
        """
        if layer.training or torch.compiler.is_compiling() or not all_alike(labels):
            projected: Tensor = layer(labels)
            return projected
        rows = len(labels)
        if torch.is_grad_enabled() or self.fusion is not None or not self.encoder.reads_labels_apart:
            return layer(labels[:1]).expand(rows, -1, -1)
        return self.projected_labels.of(layer, labels[0]).expand(rows, -1, -1)

    def score(self, batch: EncoderBatch) -> Tensor:
        """Score a batch of windows.

        Returns
        -------
        Tensor
            Logits as the span representation gives them; ``(rows, words, widths, labels)`` where it scores all spans.
        """
        return self.span_rep.logits(self.encode(batch), batch.windows.word_mask)

    def forward(self, batch: TrainingBatch) -> LossTerms:
        """Loss of a batch, as sums."""
        self.projected_labels.forget()  # a step may follow, and fused optimizers leave no trace on weights
        read = self.encode(batch.inputs)
        inputs = batch.inputs
        word_mask = inputs.windows.word_mask
        parts = self.span_rep.loss(read, inputs, batch.gold, self.loss)
        if batch.writing is not None and self.writer is not None:
            parts["label"] = writing_loss(self, read, word_mask, batch.writing)
        if batch.relations is not None and self.relation_layer is not None:
            parts |= relation_losses(self, read, word_mask, inputs.relation_mask, batch.relations)
        return LossTerms.of({name: self.coefficients[name] * part for name, part in parts.items()})

    def denominator(self, count: float) -> float:
        """What the summed loss of a step is divided by."""
        return self.loss.denominator(count)

    def extra_repr(self) -> str:
        """Say whether there are weights."""
        return "" if self.is_built else "not built"


def check_architecture(model: Any, where: str) -> None:
    """Refuse what is no GLiNER architecture."""
    if not (isinstance(model, Block) and model.family == "architectures"):
        raise ConfigError(
            where,
            f"found {type(model).__name__}",
            "@architectures = gliner_pipe.GLiNER.v1 or gliner_pipe.Pretrained.v1, or the name of a checkpoint",
        )
