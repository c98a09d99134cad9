"""A tagger, run by onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

from torch import Tensor

from gliner_pipe.encoders.base import EncoderBatch
from gliner_pipe.errors import CheckpointError
from gliner_pipe.model.token_classifier import LABELS, TokenClassifier
from gliner_pipe.onnx import stages
from gliner_pipe.onnx.files import load_without_weights
from gliner_pipe.onnx.running import RunsGraphs
from gliner_pipe.registry import registry
from gliner_pipe.saving import replace_file

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
        self._made = True
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
