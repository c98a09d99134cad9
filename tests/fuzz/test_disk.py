"""Damaged checkpoints and saved pipelines: a clear error, or a pipeline that works."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config, make_backbone
from fuzz.folders import CHANGES, damage
from fuzz.rule import Broken, obeys, tries
from hypothesis import given, note
from tagging_pipeline import config as tagger_config
from tagging_pipeline import examples

import gliner_pipe
from gliner_pipe.errors import GlinerPipeError
from gliner_pipe.pipeline.convert import to_gliner, to_transformers
from gliner_pipe.util.atomic import save_pipeline

TEXT = "Ada Lovelace met Charles Babbage in London."

pytestmark = pytest.mark.filterwarnings("ignore")


def gliner(backbone: Path, **changes: Any) -> Any:
    nlp = spacy.blank("en")
    torch.manual_seed(0)
    nlp.add_pipe("gliner", config=gliner_config(backbone, threshold=0.4, **changes))
    nlp.initialize()
    return nlp


def tagger(backbone: Path, decoder: str) -> Any:
    nlp = spacy.blank("en")
    torch.manual_seed(0)
    nlp.add_pipe("token_classifier", config=tagger_config(backbone, {"@decoders": decoder}))
    nlp.initialize(lambda: examples(nlp))
    return nlp


def make_gliner(backbone: Path, target: Path) -> None:
    words = {"word_splitter": {"@word_splitters": "whitespace"}}
    to_gliner(gliner(backbone, **words), target)


def make_gliner2(backbone: Path, target: Path) -> None:
    pytest.importorskip("gliner2")
    from gliner2_parity import checkpoint

    shutil.copytree(checkpoint("count_lstm"), target)


def make_tagger(backbone: Path, target: Path) -> None:
    to_transformers(tagger(backbone, "softmax"), target)


def make_pipeline(backbone: Path, target: Path) -> None:
    save_pipeline(gliner(backbone), target)


def make_crf_pipeline(backbone: Path, target: Path) -> None:
    save_pipeline(tagger(backbone, "crf"), target)


def make_onnx(backbone: Path, target: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from gliner_pipe.onnx.export import write_onnx

    write_onnx(gliner(backbone), target)


def make_earlier_pipeline(backbone: Path, target: Path) -> None:
    """Without fingerprints, so that the files themselves are checked."""
    import json

    make_pipeline(backbone, target)
    path = target / "gliner" / "cfg.json"
    content = json.loads(path.read_text("utf8"))
    path.write_text(json.dumps({key: content[key] for key in ("configured", "current", "weights")}), "utf8")


def by_name(factory: str) -> Callable[[Path], Any]:
    def load(folder: Path) -> Any:
        nlp = spacy.blank("en")
        labels = {"labels": ["person", "city"]} if factory == "gliner" else {}
        nlp.add_pipe(factory, config={"model": str(folder), **labels})
        return nlp(TEXT)

    return load


def whole(folder: Path) -> Any:
    return gliner_pipe.load(folder)(TEXT)


KINDS: dict[str, tuple[Callable[[Path, Path], None], Callable[[Path], Any]]] = {
    "gliner": (make_gliner, by_name("gliner")),
    "gliner2": (make_gliner2, by_name("gliner")),
    "tagger": (make_tagger, by_name("token_classifier")),
    "pipeline": (make_pipeline, whole),
    "earlier pipeline": (make_earlier_pipeline, whole),
    "crf pipeline": (make_crf_pipeline, whole),
    "onnx pipeline": (make_onnx, whole),
}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_folders(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    make, load = KINDS[kind]
    root = tmp_path_factory.mktemp("fuzz")
    make(make_backbone(root / "backbone"), root / "whole")
    assert load(root / "whole").text == TEXT

    @tries(6)
    @given(change=CHANGES)
    def check(change: tuple[int, int, str, int]) -> None:
        shutil.rmtree(root / "damaged", ignore_errors=True)
        what = damage(root / "whole", root / "damaged", change)
        note(what)
        try:
            obeys(load, root / "damaged", errors=(GlinerPipeError, OSError))
        except Broken as broken:
            raise Broken(f"{kind}, {what}: {broken}") from None

    check()
