"""Blocks of a model that run ONNX graphs: span representations, relation heads and label vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
from gliner_pipe.modeling.encoders.label_encoder import TEXTS_AT_ONCE
from gliner_pipe.modeling.encoders.label_table import PromptTable
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.layers.vector_table import VectorTable
from gliner_pipe.modeling.relation_layers.base import RelationLayer
from gliner_pipe.modeling.span_reps import base
from gliner_pipe.modeling.span_reps.base import FoundSpans, SpanRep, valid_spans
from gliner_pipe.modeling.span_reps.token_level import TokenLevel
from gliner_pipe.modeling.triples.base import Triple
from gliner_pipe.onnx.session import Graph, NoWeights
from gliner_pipe.util.atomic import replace_file

#: Label vectors of a compressed prompt.
VECTORS = "label_vectors.safetensors"


class Scored(NamedTuple):
    """Output of a graph that also scores the spans of windows; compare ``Representations``.

    Attributes
    ----------
    logits
        ``(rows, words, widths, labels)``.
    span_words, labels, relations
        Inputs of further heads; of width 0 if there are none.
    tasks, shared
        None: graphs read no tasks, and their blocks share nothing else.
    """

    logits: Tensor
    span_words: Tensor
    labels: Tensor
    relations: Tensor
    tasks: None = None
    shared: None = None


class GraphSpans(NoWeights, SpanRep):
    """Scores all spans up to a width.

    Parameters
    ----------
    block
        The span representation that was exported.
    scores, spans
        Graphs that score all spans, and that compute the vectors of chosen spans; None if not needed.
    """

    represents_many = False  # the graph of scores scores all spans

    def __init__(self, block: SpanRep, scores: Graph | None, spans: Graph | None) -> None:
        super().__init__()
        self.max_width = block.max_width
        self.projects_labels, self.needs_vectors = block.projects_labels, spans is not None
        self.graphs = {"scores": scores, "spans": spans}

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Score all spans."""
        return _score(self.graphs["scores"], words, labels, word_mask)

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Return the vectors of chosen spans."""
        return _represent(self.graphs["spans"], words, spans, word_mask)


class ScoredSpans(GraphSpans):
    """Finds spans that the graph of the encoder has scored."""

    def find(self, read: Scored, windows: WindowBatch, limits: Tensor) -> FoundSpans:  # type: ignore[override]
        """Return the spans above their thresholds."""
        probs = read.logits.sigmoid()
        keep = (probs > limits[:, None, None]) & valid_spans(windows, self.max_width or 1)[..., None]
        rows, starts, widths, names = keep.nonzero().unbind(1)
        return FoundSpans(rows, starts, starts + widths, names, probs[keep])

    def class_scores(self, read: Scored, windows: WindowBatch, spans: Tensor) -> Tensor:  # type: ignore[override]
        """Return the scores of chosen spans for all labels, ``(spans, labels)``."""
        rows, starts, ends = spans.unbind(1)
        return read.logits[rows, starts, ends - starts].sigmoid_()


class GraphTokens(NoWeights, TokenLevel):
    """Scores each word as start, end and inside of an entity.

    Parameters
    ----------
    block
        The span representation that was exported.
    scores, spans
        As in ``GraphSpans``.
    hidden_size
        Width of the vectors.
    """

    def __init__(self, block: TokenLevel, scores: Graph, spans: Graph | None, hidden_size: int) -> None:
        super().__init__(represent_spans=block.represent_spans, project_labels=block.project_labels)
        self.needs_vectors = block.needs_vectors
        self.hidden_size = hidden_size
        self.graphs = {"scores": scores, "spans": spans}

    def score(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
        """Score all words, for as many labels at a time as the memory of the hidden layer allows."""
        step = max(1, base.SCORES_AT_ONCE // max(4 * self.hidden_size * word_mask.numel(), 1))
        parts = [_score(self.graphs["scores"], words, some, word_mask) for some in labels.split(step, 1)]
        return torch.cat(parts, 2)

    def represent(self, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
        """Return the vectors of chosen spans."""
        return _represent(self.graphs["spans"], words, spans, word_mask)


class GraphPairs(NoWeights, RelationLayer):
    """Proposes related entity pairs."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graphs = {"pairs": graph}

    def forward(self, entities: Tensor, mask: Tensor) -> Tensor:
        """Score all ordered pairs."""
        return self.graphs["pairs"].run({"entities": entities, "mask": mask})["strengths"]


class GraphTriples(NoWeights, Triple):
    """Classifies the relations of entity pairs."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graphs = {"triples": graph}

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relation labels."""
        return self.graphs["triples"].run({"head": head, "relations": relations, "tail": tail})["logits"]


def _score(graph: Graph | None, words: Tensor, labels: Tensor, word_mask: Tensor) -> Tensor:
    assert graph is not None
    return graph.run({"words": words, "labels": labels, "word_mask": word_mask})["logits"]


def _represent(graph: Graph | None, words: Tensor, spans: Tensor, word_mask: Tensor) -> Tensor:
    assert graph is not None
    return graph.run({"words": words, "spans": spans, "word_mask": word_mask})["vectors"]


class LabelVectors:
    """Label vectors before and after the projection for scoring, ``(2, hidden)`` for each label.

    Missing ones are computed by the graph of the label model; those out of use are removed, see ``VectorTable``.

    Parameters
    ----------
    encoder
        Tokenizes labels; None if all vectors are known.
    graph
        Graph of the label model; None if all vectors are known.
    """

    def __init__(self, encoder: BiEncoder | None, graph: Graph | None) -> None:
        self.encoder = encoder
        self.graph = graph
        self.kept: dict[str, VectorTable[str]] = {"entity": VectorTable(), "relation": VectorTable()}

    def of(self, kind: str, labels: Sequence[str], *, projected: bool) -> Tensor:
        """Return the vectors of labels of a `kind` (``entity`` or ``relation``), ``(labels, hidden)``."""
        return self.kept[kind].get(labels, self._compute)[:, int(projected)]

    def _compute(self, labels: Sequence[str]) -> Tensor:
        assert self.encoder is not None and self.graph is not None
        vectors: list[Tensor] = []
        for at in range(0, len(labels), TEXTS_AT_ONCE):
            made = self.graph.run(self.encoder.label_encoder.cut(labels[at : at + TEXTS_AT_ONCE]))
            vectors.append(torch.stack([made["vectors"], made["projected"]], 1))
        return torch.cat(vectors)

    def load(self, path: Path, table: PromptTable) -> None:
        """Load the vectors of a compressed prompt."""
        content = load_file(path)
        for kind, names in table.names.items():
            vectors = torch.stack([content[f"{kind}.read"], content[f"{kind}.projected"]], 1)
            places = {name: place for place, name in enumerate(names)}

            def read(keys: list[str], vectors: Tensor = vectors, places: dict[str, int] = places) -> Tensor:
                return vectors[[places[key] for key in keys]]

            if places:  # never removed: they cannot be computed again
                self.kept[kind].get(list(places), read, pin=True)


def save_table(model: GLiNER, table: PromptTable, path: Path) -> None:
    """Write the label vectors of a compressed prompt to a file."""
    content = {}
    project = model.prompt_rep if model.fusion is None else None
    for kind, vectors in (("entity", table.entities), ("relation", table.relations)):
        content[f"{kind}.read"] = vectors.detach().clone()
        content[f"{kind}.projected"] = (vectors if project is None else project(vectors)).detach().clone()
    with replace_file(path, follow=False) as file:
        save_file(content, file)
