"""The graphs of a model: modules with named input and output tensors, and examples from which they are traced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.block import described
from gliner_pipe.modeling.encoders.base import Encoded, EncoderBatch, Query
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
from gliner_pipe.modeling.encoders.causal_encoder import CausalEncoder
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.span_reps.by_width import StackedSpanRep
from gliner_pipe.modeling.token_classifier import TokenClassifier

#: Names of graphs. ``model`` reads windows; if labels are part of the text it scores spans too.
MODEL = "model"
#: Scores spans against labels, if ``model`` does not.
SCORES = "scores"
SPANS, LABELS, PAIRS, TRIPLES = "spans", "labels", "pairs", "triples"

_WORDS = ("rows", "words")
#: Dimensions of each input; None for a fixed width.
AXES: dict[str, tuple[str | None, ...]] = {
    "input_ids": ("rows", "pieces"),
    "attention_mask": ("rows", "pieces"),
    "piece_start": _WORDS,
    "piece_count": _WORDS,
    "word_mask": _WORDS,
    "prompt_positions": ("rows", "prompts"),
    "prompt_mask": ("rows", "prompts"),
    "label_mask": ("rows", "labels"),
    "relation_mask": ("rows", "relations"),
    "words": ("rows", "words", None),
    "labels": ("rows", "labels", None),
    "label_vectors": ("rows", "labels", None),
    "spans": ("rows", "spans", None),
    "entities": ("groups", "entities", None),
    "mask": ("groups", "entities"),
    "head": ("groups", "pairs", None),
    "tail": ("groups", "pairs", None),
    "relations": ("groups", "relations", None),
    # inputs of GLiNER's layout
    "words_mask": ("rows", "pieces"),
    "text_lengths": ("rows", None),
    "span_idx": ("rows", "spans", None),
    "span_mask": ("rows", "spans"),
    "labels_input_ids": ("labels", "label_pieces"),
    "labels_attention_mask": ("labels", "label_pieces"),
}
WINDOWS = ("input_ids", "attention_mask", "piece_start", "piece_count", "word_mask")
PROMPT = ("prompt_positions", "prompt_mask")

#: Example texts and labels for tracing.
_TEXTS = (["Ada", "Lovelace", "wrote", "programs"], ["Rome", "burns", "."])
_ENTITIES, _RELATIONS = ("person", "city", "year"), ("born in", "part of")


class Stage(NamedTuple):
    """A graph to export.

    Attributes
    ----------
    name
        Name of the graph.
    module
        Takes the inputs in order and returns a tuple.
    inputs
        Examples, no dimension of which is 0 or 1.
    outputs
        Names of the outputs.
    block
        Section of the block that is exported, for errors.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    block: str


# -- the graphs of a model ---------------------------------------------------------------------------------------


def tagger_stages(model: TokenClassifier) -> Iterator[Stage]:
    """Yield the graph of a tagger; its decoder is not exported."""
    batch = model.encoder.collate(model.prepare(_TEXTS))
    inputs = {name: getattr(batch.windows, name) for name in WINDOWS}
    yield Stage(MODEL, Emit(model), inputs, ("emissions",), "encoder")


def gliner_stages(model: GLiNER) -> Iterator[Stage]:
    """Yield the graphs of a GLiNER model.

    Raises
    ------
    ConfigError
        If it has a block that cannot be exported.
    """
    if model.label_generator is not None:
        raise ConfigError(
            "components.*.model.decoder",
            "found @decoders = generative, whose language model generates token by token and cannot be exported",
            "@decoders = span",
        )
    if isinstance(model.encoder, CausalEncoder):
        raise ConfigError(
            "components.*.model.encoder",
            "found @encoders = causal_encoder, whose prompt is read once for many texts and cannot be exported",
            "uni_encoder, bi_encoder",
        )
    if isinstance(model.span_rep, StackedSpanRep) and model.span_rep.needs_vectors:
        raise ConfigError(
            "components.*.model.span_rep",
            f"found {described(model.span_rep)}, whose span vectors cannot be exported, with a relation_layer",
            "marker, markerV0, markerV1, markerV2, token_level",
        )
    apart = labels_apart(model)
    scores_spans = not apart and model.max_width is not None
    yield _reading(model, apart=apart, scores_spans=scores_spans)
    size = model.encoder.output_size
    words, labels = torch.zeros(2, 5, size), torch.zeros(2, 3, size)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    if not scores_spans:
        inputs = {"words": words, "labels": labels, "word_mask": mask}
        yield Stage(SCORES, Score(model), inputs, ("logits",), "span_rep")
    if model.span_rep.needs_vectors or getattr(model.span_rep, "represent_spans", False):
        spans = torch.tensor([[[0, 1], [1, 2], [2, 2], [0, 0]], [[0, 0], [1, 1], [0, 2], [2, 2]]])
        inputs = {"words": words, "spans": spans, "word_mask": mask}
        yield Stage(SPANS, Represent(model), inputs, ("vectors",), "span_rep")
    if isinstance(model.encoder, BiEncoder):
        embedder: Any = model.encoder.label_encoder
        tokens = embedder.tokenizer(["person", "town or city"], padding=True, return_tensors="pt")
        inputs = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        yield Stage(LABELS, ReadLabels(model), inputs, ("vectors", "projected"), "encoder.label_model")
    if model.relation_layer is not None and _has_weights(model.relation_layer):
        inputs = {"entities": words, "mask": mask}
        yield Stage(PAIRS, Run(model.relation_layer), inputs, ("strengths",), "relation_layer")
    if model.triple is not None and _has_weights(model.triple):
        inputs = {"head": words, "relations": labels, "tail": words.flip(1)}
        yield Stage(TRIPLES, Run(model.triple), inputs, ("logits",), "triple")


def labels_apart(model: GLiNER) -> bool:
    """Return whether the vectors of labels do not depend on the text."""
    encoder = model.encoder
    return isinstance(encoder, BiEncoder) or (isinstance(encoder, UniEncoder) and encoder.table is not None)


def _has_weights(block: nn.Module) -> bool:
    """Return whether a block has weights; a block without weights runs in torch."""
    return next(block.parameters(), None) is not None or next(block.buffers(), None) is not None


def _reading(model: GLiNER, *, apart: bool, scores_spans: bool) -> Stage:
    """Return the graph from windows to vectors of words and labels, or to scores of spans."""
    finds_relations = model.relation_layer is not None
    query = Query(() if apart else _ENTITIES, _RELATIONS if finds_relations and not apart else ())
    batch = model.encoder.collate(model.encoder.prepare(_TEXTS, [query] * 2, 0))
    inputs: dict[str, Tensor] = {name: getattr(batch.windows, name) for name in WINDOWS}
    outputs = ["logits"] if scores_spans else ["words"]
    if not scores_spans and model.context is not None:
        outputs.append("span_words")
    if not apart:
        inputs |= {name: getattr(batch.windows, name) for name in PROMPT} | {"label_mask": batch.label_mask}
        outputs.append("labels")
        if finds_relations:
            inputs["relation_mask"] = batch.relation_mask
            outputs.append("relations")
        if scores_spans and model.span_rep.needs_vectors:
            outputs.append("span_words")
    elif model.fusion is not None:
        inputs["label_vectors"] = torch.zeros(2, 3, model.encoder.output_size)
        inputs["label_mask"] = torch.tensor([[True, True, True], [True, True, False]])
        outputs.append("labels")
    if scores_spans and not model.span_rep.needs_vectors:
        outputs.remove("labels")
    return Stage(MODEL, Read(model, tuple(inputs), outputs), inputs, tuple(outputs), "encoder")


# -- their modules -----------------------------------------------------------------------------------------------


def _window_batch(tensors: dict[str, Tensor]) -> WindowBatch:
    """Return windows without ``own``, which does not affect what is computed."""
    mask = tensors["word_mask"]
    none = mask[:, :0]
    return WindowBatch(
        **{name: tensors[name] for name in WINDOWS},
        prompt_positions=tensors.get("prompt_positions", none.long()),
        prompt_mask=tensors.get("prompt_mask", none),
        own=torch.zeros(0, 2, dtype=torch.long),
    )


class Read(nn.Module):
    """Reads windows: a GLiNER model up to the vectors of words and labels, or up to the scores of spans.

    Parameters
    ----------
    model
        The model.
    inputs, outputs
        Names of the tensors.
    """

    def __init__(self, model: GLiNER, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for windows."""
        tensors = dict(zip(self.inputs, given, strict=True))
        windows = _window_batch(tensors)
        none = windows.word_mask[:, :0]
        label_mask = tensors.get("label_mask", none)
        if "prompt_mask" in tensors:
            torch._check(label_mask.shape[1] <= windows.prompt_mask.shape[1])
        apart = labels_apart(self.model)
        masks = (none, none) if apart else (label_mask, tensors.get("relation_mask", none))
        encoded = self.model.encoder(EncoderBatch(windows, *masks, ()))
        if apart:
            words = encoded.words
            encoded = Encoded(words, tensors.get("label_vectors", words[:, :0]), words[:, :0])
        read = self.model.refine(encoded, windows.word_mask, label_mask)
        made: dict[str, Any] = read._asdict()
        if "logits" in self.outputs:
            made["logits"] = self.model.span_rep.logits(read, windows.word_mask)
        return tuple(made[name] for name in self.outputs)


class Score(nn.Module):
    """Scores spans, or words, against labels."""

    def __init__(self, model: GLiNER) -> None:
        super().__init__()
        self.span_rep = model.span_rep

    def forward(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> tuple[Tensor]:
        """Return the logits of the span representation."""
        return (self.span_rep.score(words, labels, word_mask),)


class Represent(nn.Module):
    """Computes the vectors of chosen spans."""

    def __init__(self, model: GLiNER) -> None:
        super().__init__()
        self.span_rep = model.span_rep

    def forward(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> tuple[Tensor]:
        """Return ``(rows, spans, hidden)``."""
        return (self.span_rep.represent(words, spans, word_mask),)


class ReadLabels(nn.Module):
    """Computes the vectors of labels, before and after the projection for scoring."""

    def __init__(self, model: GLiNER) -> None:
        super().__init__()
        self.embedder: Any = model.encoder.label_encoder
        self.projection = None if model.fusion is not None else model.prompt_rep

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return two tensors of ``(labels, hidden)``."""
        vectors = self.embedder.embed(input_ids, attention_mask)
        return vectors, vectors * 1.0 if self.projection is None else self.projection(vectors)


class Run(nn.Module):
    """Runs one block, with its output as a tuple."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *given: Tensor) -> tuple[Tensor]:
        """Return the output of the block."""
        return (self.block(*given),)


class Emit(nn.Module):
    """Scores the tags of the words of windows."""

    def __init__(self, model: TokenClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Tensor) -> tuple[Tensor]:
        """Return the emissions, ``(rows, words, chains, tags)``."""
        windows = _window_batch(dict(zip(WINDOWS, given, strict=True)))
        none = windows.word_mask[:, :0]
        return (self.model.emissions(EncoderBatch(windows, none, none, ())),)
