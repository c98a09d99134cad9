"""The architectures, composed of blocks: what all have in common, and GLiNER."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.batch import LossTerms, TrainingBatch
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.classifiers.base import Classifier
from gliner_pipe.modeling.context_encoders import ContextEncoder
from gliner_pipe.modeling.counters.base import Counter
from gliner_pipe.modeling.decoders.generative import GenerativeDecoder
from gliner_pipe.modeling.decoders.span import Decoder, SpanDecoder
from gliner_pipe.modeling.encoders.base import Encoded, Encoder, EncoderBatch, Query
from gliner_pipe.modeling.fusions import Fusion
from gliner_pipe.modeling.label_generation import label_generation_loss
from gliner_pipe.modeling.label_projection import ProjectedLabels
from gliner_pipe.modeling.layers.linear import projection
from gliner_pipe.modeling.losses.base import Loss
from gliner_pipe.modeling.losses.focal import FocalLoss
from gliner_pipe.modeling.merging import merged
from gliner_pipe.modeling.record_finders.base import RecordFinder
from gliner_pipe.modeling.relation_finders.base import RelationFinder
from gliner_pipe.modeling.relation_layers.base import RelationLayer
from gliner_pipe.modeling.relations import relation_losses
from gliner_pipe.modeling.span_reps.base import Representations, SpanRep, all_alike
from gliner_pipe.modeling.task_losses import field_spans, task_losses
from gliner_pipe.modeling.triples.base import Triple
from gliner_pipe.modeling.triples.neural import Concat
from gliner_pipe.modeling.weights import Kept, check_weights, fill_weights, write_weights
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import NonNegative, Share

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
        #: Section of the word splitter that the weights were trained with, if not spaCy's tokens.
        self.word_splitter: dict[str, Any] | None = None
        #: Whether the model has weights.
        self.is_built = False

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


@registry.architectures.register("gliner_pipe.GLiNER.v1")
class GLiNER(Architecture):
    """An encoder, a span representation, a decoder and a loss, with optional blocks for fusion, context and relations.

    Pure PyTorch: it can be trained, exported and timed without spaCy.

    Parameters
    ----------
    encoder
        Encodes words and labels.
    span_rep
        Scores spans of words against labels.
    loss
        Training loss; ``gliner_pipe.focal`` by default.
    decoder
        Selects entities among the spans above the threshold; ``span`` by default.
    fusion
        Exchanges information between words and labels after the encoder; none by default.
    context
        A second encoder over the word vectors, run before spans are built; none by default.
    relation_layer
        Proposes related entity pairs; by default no relations are predicted.
    triple
        Classifies the relation of a pair; ``concat`` by default.
    relation_loss
        Training loss of pairs and relations; `loss` by default.
    dropout
        Dropout rate of the label projection.
    span_loss_coef, adjacency_loss_coef, relation_loss_coef, decoder_loss_coef
        Weights of the losses of entities, adjacency, relations and generated labels. With a boundary span
        representation, the first is that of the values of records and relations, too.
    class_loss_coef, count_loss_coef, slot_loss_coef
        Weights of the losses of classes, of numbers of instances (of numbers of spans, with a boundary span
        representation), and of the values of records and relations that are read as tasks.
    counter
        Turns label vectors into queries for spans, in place of the label projection; none by default.
    classifier
        Scores the labels of whole texts; none by default.
    relation_finder
        Finds relations that the encoder reads as tasks; none by default.
    record_finder
        Finds records; none by default.

    Notes
    -----
    Source: GLiNER (Zaratiana et al., 2024), arXiv:2311.08526.
    """

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
        dropout: Share = 0.4,
        span_loss_coef: NonNegative = 1.0,
        adjacency_loss_coef: NonNegative = 1.0,
        relation_loss_coef: NonNegative = 1.0,
        decoder_loss_coef: NonNegative = 0.5,
        counter: Counter | None = None,
        classifier: Classifier | None = None,
        relation_finder: RelationFinder | None = None,
        record_finder: RecordFinder | None = None,
        class_loss_coef: NonNegative = 1.0,
        count_loss_coef: NonNegative = 1.0,
        slot_loss_coef: NonNegative = 1.0,
    ) -> None:
        super().__init__(encoder)
        self.fusion = fusion
        self.span_rep = span_rep
        self.loss = loss if loss is not None else FocalLoss()
        self.decoder = decoder if decoder is not None else SpanDecoder()
        self.context = context
        self.relation_layer = relation_layer
        self.triple = Concat(dropout) if relation_layer is not None and triple is None else triple
        self.counter = counter
        self.classifier = classifier
        self.relation_finder = relation_finder
        self.record_finder = record_finder
        self.relation_loss = relation_loss if relation_loss is not None else self.loss
        self.coefficients = {
            "span": span_loss_coef,
            "token": span_loss_coef,
            "adjacency": adjacency_loss_coef,
            "relation": relation_loss_coef,
            "label": decoder_loss_coef,
            "class": class_loss_coef,
            "count": count_loss_coef,
            "slot": slot_loss_coef,
            "record": slot_loss_coef,
            "boundary": span_loss_coef,
            "abstention": span_loss_coef,
            "span_count": count_loss_coef,
        }
        self.dropout = dropout
        self.prompt_rep: nn.Module | None = None
        #: What is needed to write the checkpoint that the model was read from, beside its weights.
        self.kept: Kept | None = None
        self.projected_labels = ProjectedLabels()

    # -- building, saving, loading -----------------------------------------------------------------------------------

    @property
    def max_width(self) -> int | None:
        """Maximum span width in words; None for no limit."""
        return self.span_rep.max_width

    @property
    def min_overlap(self) -> int:
        """Minimum overlap of neighbouring windows in words, so that every span is inside one window."""
        return 2 * (self.max_width or 32)

    @property
    def task_heads(self) -> dict[str, tuple[str, Block | None]]:
        """Name and block of the option that predicts each kind of task."""
        return {
            "record": ("record_finder", self.record_finder),
            "relation": ("relation_finder", self.relation_finder),
            "classes": ("classifier", self.classifier),
        }

    @property
    def label_generator(self) -> GenerativeDecoder | None:
        """The decoder, if it generates labels."""
        return self.decoder if isinstance(self.decoder, GenerativeDecoder) else None

    def build(self) -> None:
        """Load the pretrained backbone and create the weights of all other blocks.

        Raises
        ------
        ConfigError
            If the encoder does not support what another block needs.
        """
        where = "components.*.model"
        if self.relation_layer is not None and not self.encoder.reads_relations:
            found = "is not set, though the model has a relation_layer"
            raise ConfigError(f"{where}.encoder.rel_token", found, "a token", 'Write rel_token = "<<REL>>"')
        generator = self.label_generator
        if generator is not None and generator.mode == "prompt" and not self.encoder.reads_bare_labels:
            found = f"found 'prompt' with {type(self.encoder).__name__}"
            allowed = "prompt with uni_encoder and embed_ent_token = true; span"
            raise ConfigError(f"{where}.decoder.mode", found, allowed)
        for kind, (option, block) in self.task_heads.items():
            if block is not None and kind not in self.encoder.reads_tasks:
                found = f"is set, but {type(self.encoder).__name__} does not read what it needs"
                allowed = "null, or an encoder that reads tasks"
                raise ConfigError(f"{where}.{option}", found, allowed, "Use @encoders = schema_encoder")
            if self.counter is None and getattr(block, "needs_counter", False):
                found = f"is not set, though {option} needs it"
                raise ConfigError(
                    f"{where}.counter", found, "a counter", 'Write counter = {"@counters": "count_lstm"}'
                )
        self.encoder.build()
        if generator is not None:
            generator.build(self.encoder.output_size)
        self.make()

    def make(self) -> None:
        """Create the weights of all blocks on top of the encoder, which is built already."""
        size = self.encoder.output_size
        for finder in (self.relation_finder, self.record_finder):
            if finder is not None:
                finder.check(self.span_rep)
        self.span_rep.needs_vectors = self.relation_layer is not None or self.label_generator is not None
        if self.fusion is not None:
            self.fusion.build(size)
        self.span_rep.build(size)
        if self.context is not None:
            self.context.build(size)
        if self.relation_layer is not None and self.triple is not None:
            self.relation_layer.build(size)
            self.triple.build(size)
        for block in (self.counter, self.classifier, self.relation_finder, self.record_finder):
            if block is not None:
                block.build(size)
        if self.span_rep.projects_labels and self.counter is None:
            self.prompt_rep = projection(size, size, self.dropout)
        self.is_built = True

    def save_assets(self, path: Path) -> None:
        """Save configuration and tokenizers of encoder and label generator to the folder `path`."""
        super().save_assets(path)
        if self.label_generator is not None:
            self.label_generator.save_assets(path / "decoder")
        if self.kept is not None:
            self.kept.write(path)

    def load_assets(self, path: Path) -> None:
        """Create all blocks from what ``save_assets`` wrote, with weights still to be loaded."""
        self.encoder.load_assets(path / "encoder")
        if self.label_generator is not None:
            self.label_generator.load_assets(path / "decoder", self.encoder.output_size)
        self.kept = Kept.read(path)
        self.make()

    # -- running -----------------------------------------------------------------------------------------------------

    def encode(self, batch: EncoderBatch) -> Representations:
        """Return the vectors of words and labels from which spans are scored."""
        return self.refine(self.encoder(batch), batch.windows.word_mask, batch.label_mask, batch.queries)

    def refine(
        self, encoded: Encoded, word_mask: Tensor, label_mask: Tensor, queries: Sequence[Query] = ()
    ) -> Representations:
        """Apply the blocks after the encoder: fusion, label projection and context encoder.

        The projection of a label is cached where `queries`, those of the rows, name the labels.
        """
        words, labels, relations, tasks = encoded
        if self.fusion is not None:
            words, labels = self.fusion(words, labels, word_mask, label_mask)
            labels = labels * label_mask[:, :, None]
        if self.prompt_rep is not None:
            labels = self._project(self.prompt_rep, labels, queries)
        if self.counter is not None and labels.shape[1]:
            labels = self.counter(labels, 1, label_mask)[:, 0]
        span_words = words if self.context is None else self.context(words, word_mask)
        return Representations(words, span_words, labels, relations, tasks, {})

    def _project(self, layer: nn.Module, labels: Tensor, queries: Sequence[Query]) -> Tensor:
        """Apply `layer`: once for all rows that share one tensor, and once for all batches with a label."""
        if layer.training or torch.compiler.is_compiling() or not all_alike(labels):
            projected: Tensor = layer(labels)
            return projected
        rows = len(labels)
        mark = self.encoder.label_mark
        if mark is None or not queries or torch.is_grad_enabled() or self.fusion is not None:
            return layer(labels[:1]).expand(rows, -1, -1)
        return self.projected_labels.of(layer, queries[0].entities, labels[0], mark).expand(rows, -1, -1)

    def score(self, batch: EncoderBatch) -> Tensor:
        """Score a batch of windows.

        Returns
        -------
        Tensor
            Logits as the span representation gives them; ``(rows, words, widths, labels)`` where it scores all spans.
        """
        return self.span_rep.logits(self.encode(batch), batch.windows.word_mask)

    def forward(self, batch: TrainingBatch) -> LossTerms:
        """Return the loss of a batch, as sums."""
        self.projected_labels.forget()  # an optimizer step may follow, and fused ones do not bump weight versions
        inputs = batch.inputs
        vectors = self.encode(inputs)
        word_mask = inputs.windows.word_mask
        fields = None
        if self.span_rep.teaches_fields:
            fields = field_spans(batch.tasks, inputs, batch.outside)
        parts = self.span_rep.loss(vectors, inputs, batch.gold, self.loss, fields)
        if batch.label_generation is not None and self.label_generator is not None:
            parts["label"] = label_generation_loss(self, vectors, word_mask, batch.label_generation)
        if batch.relations is not None and self.relation_layer is not None:
            parts |= relation_losses(self, vectors, word_mask, inputs.relation_mask, batch.relations)
        if batch.tasks is not None:
            parts |= task_losses(self, vectors, inputs, batch.tasks)
        return LossTerms.of({name: self.coefficients[name] * part for name, part in parts.items()})

    def denominator(self, count: float) -> float:
        """Return the number by which the summed loss of a step is divided."""
        return self.loss.denominator(count)


def check_architecture(model: Any, where: str) -> None:
    """Raise ConfigError unless `model` is a GLiNER architecture."""
    if not (isinstance(model, Block) and model.family == "architectures"):
        raise ConfigError(
            where,
            f"found {type(model).__name__}",
            "@architectures = gliner_pipe.GLiNER.v1 or gliner_pipe.Pretrained.v1, or the name of a checkpoint",
        )
