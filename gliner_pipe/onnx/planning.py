"""Which graphs a model is written as, with examples of what they read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gliner_pipe.blocks import described
from gliner_pipe.encoders.base import Query
from gliner_pipe.encoders.bi_encoder import BiEncoder
from gliner_pipe.errors import ConfigError
from gliner_pipe.model.gliner import GLiNER
from gliner_pipe.model.token_classifier import TokenClassifier
from gliner_pipe.onnx import stages
from gliner_pipe.onnx.stages import PROMPT, WINDOWS, Stage, labels_apart
from gliner_pipe.span_reps._stacked import StackedSpanRep

WORDS = (["Ada", "Lovelace", "wrote", "programs"], ["Rome", "burns", "."])
ENTITIES, RELATIONS = ("person", "city", "year"), ("born in", "part of")


def tagger_stages(model: TokenClassifier) -> Iterator[Stage]:
    """Give the graph of a tagger: its decoder stays what it is."""
    batch = model.encoder.collate(model.prepare(WORDS))
    inputs = {name: getattr(batch.windows, name) for name in WINDOWS}
    yield Stage(stages.MODEL, stages.Emit(model), inputs, ("emissions",), "encoder")


def gliner_stages(model: GLiNER) -> Iterator[Stage]:
    """Give the graphs of a model.

    Raises
    ------
    ConfigError
        If it has a block that no graph can hold.
    """
    if model.writer is not None:
        raise ConfigError(
            "components.*.model.decoder",
            "found @decoders = generative, whose language model writes word by word and cannot be exported",
            "@decoders = span",
        )
    if isinstance(model.span_rep, StackedSpanRep) and model.span_rep.needs_vectors:
        raise ConfigError(
            "components.*.model.span_rep",
            f"found {described(model.span_rep)}, whose vectors of spans no graph can hold, under a relation_layer",
            "marker, markerV0, markerV1, markerV2, token_level",
        )
    apart = labels_apart(model)
    fused = not apart and model.max_width is not None
    yield _reading(model, apart=apart, fused=fused)
    size = model.encoder.output_size
    words, labels = torch.zeros(2, 5, size), torch.zeros(2, 3, size)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    if not fused:
        inputs = {"words": words, "labels": labels, "word_mask": mask}
        yield Stage(stages.SCORES, stages.Score(model), inputs, ("logits",), "span_rep")
    if model.span_rep.needs_vectors or getattr(model.span_rep, "represent_spans", False):
        spans = torch.tensor([[[0, 1], [1, 2], [2, 2], [0, 0]], [[0, 0], [1, 1], [0, 2], [2, 2]]])
        inputs = {"words": words, "spans": spans, "word_mask": mask}
        yield Stage(stages.SPANS, stages.Represent(model), inputs, ("vectors",), "span_rep")
    if apart and isinstance(model.encoder, BiEncoder):
        yield _labels(model)
    if model.relation_layer is not None and has_weights(model.relation_layer):
        inputs = {"entities": words, "mask": mask}
        yield Stage(stages.PAIRS, stages.Run(model.relation_layer), inputs, ("strengths",), "relation_layer")
    if model.triple is not None and has_weights(model.triple):
        inputs = {"head": words, "relations": labels, "tail": words.flip(1)}
        yield Stage(stages.TRIPLES, stages.Run(model.triple), inputs, ("logits",), "triple")


def has_weights(block: nn.Module) -> bool:
    """Whether a block has any; one without runs as it is."""
    return next(block.parameters(), None) is not None or next(block.buffers(), None) is not None


def _reading(model: GLiNER, *, apart: bool, fused: bool) -> Stage:
    """From windows to vectors of words and labels, or to scores."""
    finds_relations = model.relation_layer is not None
    query = Query(() if apart else ENTITIES, RELATIONS if finds_relations and not apart else ())
    batch = model.encoder.collate(model.encoder.prepare(WORDS, [query] * 2, 0))
    inputs: dict[str, Tensor] = {name: getattr(batch.windows, name) for name in WINDOWS}
    outputs = ["logits"] if fused else ["words"]
    if not fused and model.context is not None:
        outputs.append("span_words")
    if not apart:
        inputs |= {name: getattr(batch.windows, name) for name in PROMPT} | {"label_mask": batch.label_mask}
        outputs.append("labels")
        if finds_relations:
            inputs["relation_mask"] = batch.relation_mask
            outputs.append("relations")
        if fused and model.span_rep.needs_vectors:
            outputs.append("span_words")
    elif model.fusion is not None:
        inputs["label_vectors"] = torch.zeros(2, 3, model.encoder.output_size)
        inputs["label_mask"] = torch.tensor([[True, True, True], [True, True, False]])
        outputs.append("labels")
    if fused and not model.span_rep.needs_vectors:
        outputs.remove("labels")
    return Stage(stages.MODEL, stages.Read(model, tuple(inputs), outputs), inputs, tuple(outputs), "encoder")


def _labels(model: GLiNER) -> Stage:
    """From the pieces of labels to their vectors."""
    embedder: Any = model.encoder.label_encoder
    pieces = embedder.tokenizer(["person", "town or city"], padding=True, return_tensors="pt")
    inputs = {name: pieces[name] for name in ("input_ids", "attention_mask")}
    return Stage(
        stages.LABELS, stages.ReadLabels(model), inputs, ("vectors", "projected"), "encoder.label_model"
    )
