"""Writes the models of a pipeline as graphs, and the pipeline around them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confit import Config
from spacy.language import Language

from gliner_pipe.encoders.uni_encoder import UniEncoder
from gliner_pipe.errors import ConfigError
from gliner_pipe.model.token_classifier import TokenClassifier
from gliner_pipe.onnx.comparing import Difference, compare, compare_taggers
from gliner_pipe.onnx.files import VECTORS
from gliner_pipe.onnx.label_vectors import save_table
from gliner_pipe.onnx.parts import for_graphs
from gliner_pipe.onnx.planning import gliner_stages, tagger_stages
from gliner_pipe.onnx.quantizing import quantize
from gliner_pipe.onnx.runtime import OnnxGLiNER
from gliner_pipe.onnx.stages import LABELS, MODEL
from gliner_pipe.onnx.tagger import OnnxTokenClassifier, save_decoder
from gliner_pipe.onnx.tracing import trace
from gliner_pipe.precision.running import full_precision
from gliner_pipe.registry import registry
from gliner_pipe.saving import save_pipeline
from gliner_pipe.torch_pipe import TorchPipe

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
