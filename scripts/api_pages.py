"""Writes the pages of the API reference while mkdocs builds the site (``hooks`` in ``mkdocs.yml``).

A family of blocks has one page: each registered block under the line that names it in a config, then the base classes
with parameters that several blocks share, then the contract of the family. A new block appears by itself.
``SECURITY.md`` is a page, too.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import gliner_pipe.train  # noqa: F401 (registers the components)
from gliner_pipe.registry import registry

#: Family of blocks: title and first sentence of its page, and the module or class with its contract.
FAMILIES: dict[str, tuple[str, str, str]] = {
    "backbones": ("Backbones", "A backbone turns words into vectors.", "gliner_pipe.modeling.backbones.base"),
    "adapters": ("Adapters", "An adapter adds few trainable weights to a frozen text encoder.", ""),
    "encoders": (
        "Encoders",
        "An encoder computes the vectors of words and of labels.",
        "gliner_pipe.modeling.encoders.base",
    ),
    "fusions": ("Fusions", "A fusion lets words and labels of a bi-encoder attend to each other.", ""),
    "context_encoders": (
        "Context encoders",
        "A context encoder is a second encoder over the word vectors, run before spans are built.",
        "",
    ),
    "span_reps": (
        "Span representations",
        "A span representation scores each span for each label.",
        "gliner_pipe.modeling.span_reps.base",
    ),
    "decoders": (
        "Decoders",
        "A decoder selects entities from the scores of spans, of tags, or generates labels.",
        "",
    ),
    "relation_layers": (
        "Relation layers",
        "A relation layer proposes related pairs of entities.",
        "gliner_pipe.modeling.relation_layers.base",
    ),
    "triples": (
        "Triples",
        "A triple layer scores head, relation and tail together.",
        "gliner_pipe.modeling.triples.base",
    ),
    "counters": (
        "Counters",
        "A counter makes a query for each instance of a label or field, and predicts their number.",
        "gliner_pipe.modeling.counters.base",
    ),
    "classifiers": (
        "Classifiers",
        "A classifier scores the labels of a whole text.",
        "gliner_pipe.modeling.classifiers.base",
    ),
    "relation_finders": (
        "Relation finders",
        "A relation finder finds relations that the encoder reads as tasks.",
        "gliner_pipe.modeling.relation_finders.base",
    ),
    "record_finders": (
        "Record finders",
        "A record finder finds groups of values.",
        "gliner_pipe.modeling.record_finders.base",
    ),
    "losses": (
        "Losses",
        "A loss compares scores with the gold annotation.",
        "gliner_pipe.modeling.losses.base",
    ),
    "word_splitters": ("Word splitters", "A word splitter defines the words that a model reads.", ""),
    "architectures": ("Architectures", "An architecture is the whole model of a component.", ""),
    "readers": ("Readers", "A reader turns files into spaCy documents.", "gliner_pipe.data.readers.base"),
    "scorers": ("Scorers", "A scorer compares predicted with gold annotation.", ""),
    "schedules": ("Schedules", "A schedule changes the learning rate from step to step.", ""),
    "optimizers": ("Optimizers", "An optimizer updates the weights.", ""),
    "loggers": ("Loggers", "A logger writes the scores and losses of a training.", ""),
}

#: Other pages: file name, title, first sentence, and the modules, classes and functions they show.
PAGES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    (
        "commands",
        "Commands as functions",
        "Each command of the command line is a function, too.",
        (
            "gliner_pipe.train.train",
            "gliner_pipe.check.check",
            "gliner_pipe.evaluate.evaluate",
            "gliner_pipe.predict.predict",
            "gliner_pipe.package.package",
            "gliner_pipe.export.export",
            "gliner_pipe.distill.distill",
            "gliner_pipe.distillation.warm_start.warm_start",
        ),
    ),
    (
        "components",
        "Components",
        "The two spaCy components.",
        (
            "gliner_pipe.pipeline.gliner.component.Gliner",
            "gliner_pipe.pipeline.token_classifier.component.TokenTagger",
        ),
    ),
    (
        "sharing",
        "Loading and sharing",
        "Loads, saves, shares and shows pipelines.",
        (
            "gliner_pipe.hub.load",
            "gliner_pipe.hub.from_hub",
            "gliner_pipe.hub.push_to_hub",
            "gliner_pipe.util.atomic.save_pipeline",
            "gliner_pipe.migration.gliner_spacy.from_gliner_spacy",
            "gliner_pipe.prediction.view.View",
            "gliner_pipe.prediction.rendering.displacy_options",
            "gliner_pipe.modeling.merging",
        ),
    ),
    (
        "annotations",
        "Annotations",
        "What is stored on documents and spans, and how it is read.",
        ("gliner_pipe.data.annotations", "gliner_pipe.data.relations", "gliner_pipe.data.scores"),
    ),
    (
        "evaluation",
        "Evaluation",
        "Scores of pipelines, and thresholds.",
        (
            "gliner_pipe.evaluation.evaluate.evaluate_pipeline",
            "gliner_pipe.evaluation.thresholds.find_threshold",
            "gliner_pipe.evaluation.thresholds.apply_thresholds",
        ),
    ),
    (
        "onnx",
        "ONNX",
        "Models that onnxruntime or OpenVINO runs.",
        ("gliner_pipe.onnx.runtime.OnnxGLiNER", "gliner_pipe.onnx.runtime.OnnxTokenClassifier"),
    ),
    ("errors", "Errors", "The errors that this package raises.", ("gliner_pipe.errors",)),
)

#: Members of the components that their page shows; the others are for the training loop.
COMPONENT_MEMBERS = (
    *("labels", "label_items", "add_label", "relations", "relation_items", "cfg", "report"),
    *("classes", "class_items", "class_rules", "records", "record_items"),
    *("threshold", "relation_threshold", "adjacency_threshold", "limit", "spans_key", "target", "setter"),
    *("word_splitter", "device", "dtype", "quantize", "compile", "compress_prompt", "token_budget"),
    *(
        "predict",
        "predict_entities",
        "batch_predict_entities",
        "predict_relations",
        "pipe",
        "set_annotations",
    ),
    *("initialize", "update", "get_loss", "to_disk", "from_disk", "to_bytes", "from_bytes"),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those that mkdocs found in ``docs/``."""
    for name, title, summary, shown in PAGES:
        options = ""
        if name == "components":
            members = ", ".join(COMPONENT_MEMBERS)
            options = f"    options:\n      inherited_members: true\n      members: [{members}]\n"
        text = f"# {title}\n\n{summary}\n\n" + "\n".join(f"::: {path}\n{options}" for path in shown)
        files.append(File.generated(config, f"api/{name}.md", content=text))
    security = (Path(config.docs_dir).parent / "SECURITY.md").read_text(encoding="utf8")
    files.append(File.generated(config, "security.md", content=security))
    for family in FAMILIES:
        files.append(File.generated(config, f"api/{family}.md", content=family_page(family)))
    return files


def family_page(family: str) -> str:
    """Return the page of a family of blocks, in Markdown."""
    title, summary, contract = FAMILIES[family]
    blocks = {name: _shown(block) for name, block in sorted(getattr(registry, family).get_all().items())}
    own = {name: block for name, block in blocks.items() if block.__module__.startswith("gliner_pipe.")}
    lines = [f"# {title}\n", f"{summary}\n"]
    for name, block in own.items():
        lines.append(_entry(block, f'@{family} = "{name}"', name))
    if shared := _shared_bases(list(own.values()), contract):
        lines.append("## Shared parameters\n\nClasses that several of these blocks are based on.\n")
        lines += [_entry(base, base.__name__, base.__name__) for base in shared]
    if contract:
        module = f"::: {contract}\n    options:\n      show_root_heading: false\n      heading_level: 3\n"
        lines.append(f"## Contract\n\nWhat a block of your own implements.\n\n{module}")
    return "\n".join(lines)


def _entry(block: Any, heading: str, short: str) -> str:
    """Return the lines that show a block without its members, under `heading`, and as `short` in the contents."""
    options = f"heading: '{heading}'", f"toc_label: '{short}'", "members: []", "show_bases: false"
    return "\n      ".join((f"::: {block.__module__}.{block.__qualname__}\n    options:", *options)) + "\n"


def _shown(block: Any) -> Any:
    """Return the class or function behind a registered entry."""
    return inspect.unwrap(getattr(block, "func", block))


def _shared_bases(blocks: list[Any], contract: str) -> list[Any]:
    """Return the public base classes of several blocks that take parameters and do not belong to the contract."""
    found: dict[type, int] = {}
    for block in blocks:
        for base in block.__mro__[1:] if inspect.isclass(block) else ():
            if base.__module__.startswith("gliner_pipe.modeling") and "Parameters\n" in (base.__doc__ or ""):
                found[base] = found.get(base, 0) + 1
    public = (
        base
        for base in found
        if not base.__name__.startswith("_") and base not in blocks and base.__module__ != contract
    )
    return sorted((base for base in public if found[base] > 1), key=lambda base: base.__name__)
