"""Exports the models of a pipeline as ONNX graphs, optionally quantised to int8, with the pipeline around them."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from confit import Config
from spacy.language import Language
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError, reason_of
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.precision import full_precision
from gliner_pipe.modeling.token_classifier import TokenClassifier
from gliner_pipe.onnx.blocks import VECTORS, save_table
from gliner_pipe.onnx.compare import Difference, compare, compare_taggers
from gliner_pipe.onnx.graph_layers import for_graphs
from gliner_pipe.onnx.graphs import AXES, LABELS, MODEL, Stage, gliner_stages, tagger_stages
from gliner_pipe.onnx.runtime import OnnxGLiNER, OnnxTokenClassifier, save_decoder
from gliner_pipe.onnx.session import SUFFIX, WHERE, library
from gliner_pipe.pipeline.base import TorchPipe
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import save_pipeline

#: Largest difference allowed between a score of a graph in single precision and of the model.
TOLERANCE = 1e-3
#: Graphs are exported from the weights as they are, and run in that precision.
FULL_PRECISION = {"dtype": None, "quantize": None, "compile": False}
#: Operators whose weights may be quantised.
QUANTIZED = ("MatMul", "Gemm")
#: Sections of a config that only affect training: adapters are merged, and losses are not used.
_TRAINING_ONLY = ("adapter", "label_adapter", "quantization", "loss", "relation_loss")

logger = logging.getLogger(__name__)


# -- a pipeline --------------------------------------------------------------------------------------------------


def write_onnx(
    nlp: Language, target: Path, *, int8: bool = False, threads: int | None = None
) -> dict[str, Difference]:
    """Write a pipeline whose models are graphs; the given pipeline is not changed.

    Parameters
    ----------
    nlp
        A pipeline with trained components ``gliner`` or ``token_classifier``.
    target
        Folder of the new pipeline, written atomically.
    int8
        Whether to quantise the matrix products of the encoders to 8 bits.
    threads
        Number of threads of the new pipeline.

    Returns
    -------
    dict
        By component, the difference between the scores of some sentences before and after.

    Raises
    ------
    ConfigError
        If there is no such component, or it has a block that cannot be exported. Nothing is written then.
    """
    pipes = {name: pipe for name, pipe in nlp.pipeline if isinstance(pipe, TorchPipe)}
    if not pipes:
        raise ConfigError(
            "pipeline",
            f"has {', '.join(nlp.pipe_names) or 'no components'}",
            "a component gliner or token_classifier",
        )
    report = {}
    before = {name: (pipe._ready(), pipe.cfg, dict(nlp._pipe_configs[name])) for name, pipe in pipes.items()}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, pipe in pipes.items():
                with pipe.placed():
                    exported, report[name] = _export_component(pipe, Path(folder, name), int8=int8)
                exported.threads = threads
                pipe.model, pipe.cfg = exported, {**pipe.cfg, **FULL_PRECISION}
                nlp._pipe_configs[name] = {**nlp._pipe_configs[name], **_settings(exported, before[name][2])}
            save_pipeline(nlp, target)
        finally:
            for name, (model, cfg, config) in before.items():
                pipes[name].model, pipes[name].cfg = model, cfg
                nlp._pipe_configs[name] = config
    return report


def _export_component(pipe: Any, folder: Path, *, int8: bool) -> tuple[Any, Difference]:
    """Export the model of a component into a folder; return the model that runs the graphs, and the difference."""
    network = pipe._ready()
    device = network.device
    try:
        with full_precision(network.to("cpu")):
            return _export_network(pipe, network, folder, int8=int8)
    finally:
        network.to(device)


def _refuse_tasks(network: Any) -> None:
    """Refuse a model that predicts more than entities and relations between them."""
    for option in ("counter", "classifier", "relation_finder", "record_finder"):
        if block := getattr(network, option, None):
            found = f"found {type(block).__name__}, which cannot be exported"
            raise ConfigError(f"components.*.model.{option}", found, "null", "Run the pipeline with torch")


def _export_network(pipe: Any, network: Any, folder: Path, *, int8: bool) -> tuple[Any, Difference]:
    if isinstance(network, (OnnxGLiNER, OnnxTokenClassifier)):
        raise ConfigError(WHERE, "is exported already", "a model with weights of torch")
    _refuse_tasks(network)
    folder.mkdir(parents=True)
    section = _without_training(network.blocks or Config.serialize({"model": network})["model"])
    model: Any = for_graphs(network)
    model.encoder.save_assets(folder / "encoder")
    is_tagger = isinstance(network, TokenClassifier)
    for stage in tagger_stages(model) if is_tagger else gliner_stages(model):
        path = _trace(stage, folder)
        if int8 and stage.name in (MODEL, LABELS):
            logger.info("%s: %d matrix products quantised to int8", path.name, _quantize(path))
    blocks: Any = Config({"model": section}).resolve(registry=registry)["model"]
    exported: Any = OnnxTokenClassifier(blocks) if is_tagger else OnnxGLiNER(blocks)
    if is_tagger:
        save_decoder(network, folder)
    elif isinstance(model.encoder, UniEncoder) and model.encoder.table is not None:
        save_table(model, model.encoder.table, folder / VECTORS)
    exported.load(folder)
    exported.section, exported.word_splitter = section, network.word_splitter
    if is_tagger:
        difference = compare_taggers(network, exported)
    else:
        difference = compare(network, exported, [item.text for item in pipe.label_items])
    if not int8 and difference.largest > TOLERANCE:
        raise ConfigError(
            WHERE,
            f"has other scores as graphs: the largest difference is {difference.largest:.2g}",
            f"at most {TOLERANCE}",
        )
    return exported, difference


def _without_training(section: Any) -> Any:
    """Return a section of a config without what only affects training."""
    if not isinstance(section, Mapping):
        return section
    return {
        key: _without_training(value)
        for key, value in section.items()
        if key not in _TRAINING_ONLY or isinstance(value, str)
    }


def _settings(exported: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a component whose model has been exported; `config` is that before."""
    is_tagger = isinstance(exported, OnnxTokenClassifier)
    model = {
        "@architectures": "gliner_pipe.ONNXTokenClassifier.v1" if is_tagger else "gliner_pipe.ONNX.v1",
        "model": exported.section,
        "threads": exported.threads,
        "providers": exported.providers,
    }
    settings: dict[str, Any] = {"model": model, **FULL_PRECISION}
    if is_tagger:
        settings |= dict.fromkeys(("embedding", "decoder", "mode", "scheme", "chains"))
    if exported.word_splitter is not None and config.get("word_splitter") is None:
        settings["word_splitter"] = exported.word_splitter
    return settings


# -- one graph ---------------------------------------------------------------------------------------------------


class _Aligned(nn.Module):
    """States which dimensions of the inputs are equal, then runs the stage."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.module = stage.module
        self.axes = [AXES[name] for name in stage.inputs]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        sizes: dict[str, Any] = {}
        for tensor, axes in zip(inputs, self.axes, strict=True):
            for axis, size in zip(axes, tensor.shape, strict=True):
                if axis is not None:
                    torch._check(sizes.setdefault(axis, size) == size)
        outputs: tuple[Tensor, ...] = self.module(*inputs)
        return outputs


def _trace(stage: Stage, folder: Path) -> Path:
    """Write one graph into a folder.

    Raises
    ------
    ConfigError
        If torch's exporter cannot export the block, with the reason it gives.
    """
    library("onnxscript")
    shapes = tuple(
        {place: axis for place, axis in enumerate(AXES[name]) if axis is not None} for name in stage.inputs
    )
    path = folder / f"{stage.name}{SUFFIX}"
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _Aligned(stage).eval(),
                tuple(stage.inputs.values()),
                input_names=list(stage.inputs),
                output_names=list(stage.outputs),
                dynamic_shapes=(shapes,),
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            program.save(path)
    except Exception as error:  # the exporter raises what torch, sympy and onnxscript raise
        reason = reason_of(error.__cause__ or error)
        raise ConfigError(
            f"components.*.model.{stage.block}",
            f"cannot be exported ({reason})",
            do="Keep the pipeline as it is, or train one with another block",
        ) from error
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's notes and its warnings about its own implementation."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.__trace", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning
        )
        warnings.filterwarnings(
            "ignore", message="# The axis name", category=UserWarning
        )  # of several inputs
        warnings.filterwarnings("ignore", message="While compiling, we found certain side effects")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _quantize(path: Path) -> int:
    """Quantise the matrix products of the encoder in a graph, in place; heads and embeddings stay as they are.

    Weights are quantised once, per column; activations are quantised dynamically.

    Returns
    -------
    int
        Number of 8-bit products.
    """
    onnx, quantization = library("onnx"), library("onnxruntime.quantization")
    graph = onnx.load(path).graph
    excluded = [node.name for node in graph.node if node.op_type in QUANTIZED and not _in_encoder(node)]
    target = path.with_name(f"int8-{path.name}")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime logs advice to the root logger
    try:
        quantization.quantize_dynamic(
            path,
            target,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=excluded,
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        root.setLevel(level)
    target.replace(path)
    return sum(node.op_type == "MatMulInteger" for node in onnx.load(path).graph.node)


def _in_encoder(node: Any) -> bool:
    """Return whether a node belongs to a pretrained encoder; the exporter records the module of a node."""
    scopes = next(
        (item.value for item in node.metadata_props if item.key == "pkg.torch.onnx.name_scopes"), ""
    )
    return ".backbone." in scopes or ".embedder." in scopes or "embedder.encoder" in scopes
