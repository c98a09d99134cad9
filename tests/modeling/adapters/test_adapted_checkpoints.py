"""Adapters on GLiNER checkpoints, and GLiNER checkpoints of models with adapters."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from adapted_pipeline import LORA, trained
from conftest import make_backbone
from spacy.training import Example

from gliner_pipe.convert import convert, to_gliner
from gliner_pipe.errors import CheckpointError, ConfigError

peer = pytest.importorskip("gliner")
pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = ["Maria Lindqvist joined Oslo University on 3 March 2019.", "The baker from Lima bought a painting."]
LABELS = ["person", "city", "date"]


def pipeline(model: Any) -> Any:
    nlp = spacy.blank("en")
    config = {"model": model, "labels": LABELS, "threshold": 0.0, "flat_ner": False, "multi_label": True}
    nlp.add_pipe("gliner", config={**config, "word_splitter": {"@word_splitters": "whitespace"}})
    return nlp


def blocks(backbone: Path, bi: bool = False, **settings: Any) -> dict[str, Any]:
    text = {"@backbones": "transformer", "model": str(backbone), **({} if bi else settings)}
    encoder: dict[str, Any] = {"@encoders": "uni_encoder", "backbone": text}
    if bi:
        encoder = {"@encoders": "bi_encoder", "backbone": text, "label_model": str(backbone), **settings}
    return {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": encoder,
        "span_rep": {"@span_reps": "markerV0", "max_width": 4},
    }


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    nlp = pipeline(blocks(make_backbone(folder / "deberta", "deberta-v2")))
    torch.manual_seed(0)
    model = nlp.get_pipe("gliner").gliner
    model.build()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return to_gliner(nlp, folder / "gliner")


def ours(nlp: Any) -> list[dict[Any, float]]:
    component = nlp.get_pipe("gliner")
    found = component.predict([nlp.make_doc(text) for text in TEXTS])
    words = [component.word_splitter.split(nlp.make_doc(text)).offsets for text in TEXTS]
    assert any(each.entities for each in found)
    return [
        {(at[e.start][0], at[e.end][1], e.label): e.score for e in each.entities}
        for at, each in zip(words, found, strict=True)
    ]


def theirs(folder: Path) -> list[dict[Any, float]]:
    model = peer.GLiNER.from_pretrained(str(folder), local_files_only=True).eval()
    found = model.inference(TEXTS, LABELS, threshold=0.0, flat_ner=False, multi_label=True)
    return [{(e["start"], e["end"], e["label"]): e["score"] for e in each} for each in found]


def agree(left: list[dict[Any, float]], right: list[dict[Any, float]], within: float) -> None:
    for mine, other in zip(left, right, strict=True):
        assert mine == pytest.approx(other, abs=within)


@pytest.mark.parametrize(("form", "within"), [("full", 0.0), ("adapter", 0.0), ("merged", 1e-5)])
def test_lora_on_a_checkpoint(checkpoint: Path, tmp_path: Path, form: str, within: float) -> None:
    name = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    lora = {**LORA, "save": form}
    nlp = pipeline({"@architectures": "gliner_pipe.Pretrained.v1", "name": str(name), "adapter": lora})
    before = ours(nlp)
    agree(before, theirs(checkpoint), 1e-4)
    learning = [n for n, p in nlp.get_pipe("gliner").gliner.named_parameters() if p.requires_grad]
    assert all("lora_" in n or "trainable_tokens" in n for n in learning if n.startswith("encoder.backbone"))
    trained(nlp, rate=0.001)
    assert ours(nlp) != before
    nlp.to_disk(tmp_path / "out")
    if form != "adapter":
        shutil.rmtree(name)
    back = spacy.load(tmp_path / "out")
    agree(ours(back), ours(nlp), within)
    assert back.get_pipe("gliner").gliner.encoder.backbone.has_adapter == (form != "merged")
    convert(str(tmp_path / "out"), tmp_path / "gliner")
    agree(ours(back), theirs(tmp_path / "gliner"), 1e-4)
    trained(back, rate=0.001)  # writing it harmed nothing
    back.to_disk(tmp_path / "again")
    agree(ours(spacy.load(tmp_path / "again")), ours(back), within)


def test_an_adapter_without_its_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    name = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    lora = {**LORA, "save": "adapter"}
    nlp = pipeline({"@architectures": "gliner_pipe.Pretrained.v1", "name": str(name), "adapter": lora})
    expected = ours(nlp)
    nlp.to_disk(tmp_path / "out")
    moved = shutil.move(name, tmp_path / "moved")
    with pytest.raises(CheckpointError, match=r"components\.<name>\.model\.name"):
        spacy.load(tmp_path / "out")
    agree(
        ours(spacy.load(tmp_path / "out", config={"components.gliner.model.name": str(moved)})), expected, 0.0
    )


def test_a_label_adapter_needs_a_label_encoder(checkpoint: Path) -> None:
    model = {"@architectures": "gliner_pipe.Pretrained.v1", "name": str(checkpoint), "label_adapter": LORA}
    with pytest.raises(ConfigError, match=r"model\.label_adapter\]"):
        pipeline(model).get_pipe("gliner").gliner.build()


@pytest.mark.parametrize("bi", [False, True])
def test_converted_to_gliner(backbone: Path, tmp_path: Path, bi: bool) -> None:
    settings = {"label_adapter": LORA} if bi else {"adapter": {"@adapters": "peft", "method": "ia3"}}
    nlp = pipeline(blocks(backbone, bi, **settings))
    torch.manual_seed(0)
    nlp.initialize()
    trained(nlp, rate=0.001)
    agree(ours(nlp), theirs(to_gliner(nlp, tmp_path / "out")), 1e-4)
    model = nlp.get_pipe("gliner").gliner
    assert (model.encoder.label_encoder if bi else model.encoder.backbone).has_adapter


@pytest.mark.parametrize(("form", "within"), [("full", 0.0), ("adapter", 0.0), ("merged", 1e-5)])
def test_the_label_encoder_of_a_bi_encoder(backbone: Path, tmp_path: Path, form: str, within: float) -> None:
    nlp = pipeline(blocks(backbone, True, label_adapter={**LORA, "save": form}))
    torch.manual_seed(0)
    nlp.initialize()
    example = Example.from_dict(nlp.make_doc("Maria lives in Oslo"), {"entities": [(0, 5, "person")]})
    nlp.update([example], sgd=nlp.resume_training())
    nlp.to_disk(tmp_path / "out")
    back = spacy.load(tmp_path / "out")
    agree(ours(back), ours(nlp), within)
    assert back.get_pipe("gliner").gliner.encoder.label_encoder.has_adapter == (form != "merged")
    frozen = blocks(backbone, True, label_adapter=LORA, label_freeze=True)
    with pytest.raises(ConfigError, match="label_freeze"):
        pipeline(frozen)
