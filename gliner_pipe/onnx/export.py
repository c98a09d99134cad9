"""Exports the models of a pipeline as ONNX graphs, optionally quantized to int8, and the pipeline around them."""

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

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.block import described
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.precision import full_precision
from gliner_pipe.modeling.span_reps.by_width import StackedSpanRep
from gliner_pipe.modeling.token_classifier import TokenClassifier
from gliner_pipe.onnx import graphs
from gliner_pipe.onnx.blocks import save_table
from gliner_pipe.onnx.compare import Difference, compare, compare_taggers
from gliner_pipe.onnx.graph_layers import for_graphs
from gliner_pipe.onnx.graphs import AXES, LABELS, MODEL, PROMPT, WINDOWS, Stage, labels_apart
from gliner_pipe.onnx.runtime import OnnxGLiNER, OnnxTokenClassifier, save_decoder
from gliner_pipe.onnx.session import SUFFIX, VECTORS, WHERE, library
from gliner_pipe.pipeline.base import TorchPipe
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import save_pipeline

WORDS = (["Ada", "Lovelace", "wrote", "programs"], ["Rome", "burns", "."])
ENTITIES, RELATIONS = ("person", "city", "year"), ("born in", "part of")


def tagger_stages(model: TokenClassifier) -> Iterator[Stage]:
    """Give the graph of a tagger: its decoder stays what it is."""
    batch = model.encoder.collate(model.prepare(WORDS))
    inputs = {name: getattr(batch.windows, name) for name in WINDOWS}
    yield Stage(graphs.MODEL, graphs.Emit(model), inputs, ("emissions",), "encoder")


def gliner_stages(model: GLiNER) -> Iterator[Stage]:
    """Give the graphs of a model.

    Raises
    ------
    ConfigError
        If it has a block that no graph can hold.
    """
    if model.label_generator is not None:
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
        yield Stage(graphs.SCORES, graphs.Score(model), inputs, ("logits",), "span_rep")
    if model.span_rep.needs_vectors or getattr(model.span_rep, "represent_spans", False):
        spans = torch.tensor([[[0, 1], [1, 2], [2, 2], [0, 0]], [[0, 0], [1, 1], [0, 2], [2, 2]]])
        inputs = {"words": words, "spans": spans, "word_mask": mask}
        yield Stage(graphs.SPANS, graphs.Represent(model), inputs, ("vectors",), "span_rep")
    if apart and isinstance(model.encoder, BiEncoder):
        yield _labels(model)
    if model.relation_layer is not None and has_weights(model.relation_layer):
        inputs = {"entities": words, "mask": mask}
        yield Stage(graphs.PAIRS, graphs.Run(model.relation_layer), inputs, ("strengths",), "relation_layer")
    if model.triple is not None and has_weights(model.triple):
        inputs = {"head": words, "relations": labels, "tail": words.flip(1)}
        yield Stage(graphs.TRIPLES, graphs.Run(model.triple), inputs, ("logits",), "triple")


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
    return Stage(graphs.MODEL, graphs.Read(model, tuple(inputs), outputs), inputs, tuple(outputs), "encoder")


def _labels(model: GLiNER) -> Stage:
    """From the pieces of labels to their vectors."""
    embedder: Any = model.encoder.label_encoder
    pieces = embedder.tokenizer(["person", "town or city"], padding=True, return_tensors="pt")
    inputs = {name: pieces[name] for name in ("input_ids", "attention_mask")}
    return Stage(
        graphs.LABELS, graphs.ReadLabels(model), inputs, ("vectors", "projected"), "encoder.label_model"
    )


class _Aligned(nn.Module):
    """Says which dimensions of the inputs are one and the same, then runs the stage."""

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
        made: tuple[Tensor, ...] = self.module(*inputs)
        return made


def trace(stage: Stage, folder: Path) -> Path:
    """Write one graph into a folder.

    Raises
    ------
    ConfigError
        If the exporter has no way to write the block; its own words are in the message.
    """
    library("onnxscript", WHERE)
    free = torch.export.Dim.DYNAMIC
    shapes = tuple(
        {place: free for place, axis in enumerate(AXES[name]) if axis is not None} for name in stage.inputs
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
            _name_axes(program, stage)
            program.save(path)
    except Exception as error:  # the exporter raises what torch, sympy and onnxscript raise
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise ConfigError(
            f"components.*.model.{stage.block}",
            f"cannot be written as a graph ({reason})",
            do="Keep the pipeline as it is, or train one with another block in this place",
        ) from error
    return path


def _name_axes(program: Any, stage: Stage) -> None:
    """Give the dimensions of the inputs their names."""
    names: dict[str, str] = {}
    for value in program.model.graph.inputs:
        for place, axis in enumerate(AXES[value.name]):
            if axis is not None:
                names[str(value.shape[place])] = axis
    program.rename_axes(names)


@contextmanager
def _quiet() -> Iterator[None]:
    """Show neither the exporter's notes nor warnings about its own workings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.__trace", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning
        )
        warnings.filterwarnings("ignore", message="While compiling, we found certain side effects")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


#: Operators whose weights may be quantised.
OPERATORS = ("MatMul", "Gemm")


def quantize(path: Path) -> int:
    """Quantise the products of the encoder in a graph, in place; heads and embeddings stay as they are.

    The weights are quantised once, by column; what they are multiplied with is quantised as it comes.

    Returns
    -------
    int
        How many products there are of 8 bits.
    """
    onnx, quantization = library("onnx", WHERE), library("onnxruntime.quantization", WHERE)
    graph = onnx.load(path).graph
    kept = [node.name for node in graph.node if node.op_type in OPERATORS and not _of_encoder(node)]
    target = path.with_name(f"int8-{path.name}")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # onnxruntime warns of what it advises by the root logger
    try:
        quantization.quantize_dynamic(
            path,
            target,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=kept,
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        root.setLevel(level)
    target.replace(path)
    return sum(node.op_type == "MatMulInteger" for node in onnx.load(path).graph.node)


def _of_encoder(node: Any) -> bool:
    """Whether a node stems from a pretrained encoder; the exporter writes down which module it was in."""
    scopes = next(
        (item.value for item in node.metadata_props if item.key == "pkg.torch.onnx.name_scopes"), ""
    )
    return ".backbone." in scopes or ".embedder." in scopes or "embedder.encoder" in scopes


logger = logging.getLogger(__name__)

#: Scores of a graph in single precision are at most so far from those of the model.
TOLERANCE = 1e-3
#: Graphs are written from the weights as they are, and run as they are written.
FULL_PRECISION = {"dtype": None, "quantize": None, "compile": False}


def write_onnx(
    nlp: Language, target: Path, *, int8: bool = False, threads: int | None = None
) -> dict[str, Difference]:
    """Write a pipeline whose models are graphs; the pipeline itself stays as it is.

    Parameters
    ----------
    nlp
        With trained components ``gliner`` or ``token_classifier``.
    target
        Folder of the new pipeline, written all at once.
    int8
        Products of the encoders with weights of 8 bits.
    threads
        Threads that the new pipeline may use.

    Returns
    -------
    dict
        By component, how far the scores of some sentences are from those of before.

    Raises
    ------
    ConfigError
        If there is no such component, or it has a block that no graph can hold. Nothing has been written then.
    """
    found = {name: pipe for name, pipe in nlp.pipeline if isinstance(pipe, TorchPipe)}
    if not found:
        raise ConfigError(
            "pipeline", f"has {', '.join(nlp.pipe_names) or 'nothing'}", "a gliner or token_classifier"
        )
    report = {}
    before = {name: (pipe._ready(), pipe.cfg, dict(nlp._pipe_configs[name])) for name, pipe in found.items()}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name, pipe in found.items():
                with pipe.placed():
                    made, report[name] = write_component(pipe, Path(folder, name), int8=int8)
                made.threads = threads
                pipe.model, pipe.cfg = made, {**pipe.cfg, **FULL_PRECISION}
                nlp._pipe_configs[name] = {**nlp._pipe_configs[name], **_settings(made)}
            save_pipeline(nlp, target)
        finally:
            for name, (model, cfg, config) in before.items():
                found[name].model, found[name].cfg = model, cfg
                nlp._pipe_configs[name] = config
    return report


def write_component(pipe: Any, folder: Path, *, int8: bool = False) -> tuple[Any, Difference]:
    """Write the model of a component as graphs into a folder.

    Returns
    -------
    tuple
        The model that runs them, and how far its scores are from those of before.
    """
    network = pipe._ready()
    device = network.device
    try:
        with full_precision(network.to("cpu")):
            return _write_network(pipe, network, folder, int8=int8)
    finally:
        network.to(device)


def _write_network(pipe: Any, network: Any, folder: Path, *, int8: bool) -> tuple[Any, Difference]:
    if isinstance(network, (OnnxGLiNER, OnnxTokenClassifier)):
        raise ConfigError("components.*.model", "found graphs already", "a model of torch")
    folder.mkdir(parents=True)
    section = without_training(network.blocks or Config.serialize({"model": network})["model"])
    model: Any = for_graphs(network)
    model.encoder.save_assets(folder / "encoder")
    is_tagger = isinstance(network, TokenClassifier)
    for stage in tagger_stages(model) if is_tagger else gliner_stages(model):
        path = trace(stage, folder)
        if int8 and stage.name in (MODEL, LABELS):
            logger.info("%s: %d products of 8 bits", path.name, quantize(path))
    blocks: Any = Config({"model": section}).resolve(registry=registry)["model"]
    made: Any = OnnxTokenClassifier(blocks) if is_tagger else OnnxGLiNER(blocks)
    if is_tagger:
        save_decoder(network, folder)
    elif isinstance(model.encoder, UniEncoder) and model.encoder.table is not None:
        save_table(model, model.encoder.table, folder / VECTORS)
    made.load(folder)
    made.section, made.word_splitter = section, network.word_splitter
    labels = [item.text for item in pipe.label_items] if not is_tagger else []
    difference = compare_taggers(network, made) if is_tagger else compare(network, made, labels)
    if not int8 and difference.largest > TOLERANCE:
        raise ConfigError(
            "components.*.model",
            f"gives other scores as a graph: the largest difference is {difference.largest:.2g}",
            f"at most {TOLERANCE}",
        )
    return made, difference


def without_training(section: Any) -> Any:
    """Leave out of a configuration what is about training: adapters are merged, and losses have nothing to do."""
    if not isinstance(section, Mapping):
        return section
    kept = {}
    for key, value in section.items():
        if key in ("adapter", "label_adapter", "quantization", "loss", "relation_loss") and not isinstance(
            value, str
        ):
            continue
        kept[key] = without_training(value)
    return kept


def _settings(made: Any) -> dict[str, Any]:
    """Settings of a component whose model has become graphs."""
    is_tagger = isinstance(made, OnnxTokenClassifier)
    model = {
        "@architectures": "gliner_pipe.ONNXTokenClassifier.v1" if is_tagger else "gliner_pipe.ONNX.v1",
        "model": made.section,
        "threads": made.threads,
        "providers": made.providers,
    }
    settings: dict[str, Any] = {"model": model, **FULL_PRECISION}
    if is_tagger:
        settings |= dict.fromkeys(("embedding", "decoder", "mode", "scheme"))
    if made.word_splitter is not None:
        settings["word_splitter"] = {"@word_splitters": made.word_splitter}
    return settings
