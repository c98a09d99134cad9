"""Exports the models of a pipeline as ONNX graphs, optionally quantised to int8, with the pipeline around them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confit import Config
from spacy.language import Language

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.precision import full_precision
from gliner_pipe.modeling.token_classifier import TokenClassifier
from gliner_pipe.onnx.blocks import VECTORS, save_table
from gliner_pipe.onnx.compare import Difference, check_same, compare, compare_taggers
from gliner_pipe.onnx.gliner_layout import write_gliner_layout
from gliner_pipe.onnx.graph_layers import for_graphs
from gliner_pipe.onnx.graphs import LABELS, MODEL, gliner_stages, tagger_stages
from gliner_pipe.onnx.runtime import OnnxGLiNER, OnnxTokenClassifier, save_decoder
from gliner_pipe.onnx.session import WHERE, Runtime
from gliner_pipe.onnx.tracing import quantize, trace
from gliner_pipe.pipeline.base import TorchPipe
from gliner_pipe.pipeline.convert import component_of, gliner_words
from gliner_pipe.pipeline.gliner.component import Gliner
from gliner_pipe.registry import registry
from gliner_pipe.util.atomic import save_pipeline

#: Graphs are exported from the weights as they are, and run in that precision.
FULL_PRECISION = {"dtype": None, "quantize": None, "compile": False}
#: Sections of a config that only affect training: adapters are merged, and losses are not used.
_TRAINING_ONLY = ("adapter", "label_adapter", "quantization", "loss", "relation_loss")

logger = logging.getLogger(__name__)


# -- a pipeline --------------------------------------------------------------------------------------------------


def write_onnx(
    nlp: Language,
    target: Path,
    *,
    int8: bool = False,
    threads: int | None = None,
    runtime: Runtime = "onnxruntime",
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
    runtime
        What runs the graphs of the new pipeline.

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
                    exported, report[name] = _export_component(pipe, Path(folder, name), int8, runtime)
                exported.threads = threads
                pipe.model, pipe.cfg = exported, {**pipe.cfg, **FULL_PRECISION}
                nlp._pipe_configs[name] = {**nlp._pipe_configs[name], **_settings(exported, before[name][2])}
            save_pipeline(nlp, target)
        finally:
            for name, (model, cfg, config) in before.items():
                pipes[name].model, pipes[name].cfg = model, cfg
                nlp._pipe_configs[name] = config
    return report


def write_gliner(
    nlp: Language, target: Path, *, int8: bool = False, component: str | None = None
) -> dict[str, Difference]:
    """Write the model of a component in GLiNER's ONNX layout; see ``write_gliner_layout``.

    Parameters
    ----------
    nlp
        A pipeline with a trained component ``gliner``.
    target
        Output folder, written atomically.
    int8
        Whether to quantise the matrix products of the encoders to 8 bits.
    component
        Name of the component; required only if the pipeline has several.

    Returns
    -------
    dict
        By component, the difference between the scores of some sentences before and after.

    Raises
    ------
    ConfigError
        If the layout cannot hold the model. Nothing is written then.
    """
    pipe: Any = component_of(nlp, Gliner, component)
    words = gliner_words(nlp, pipe)
    if words != "whitespace":
        logger.warning(
            "Runtimes other than the Python package gliner split words with a regular expression, as the word splitter "
            "'whitespace' does; this pipeline has %r, so words may differ.",
            words,
        )
    with pipe.placed():
        return {pipe.name: write_gliner_layout(pipe._ready(), target, words, int8=int8)}


def _export_component(pipe: Any, folder: Path, int8: bool, runtime: Runtime) -> tuple[Any, Difference]:
    """Export the model of a component into a folder; return the model that runs the graphs, and the difference."""
    network = pipe._ready()
    device = network.device
    try:
        with full_precision(network.to("cpu")):
            return _export_network(pipe, network, folder, int8, runtime)
    finally:
        network.to(device)


def _refuse_tasks(network: Any) -> None:
    """Refuse a model that predicts more than entities and relations between them."""
    for option in ("counter", "classifier", "relation_finder", "record_finder"):
        if block := getattr(network, option, None):
            found = f"found {type(block).__name__}, which cannot be exported"
            raise ConfigError(f"components.*.model.{option}", found, "null", "Run the pipeline with torch")


def _export_network(
    pipe: Any, network: Any, folder: Path, int8: bool, runtime: Runtime
) -> tuple[Any, Difference]:
    if isinstance(network, (OnnxGLiNER, OnnxTokenClassifier)):
        raise ConfigError(WHERE, "is exported already", "a model with weights of torch")
    _refuse_tasks(network)
    folder.mkdir(parents=True)
    section = _without_training(network.blocks or Config.serialize({"model": network})["model"])
    model: Any = for_graphs(network)
    model.encoder.save_assets(folder / "encoder")
    is_tagger = isinstance(network, TokenClassifier)
    for stage in tagger_stages(model) if is_tagger else gliner_stages(model):
        path = trace(stage, folder)
        if int8 and stage.name in (MODEL, LABELS):
            logger.info("%s: %d matrix products quantised to int8", path.name, quantize(path))
    blocks: Any = Config({"model": section}).resolve(registry=registry)["model"]
    exported: Any = (OnnxTokenClassifier if is_tagger else OnnxGLiNER)(blocks, runtime=runtime)
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
    if not int8:
        check_same(difference)
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
        "runtime": exported.runtime,
    }
    settings: dict[str, Any] = {"model": model, **FULL_PRECISION}
    if is_tagger:
        settings |= dict.fromkeys(("embedding", "decoder", "mode", "scheme", "chains"))
    if exported.word_splitter is not None and config.get("word_splitter") is None:
        settings["word_splitter"] = exported.word_splitter
    return settings
