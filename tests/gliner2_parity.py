"""Tiny random checkpoints of the `gliner2` package, and what it and this project find with them."""

from __future__ import annotations

import atexit
import functools
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import make_backbone
from spacy.tokens import Doc, Span

from gliner_pipe.modeling.encoders.base import Query

peer = pytest.importorskip("gliner2")

#: Texts that end with a full stop, an exclamation or a question mark: nothing is added to them.
TEXTS = [
    "Maria Lindqvist joined Oslo University on 3 March 2019.",
    "Hi!",
    "The baker from Lima, who had measles, bought a well-known painting for $40 in Berlin. See www.baker.com/x, or mail a.b@c.org!",
]
LABELS = ["person", "big city", "date"]
#: Largest difference of scores, in fp32.
CLOSE = 1e-4

_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)


@functools.cache
def checkpoint(counter: str = "count_lstm_v2", pooling: str = "first", kind: str = "deberta-v2") -> Path:
    """Folder of a tiny random checkpoint of the architecture ``span``, made once; scores lie far apart."""
    from gliner2.configuration import ExtractorConfig
    from gliner2.models.span.model import SpanExtractorModel
    from transformers import AutoConfig, AutoTokenizer

    encoder = make_backbone(Path(_FOLDER.name) / f"{kind}-encoder", kind)
    config = ExtractorConfig(
        model_name=str(encoder), max_width=4, counting_layer=counter, token_pooling=pooling
    )
    torch.manual_seed(1)
    settings, tokenizer = AutoConfig.from_pretrained(encoder), AutoTokenizer.from_pretrained(encoder)
    model = SpanExtractorModel(config, encoder_config=settings, tokenizer=tokenizer).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    folder = Path(_FOLDER.name) / f"{counter}-{pooling}-{kind}"
    _calibrate(model, folder)
    return folder


def _calibrate(model: Any, folder: Path) -> None:
    """Save a model whose largest logit of a span is 4 and of a class 2, and that finds one to four instances of a task."""
    with torch.no_grad():
        model.count_pred[2].weight.mul_(0.01)
        model.count_pred[2].bias.copy_(torch.tensor([-4.0, *[1.0] * 4, *[-4.0] * 15]))
        model.save_pretrained(str(folder))
        gliner = load(folder).get_pipe("gliner").gliner
        words, query = [text.lower().split() for text in TEXTS], Query(tuple(LABELS))
        batch = gliner.encoder.collate(gliner.encoder.prepare(words, [query] * len(TEXTS), 8))
        largest = gliner.score(batch).abs().max()
        for parameter in model.span_rep.span_rep_layer.out_project[3].parameters():
            parameter.mul_(4 / largest)
        largest = gliner.classifier(gliner.encoder(batch).labels).abs().max()
        for parameter in model.classifier[2].parameters():
            parameter.mul_(2 / largest)
    model.save_pretrained(str(folder))


@functools.cache
def load_peer(folder: Path) -> Any:
    """The package's model of a checkpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peer.AutoExtractor.from_pretrained(str(folder)).eval()


def load(folder: Path, **settings: Any) -> Any:
    """A pipeline with a component of this project that has read the checkpoint."""
    nlp = spacy.blank("en")
    component = nlp.add_pipe("gliner", config={"model": str(folder), "device": "cpu", **settings})
    assert component.gliner.is_built
    return nlp


Entities = dict[tuple[int, int, str], float]


def their_entities(
    model: Any, texts: list[str], labels: Any, threshold: float, size: int = 8
) -> list[Entities]:
    """Entities by first and last character and label, with their scores."""
    found = model.batch_extract_entities(
        texts, labels, batch_size=size, threshold=threshold, include_confidence=True, include_spans=True
    )
    return [
        {
            (one["start"], one["end"], label): one["confidence"]
            for label, some in result["entities"].items()
            for one in some
        }
        for result in found
    ]


def our_entities(docs: Any) -> list[Entities]:
    """Entities by first and last character and label, with their scores."""
    return [
        {(span.start_char, span.end_char, span.label_): span._.score for span in doc.spans["gliner"]}
        for doc in docs
    ]


def gap(scores: list[float], low: float = 0.4, high: float = 0.8) -> float:
    """Return a threshold in the widest gap between the scores, in the middle of their ranks."""
    ranked = sorted(scores)
    middle = range(int(len(ranked) * low), int(len(ranked) * high))
    at = max(middle, key=lambda index: ranked[index + 1] - ranked[index])
    return (ranked[at] + ranked[at + 1]) / 2


@functools.cache
def boundary_checkpoint(**head: Any) -> Path:
    """Folder of a tiny random checkpoint of the architecture ``boundary`` with these options, made once."""
    from gliner2.configuration import ExtractorConfig
    from gliner2.models.boundary.engine import BoundaryExtractor
    from transformers import AutoConfig, AutoTokenizer

    encoder = make_backbone(Path(_FOLDER.name) / "deberta-v2-encoder", "deberta-v2")
    sizes = {"boundary_dim": 16, "pair_dim": 16, "content_dim": 8, "record_dim": 8}
    config = ExtractorConfig(model_name=str(encoder), architecture="boundary", boundary_head=sizes | head)
    torch.manual_seed(1)
    settings, tokenizer = AutoConfig.from_pretrained(encoder), AutoTokenizer.from_pretrained(encoder)
    model = BoundaryExtractor(config, encoder_config=settings, tokenizer=tokenizer).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2 if name.startswith("encoder") else 0.1)
    folder = Path(tempfile.mkdtemp(dir=_FOLDER.name, prefix="boundary-"))
    model.save_pretrained(str(folder))
    return folder


Place = tuple[int, int]
#: Scores of relations by name and by the places of head and tail.
Relations = dict[tuple[str, Place, Place], float]


def our_relations(doc: Doc) -> Relations:
    return {
        (
            one.label,
            (one.head.start_char, one.head.end_char),
            (one.tail.start_char, one.tail.end_char),
        ): one.score
        for one in doc._.relations
    }


def their_records(result: Any, settings: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, {field: as_value(value) for field, value in one.items()})
        for name in settings["records"]
        for one in result.get(name) or []
        if one
    ]


def as_value(value: Any) -> Any:
    """Return place (or choice) and score of a value of the package."""
    if isinstance(value, list):
        return sorted(as_value(one) for one in value)
    if value is None:
        return None
    place = (value["start"], value["end"]) if "start" in value else value["text"]
    return place, pytest.approx(value["confidence"], abs=CLOSE)


def our_records(doc: Doc) -> list[tuple[str, dict[str, Any]]]:
    def pair(value: Any, score: Any) -> Any:
        if isinstance(value, list):
            return sorted(map(pair, value, score))
        if value is None:
            return None
        return (value.start_char, value.end_char) if isinstance(value, Span) else value, score

    return [
        (one.name, {field: pair(value, one.scores[field]) for field, value in one.fields.items()})
        for one in doc._.records
    ]


def scores_of(docs: Sequence[Doc]) -> list[float]:
    """Return the scores of all relations and of all values of records."""
    values = [value for doc in docs for one in doc._.records for value in one.scores.values() if value]
    several = [score for value in values for score in (value if isinstance(value, list) else [value])]
    return [*several, *(one.score for doc in docs for one in doc._.relations)]
