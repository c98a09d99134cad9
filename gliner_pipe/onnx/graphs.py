"""What is written as graphs: modules that take and give tensors by name, with the names of their dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.encoders.base import Encoded, EncoderBatch
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.token_classifier import TokenClassifier

#: The graph that reads windows, and where labels stand in the text scores their spans too.
MODEL = "model"
#: Spans against labels, where these are apart from the text.
SCORES = "scores"
SPANS, LABELS, PAIRS, TRIPLES = "spans", "labels", "pairs", "triples"

_WORDS = ("rows", "words")
#: Dimensions of each input; None for a width that is fixed.
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
}
WINDOWS = ("input_ids", "attention_mask", "piece_start", "piece_count", "word_mask")
PROMPT = ("prompt_positions", "prompt_mask")


class Stage(NamedTuple):
    """A graph to be written.

    Attributes
    ----------
    name
        Of the graph.
    module
        Takes the inputs in their order and gives a tuple.
    inputs
        Examples, no dimension of which is 0 or 1.
    outputs
        Names of what it gives.
    block
        Section of the block that is written, for errors.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    block: str


def labels_apart(model: GLiNER) -> bool:
    """Whether the vectors of labels do not depend on the text."""
    encoder = model.encoder
    return isinstance(encoder, BiEncoder) or (isinstance(encoder, UniEncoder) and encoder.table is not None)


def window_batch(tensors: dict[str, Tensor]) -> WindowBatch:
    """Put windows together; their own words have no part in what is computed."""
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
        The blocks.
    inputs, outputs
        Names.
    """

    def __init__(self, model: GLiNER, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Run windows."""
        tensors = dict(zip(self.inputs, given, strict=True))
        windows = window_batch(tensors)
        none = windows.word_mask[:, :0]
        label_mask = tensors.get("label_mask", none)
        if "prompt_mask" in tensors:
            torch._check(label_mask.shape[1] <= windows.prompt_mask.shape[1])
        apart = labels_apart(self.model)
        asked = (none, none) if apart else (label_mask, tensors.get("relation_mask", none))
        encoded = self.model.encoder(EncoderBatch(windows, *asked, ()))
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
    """Makes the vectors of chosen spans."""

    def __init__(self, model: GLiNER) -> None:
        super().__init__()
        self.span_rep = model.span_rep

    def forward(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> tuple[Tensor]:
        """Return ``(rows, spans, hidden)``."""
        return (self.span_rep.represent(words, spans, word_mask),)


class ReadLabels(nn.Module):
    """Makes the vectors of labels, as the label model gives them and as spans are held against them."""

    def __init__(self, model: GLiNER) -> None:
        super().__init__()
        self.embedder: Any = model.encoder.label_encoder
        self.projection = None if model.fusion is not None else model.prompt_rep

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return two times ``(labels, hidden)``."""
        vectors = self.embedder.embed(input_ids, attention_mask)
        return vectors, vectors * 1.0 if self.projection is None else self.projection(vectors)


class Run(nn.Module):
    """Runs one block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *given: Tensor) -> tuple[Tensor]:
        """Return what the block returns."""
        return (self.block(*given),)


class Emit(nn.Module):
    """Scores the tags of the words of windows."""

    def __init__(self, model: TokenClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, *given: Tensor) -> tuple[Tensor]:
        """Return the emissions, ``(rows, words, chains, tags)``."""
        windows = window_batch(dict(zip(WINDOWS, given, strict=True)))
        none = windows.word_mask[:, :0]
        return (self.model.emissions(EncoderBatch(windows, none, none, ())),)
