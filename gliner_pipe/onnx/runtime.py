"""Models whose weights are ONNX graphs: GLiNER and the tagger, run by onnxruntime or OpenVINO."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.encoders.base import Encoder, EncoderBatch, Query
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
from gliner_pipe.modeling.encoders.label_table import lay_out
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.span_reps.base import Representations
from gliner_pipe.modeling.span_reps.token_level import TokenLevel
from gliner_pipe.modeling.token_classifier import LABELS, TokenClassifier
from gliner_pipe.onnx import graphs as names
from gliner_pipe.onnx.blocks import (
    VECTORS,
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
    SUFFIX,
    WHERE,
    Graph,
    Runtime,
    cannot_train,
    library,
    openvino,
    providers_for,
)
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import replace_file
from gliner_pipe.util.ranges import Size

if TYPE_CHECKING:
    from typing_extensions import Self


class RunsGraphs(nn.Module):
    """Mixin for the class of a model: graphs in place of weights, and no training.

    Attributes
    ----------
    threads, providers, runtime
        Settings; see ``gliner_pipe.ONNX.v1``.
    folder
        Folder of the graphs, once loaded.
    graphs
        Graphs by name.
    """

    threads: int | None
    providers: list[str] | None
    runtime: Runtime
    folder: Path | None
    graphs: dict[str, Graph]

    def set_session(self, threads: int | None, providers: list[str] | None, runtime: Runtime) -> None:
        """Store the settings; called at the end of a constructor."""
        self.threads, self.providers, self.runtime = threads, providers, runtime
        self.folder, self.graphs = None, {}
        self.eval()

    def load_graphs(self, path: Path) -> None:
        """Find the graphs of a folder; each is opened at its first run.

        Raises
        ------
        CheckpointError
            If the graph that reads texts is missing.
        ConfigError
            If an execution provider or OpenVINO is not available.
        """
        if self.runtime == "openvino":
            openvino()
        if self.providers is not None:
            if self.runtime == "openvino":
                raise ConfigError(f"{WHERE}.providers", "is set, and runtime = 'openvino' has none", "null")
            known = library("onnxruntime").get_available_providers()
            for name in self.providers:
                if name not in known:
                    raise ConfigError(f"{WHERE}.providers", f"found {name!r}", ", ".join(known))
        files = sorted(path.glob(f"*{SUFFIX}"))
        self.graphs = {
            file.stem: Graph(file, self.threads, self.providers or [CPU], self.runtime) for file in files
        }
        self.folder = path
        if names.MODEL not in self.graphs:
            raise _incomplete(path, f"{names.MODEL}{SUFFIX}")

    def load_tokenizer(self, encoder: Encoder, path: Path) -> None:
        """Load the tokenizer and windows of an encoder whose weights are in a graph."""
        with torch.device("meta"):
            encoder.load_assets(path)
        encoder.requires_grad_(False).eval()
        for module in encoder.modules():
            vars(module).pop("running", None)  # there are no weights to run in another precision

    @property
    def device(self) -> torch.device:
        """Device of batches: the runtime moves them on."""
        return torch.device("cpu")

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Use the execution provider of a device, unless providers are set; OpenVINO stays on the CPU."""
        if self.providers is None and self.runtime == "onnxruntime":
            chosen = providers_for(torch.device(*args, **kwargs))
            for graph in self.graphs.values():
                graph.providers = chosen
        return self

    def save(self, path: Path) -> None:
        """Copy the folder of the graphs to `path`.

        Raises
        ------
        CheckpointError
            If the folder no longer exists.
        """
        assert self.folder is not None
        if not self.folder.is_dir():
            raise CheckpointError(
                f"{self.folder}: the folder of the graphs no longer exists, so it cannot be copied."
            )
        if self.folder.resolve() != path.resolve():
            shutil.copytree(self.folder, path, dirs_exist_ok=True)

    def build(self, labels: Sequence[str] = ()) -> None:
        """Raise an error: there are no weights to create.

        Raises
        ------
        ConfigError
            Always.
        """
        raise cannot_train()

    def train(self, mode: bool = True) -> Self:
        """Raise an error for training mode.

        Raises
        ------
        ConfigError
            If `mode` is True.
        """
        if mode:
            raise cannot_train()
        return super().train(False)

    def forward(self, batch: Any) -> Any:
        """Raise an error: there is no loss.

        Raises
        ------
        ConfigError
            Always.
        """
        raise cannot_train()


def _incomplete(path: Path, name: str) -> CheckpointError:
    return CheckpointError(f"{path}: no {name}. The folder is incomplete: export the pipeline again.")


@registry.architectures.register("gliner_pipe.ONNX.v1")
class OnnxGLiNER(RunsGraphs, GLiNER):
    """Runs the graphs of an exported GLiNER model, with the same windows, thresholds, labels and decoding.

    ``python -m gliner_pipe.export --onnx`` writes pipelines with this block. It needs ``onnxruntime`` or ``openvino``,
    and cannot be trained.

    Parameters
    ----------
    model
        The blocks that were exported. Settings of windows and of the decoder may be changed; weights are in the graphs.
    threads
        Number of threads of a run; that of torch by default.
    providers
        Execution providers of onnxruntime, the preferred one first. By default the component's ``device`` decides: CUDA
        for a CUDA device, which needs ``onnxruntime-gpu``.
    runtime
        ``onnxruntime``, or ``openvino`` to run on the CPU with OpenVINO, whatever the ``device``.
    """

    def __init__(
        self,
        model: GLiNER,
        threads: Size | None = None,
        providers: list[str] | None = None,
        runtime: Runtime = "onnxruntime",
    ) -> None:
        super().__init__(
            model.encoder,
            model.span_rep,
            decoder=model.decoder,
            relation_layer=model.relation_layer,
            triple=model.triple,
        )
        self._exported = (model.span_rep,)  # in a tuple, so that torch does not register it as a submodule
        self.label_vectors: LabelVectors | None = None
        self.set_session(threads, providers, runtime)

    def load(self, path: Path) -> None:
        """Load the graphs of a folder; each is opened at its first run.

        Raises
        ------
        CheckpointError
            If they are missing.
        """
        self.load_graphs(path)
        self.load_tokenizer(self.encoder, path / "encoder")
        graphs = self.graphs
        scores, spans = graphs.get(names.SCORES), graphs.get(names.SPANS)
        (block,) = self._exported
        if isinstance(block, TokenLevel):
            assert scores is not None
            self.span_rep = GraphTokens(block, scores, spans, self.encoder.output_size)
        else:
            self.span_rep = (GraphSpans if scores else ScoredSpans)(block, scores, spans)
        self.span_rep.needs_vectors = self.relation_layer is not None
        if names.PAIRS in graphs:
            self.relation_layer = GraphPairs(graphs[names.PAIRS])
        if names.TRIPLES in graphs:
            self.triple = GraphTriples(graphs[names.TRIPLES])
        encoder = self.encoder
        if isinstance(encoder, BiEncoder):
            self.label_vectors = LabelVectors(encoder, graphs[names.LABELS])
        elif isinstance(encoder, UniEncoder) and encoder.table is not None:
            self.label_vectors = LabelVectors(None, None)
            self.label_vectors.load(path / VECTORS, encoder.table)
        self.is_built = True

    def encode(self, batch: EncoderBatch) -> Representations | Scored:  # type: ignore[override]
        """Run windows: return vectors of words and labels, or scores of spans."""
        windows = batch.windows
        values = {**vars(windows), "label_mask": batch.label_mask, "relation_mask": batch.relation_mask}
        if self.label_vectors is not None:
            values |= self._labels(batch, self.label_vectors)
        made = {**values, **self.graphs[names.MODEL].run(values)}
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
        """Return the vectors of the labels of each row."""
        size = self.encoder.output_size

        def laid_out(kind: str, labels: list[tuple[str, ...]], mask: Tensor, projected: bool) -> Tensor:
            return lay_out(lambda some: vectors.of(kind, some, projected=projected), labels, mask, size)

        queries: tuple[Query, ...] = batch.queries
        entities = laid_out("entity", [query.entities for query in queries], batch.label_mask, True)
        relations = [query.relations for query in queries]
        return {
            "label_vectors": entities,  # input of the graph, if the model has a fusion
            "labels": entities,
            "relations": laid_out("relation", relations, batch.relation_mask, False),
        }


#: Weights of the decoder: scores of transitions between tags.
DECODER = "decoder.safetensors"


@registry.architectures.register("gliner_pipe.ONNXTokenClassifier.v1")
class OnnxTokenClassifier(RunsGraphs, TokenClassifier):
    """Runs the graph of an exported tagger; the decoder runs in torch.

    ``python -m gliner_pipe.export --onnx`` writes pipelines with this block. It needs ``onnxruntime`` or ``openvino``,
    and cannot be trained.

    Parameters
    ----------
    model
        The blocks that were exported.
    threads, providers, runtime
        As in ``gliner_pipe.ONNX.v1``.
    """

    def __init__(
        self,
        model: TokenClassifier,
        threads: Size | None = None,
        providers: list[str] | None = None,
        runtime: Runtime = "onnxruntime",
    ) -> None:
        super().__init__(model.encoder, model.decoder)
        self.set_session(threads, providers, runtime)

    def load(self, path: Path) -> None:
        """Load the graph, labels and decoder of a folder.

        Raises
        ------
        CheckpointError
            If one is missing.
        """
        self.load_graphs(path)
        for name in (LABELS, DECODER):
            if not (path / name).is_file():
                raise _incomplete(path, name)
        self.load_tokenizer(self.encoder, path / "encoder")
        self.labels = tuple(json.loads((path / LABELS).read_text(encoding="utf8")))
        self.decoder.load_assets(path)
        self.decoder.build(self.encoder.output_size, self.labels)
        load_model(self.decoder, str(path / DECODER))
        self.is_built = True
        self.eval()

    def emissions(self, inputs: EncoderBatch) -> Tensor:
        """Score the words of windows, ``(rows, words, chains, tags)``."""
        return self.graphs[names.MODEL].run(vars(inputs.windows))["emissions"]


def save_decoder(model: TokenClassifier, path: Path) -> None:
    """Write the labels and the decoder of a tagger into the folder of its graph."""
    model.save_tags(path)
    with replace_file(path / DECODER, follow=False) as file:
        save_model(model.decoder, str(file))
