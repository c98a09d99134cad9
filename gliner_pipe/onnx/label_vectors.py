"""Vectors of labels that do not depend on the text: each is had once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gliner_pipe.backbones.text_embedder import MOST_KEPT, TEXTS_AT_ONCE
from gliner_pipe.encoders._tables import PromptTable
from gliner_pipe.encoders.bi_encoder import BiEncoder
from gliner_pipe.model.cache import Cache
from gliner_pipe.model.gliner import GLiNER
from gliner_pipe.onnx.graphs import Graph
from gliner_pipe.saving import replace_file


class LabelVector(NamedTuple):
    """Vector of a label, as it was read and as spans are held against it; ``(hidden,)`` each."""

    read: Tensor
    projected: Tensor


#: Kind and label.
_Key = tuple[str, str]


class LabelVectors:
    """Looks vectors up, and has the graph of the label model make those that are missing.

    Parameters
    ----------
    encoder
        Cuts labels into pieces; None where all vectors are known.
    graph
        Of the label model.
    """

    def __init__(self, encoder: BiEncoder | None, graph: Graph | None) -> None:
        self.encoder = encoder
        self.graph = graph
        self.kept: Cache[_Key, LabelVector] = Cache(MOST_KEPT)
        #: Those of a compressed prompt, which nothing could make again.
        self.known: dict[_Key, LabelVector] = {}

    def of(self, kind: str, labels: Sequence[str], *, projected: bool) -> Tensor:
        """Return the vectors of labels of a `kind`, ``entity`` or ``relation``: ``(labels, hidden)``."""
        keys = [(kind, label) for label in labels]
        found = (
            [self.known[key] for key in keys] if self.graph is None else self.kept.get_all(keys, self._make)
        )
        return torch.stack([one.projected if projected else one.read for one in found])

    def _make(self, keys: Sequence[_Key]) -> list[LabelVector]:
        assert self.encoder is not None and self.graph is not None
        vectors: list[LabelVector] = []
        for at in range(0, len(keys), TEXTS_AT_ONCE):
            labels = [label for _, label in keys[at : at + TEXTS_AT_ONCE]]
            made = self.graph.run(self.encoder.label_encoder.cut(labels))
            vectors += [LabelVector(*pair) for pair in zip(made["vectors"], made["projected"], strict=True)]
        return vectors

    def load(self, path: Path, table: PromptTable) -> None:
        """Take the vectors of a compressed prompt from a file."""
        content = load_file(path)
        for kind, names in table.names.items():
            vectors = zip(content[f"{kind}.read"], content[f"{kind}.projected"], strict=True)
            for name, pair in zip(names, vectors, strict=True):
                self.known[kind, name] = LabelVector(*pair)


def save_table(model: GLiNER, table: PromptTable, path: Path) -> None:
    """Write the vectors of a compressed prompt to a file."""
    content = {}
    project = model.prompt_rep if model.fusion is None else None
    for kind, vectors in (("entity", table.entities), ("relation", table.relations)):
        content[f"{kind}.read"] = vectors.detach().clone()
        content[f"{kind}.projected"] = (vectors if project is None else project(vectors)).detach().clone()
    with replace_file(path, follow=False) as file:
        save_file(content, file)
