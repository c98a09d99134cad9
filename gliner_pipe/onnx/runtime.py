"""Models whose weights are ONNX graphs: GLiNER and the tagger, run by onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gliner_pipe.errors import CheckpointError
from gliner_pipe.modeling.encoders.base import EncoderBatch, Query
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
from gliner_pipe.modeling.encoders.label_table import lay_out
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.span_reps.base import Representations
from gliner_pipe.modeling.span_reps.token_level import TokenLevel
from gliner_pipe.modeling.token_classifier import LABELS, TokenClassifier
from gliner_pipe.onnx import graphs as stages
from gliner_pipe.onnx.blocks import (
    GraphPairs,
    GraphSpans,
    GraphTokens,
    GraphTriples,
    LabelVectors,
    Scored,
    ScoredSpans,
)
from gliner_pipe.onnx.session import (
    CPU,
    VECTORS,
    WHERE,
    Graph,
    cannot_train,
    check_providers,
    check_threads,
    copy_folder,
    load_without_weights,
    open_graphs,
    providers_for,
)
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import replace_file

if TYPE_CHECKING:
    from typing_extensions import Self


class RunsGraphs(nn.Module):
    """Goes before the class of a model: the graphs in place of weights, and no training.

    Attributes
    ----------
    threads, providers
        Of onnxruntime; see ``gliner_pipe.ONNX.v1``.
    folder
        Where the graphs are, once loaded.
    graphs
        By name.
    """

    threads: int | None
    providers: list[str] | None
    folder: Path | None
    graphs: dict[str, Graph]

    def set_session(self, threads: int | None, providers: list[str] | None) -> None:
        """Store the settings of onnxruntime, for the end of a constructor; there are no graphs yet.

        Raises
        ------
        ConfigError
            If a number of threads cannot be.
        """
        check_threads(threads, WHERE)
        self.threads, self.providers = threads, providers
        self.folder, self.graphs = None, {}
        self.eval()

    def take_graphs(self, path: Path) -> None:
        """Take the graphs of a folder; they are opened when they are first run.

        Raises
        ------
        CheckpointError
            When there are none.
        ConfigError
            If the execution providers are not there.
        """
        if self.providers is not None:
            check_providers(self.providers, WHERE)
        self.graphs = open_graphs(path, self.threads, self.providers or [CPU])
        self.folder = path

    @property
    def device(self) -> torch.device:
        """Where batches are wanted: onnxruntime itself moves them on."""
        return torch.device("cpu")

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Take the execution provider of a device, where none are given."""
        if self.providers is None:
            chosen = providers_for(torch.device(*args, **kwargs))
            for graph in self.graphs.values():
                graph.providers = chosen
        return self

    def save(self, path: Path) -> None:
        """Copy the folder of the graphs to `path`."""
        assert self.folder is not None
        copy_folder(self.folder, path)

    def build(self, labels: Sequence[str] = ()) -> None:
        """Refuse: there is nothing to train.

        Raises
        ------
        ConfigError
            Always.
        """
        raise cannot_train()

    def train(self, mode: bool = True) -> Self:
        """Refuse to be trained.

        Raises
        ------
        ConfigError
            If it is to be.
        """
        if mode:
            raise cannot_train()
        return super().train(False)

    def forward(self, batch: Any) -> Any:
        """Refuse: there is no loss.

        Raises
        ------
        ConfigError
            Always.
        """
        raise cannot_train()


@registry.architectures.register("gliner_pipe.ONNX.v1")
class OnnxGLiNER(RunsGraphs, GLiNER):
    """Runs the graphs of an exported GLiNER model; the same windows, thresholds, labels and decoding as ever.

    ``python -m gliner_pipe.export --onnx`` writes pipelines with this block. It needs ``onnxruntime``, and cannot be
    trained.

    Parameters
    ----------
    model
        The blocks that were exported. Settings of windows and of the decoder may be changed; weights are in the graphs.
    threads
        Threads that onnxruntime may use; as many as torch uses when not given.
    providers
        Execution providers of onnxruntime, the best first. By default the component's ``device`` decides: CUDA where it
        is CUDA, which needs ``onnxruntime-gpu``.
    """

    def __init__(self, model: GLiNER, threads: int | None = None, providers: list[str] | None = None) -> None:
        super().__init__(
            model.encoder,
            model.span_rep,
            decoder=model.decoder,
            relation_layer=model.relation_layer,
            triple=model.triple,
        )
        self._exported = (model.span_rep,)  # a tuple, for it is no part of this model
        self.label_vectors: LabelVectors | None = None
        self.set_session(threads, providers)

    # -- making it -------------------------------------------------------------------------------------------------

    def load(self, path: Path) -> None:
        """Take the graphs of a folder; they are opened when they are first run.

        Raises
        ------
        CheckpointError
            When there are none.
        """
        self.take_graphs(path)
        load_without_weights(self.encoder, path / "encoder")
        graphs = self.graphs
        scores, spans = graphs.get(stages.SCORES), graphs.get(stages.SPANS)
        (block,) = self._exported
        if isinstance(block, TokenLevel):
            assert scores is not None
            self.span_rep = GraphTokens(block, scores, spans, self.encoder.output_size)
        else:
            self.span_rep = (GraphSpans if scores else ScoredSpans)(block, scores, spans)
        self.span_rep.needs_vectors = self.relation_layer is not None
        if stages.PAIRS in graphs:
            self.relation_layer = GraphPairs(graphs[stages.PAIRS])
        if stages.TRIPLES in graphs:
            self.triple = GraphTriples(graphs[stages.TRIPLES])
        self.label_vectors = self._label_vectors(path)
        self._has_weights = True

    def _label_vectors(self, path: Path) -> LabelVectors | None:
        encoder = self.encoder
        if isinstance(encoder, BiEncoder):
            return LabelVectors(encoder, self.graphs[stages.LABELS])
        if not (isinstance(encoder, UniEncoder) and encoder.table is not None):
            return None
        vectors = LabelVectors(None, None)
        vectors.load(path / VECTORS, encoder.table)
        return vectors

    # -- running it ------------------------------------------------------------------------------------------------

    def encode(self, batch: EncoderBatch) -> Representations | Scored:  # type: ignore[override]
        """Run windows: vectors of words and labels, or scores of spans."""
        windows = batch.windows
        values = {**vars(windows), "label_mask": batch.label_mask, "relation_mask": batch.relation_mask}
        if self.label_vectors is not None:
            values |= self._labels(batch, self.label_vectors)
        made = {**values, **self.graphs[stages.MODEL].run(values)}
        none = torch.zeros(*batch.relation_mask.shape, 0)
        if "logits" in made:
            return Scored(
                made["logits"],
                made.get("span_words", none),
                made.get("labels", none),
                made.get("relations", none),
            )
        words = made["words"]
        return Representations(
            words, made.get("span_words", words), made["labels"], made.get("relations", none)
        )

    def _labels(self, batch: EncoderBatch, vectors: LabelVectors) -> dict[str, Tensor]:
        """Vectors of the labels of each row."""
        size = self.encoder.output_size

        def laid_out(kind: str, asked: list[tuple[str, ...]], mask: Tensor, projected: bool) -> Tensor:
            return lay_out(lambda labels: vectors.of(kind, labels, projected=projected), asked, mask, size)

        queries: tuple[Query, ...] = batch.queries
        entities = [query.entities for query in queries]
        relations = [query.relations for query in queries]
        labels = laid_out("entity", entities, batch.label_mask, True)
        # those that a graph reads, and those that are what there is where it reads none
        return {
            "label_vectors": labels,
            "labels": labels,
            "relations": laid_out("relation", relations, batch.relation_mask, False),
        }


#: Weights of the decoder: the scores of steps from tag to tag.
DECODER = "decoder.safetensors"


@registry.architectures.register("gliner_pipe.ONNXTokenClassifier.v1")
class OnnxTokenClassifier(RunsGraphs, TokenClassifier):
    """Runs the graph of an exported tagger; the decoder chooses the tags as ever.

    ``python -m gliner_pipe.export --onnx`` writes pipelines with this block. It needs ``onnxruntime``, and cannot be
    trained.

    Parameters
    ----------
    model
        The blocks that were exported.
    threads, providers
        As in ``gliner_pipe.ONNX.v1``.
    """

    def __init__(
        self, model: TokenClassifier, threads: int | None = None, providers: list[str] | None = None
    ) -> None:
        super().__init__(model.encoder, model.decoder)
        self.set_session(threads, providers)

    def load(self, path: Path) -> None:
        """Take the graph, labels and decoder of a folder.

        Raises
        ------
        CheckpointError
            When one is missing.
        """
        from safetensors.torch import load_model

        self.take_graphs(path)
        for name in (LABELS, DECODER):
            if not (path / name).is_file():
                raise CheckpointError(
                    f"{path}: no {name}. The folder is not whole: export the pipeline again."
                )
        load_without_weights(self.encoder, path / "encoder")
        self.labels = tuple(json.loads((path / LABELS).read_text(encoding="utf8")))
        self.decoder.build(self.encoder.output_size, self.labels)
        load_model(self.decoder, str(path / DECODER))
        self._has_weights = True
        self.eval()

    def emissions(self, inputs: EncoderBatch) -> Tensor:
        """Score the words of windows, ``(rows, words, chains, tags)``."""
        return self.graphs[stages.MODEL].run(vars(inputs.windows))["emissions"]


def save_decoder(model: TokenClassifier, path: Path) -> None:
    """Write what a tagger needs beside its graph."""
    from safetensors.torch import save_model

    (path / LABELS).write_text(json.dumps(model.labels, ensure_ascii=False), encoding="utf8")
    with replace_file(path / DECODER, follow=False) as file:
        save_model(model.decoder, str(file))
