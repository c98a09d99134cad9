"""GLiNER, run by onnxruntime."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gliner_pipe.encoders._tables import lay_out
from gliner_pipe.encoders.base import EncoderBatch, Query
from gliner_pipe.encoders.bi_encoder import BiEncoder
from gliner_pipe.encoders.uni_encoder import UniEncoder
from gliner_pipe.model.gliner import GLiNER
from gliner_pipe.onnx import stages
from gliner_pipe.onnx.blocks import GraphPairs, GraphSpans, GraphTokens, GraphTriples, Scored, ScoredSpans
from gliner_pipe.onnx.files import VECTORS, load_without_weights
from gliner_pipe.onnx.label_vectors import LabelVectors
from gliner_pipe.onnx.running import RunsGraphs
from gliner_pipe.registry import registry
from gliner_pipe.span_reps.base import Readings
from gliner_pipe.span_reps.token_level import TokenLevel


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
        self._made = True

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

    def encode(self, batch: EncoderBatch) -> Readings | Scored:  # type: ignore[override]
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
        return Readings(words, made.get("span_words", words), made["labels"], made.get("relations", none))

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
