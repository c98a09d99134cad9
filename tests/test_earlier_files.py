"""Pipelines, exports and checkpoints that earlier commits wrote load now and give the same numbers.

The archives in ``tests/fixtures`` are named after the commit that wrote them. Each holds tiny random pipelines of both
components, ONNX exports of some, a training that was stopped at step 3 of 6, and in ``expected.json`` what they found.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import spacy
from safetensors.torch import load_file

ARCHIVES = sorted((Path(__file__).parent / "fixtures").glob("saved-*.tar.xz"))
PIPELINES = [
    "gliner",
    "gliner_token_level",
    "gliner_relations",
    "gliner_bi_encoder",
    "tagger_crf",
    "tagger_softmax",
    "gliner_onnx",
    "gliner_bi_encoder_onnx",
    "tagger_crf_onnx",
]


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.split(".")[0])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what one commit wrote."""
    folder: Path = tmp_path_factory.mktemp("saved")
    with tarfile.open(request.param) as archive:
        archive.extractall(folder, filter="data")
    return next(folder.iterdir())


def found(nlp: Any, texts: list[str]) -> list[dict[str, Any]]:
    """Return all that a pipeline writes, as JSON."""
    facts = []
    for doc in nlp.pipe(texts):
        relations = doc._.relations or [] if doc.has_extension("relations") else []
        facts.append(
            {
                "groups": {
                    key: [[span.start_char, span.end_char, span.label_] for span in group]
                    for key, group in doc.spans.items()
                },
                "scores": {
                    key: [float(score) for score in group.attrs.get("scores", [])]
                    for key, group in doc.spans.items()
                },
                "ents": [[ent.start_char, ent.end_char, ent.label_] for ent in doc.ents],
                "relations": [
                    [one.head.start_char, one.tail.start_char, one.label, float(one.score)]
                    for one in relations
                ],
            }
        )
    return facts


def without_numbers(facts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"groups": one["groups"], "ents": one["ents"], "relations": [some[:3] for some in one["relations"]]}
        for one in facts
    ]


def numbers(facts: list[dict[str, Any]]) -> list[float]:
    return [
        number
        for one in facts
        for number in (
            *(x for key in one["scores"] for x in one["scores"][key]),
            *(r[3] for r in one["relations"]),
        )
    ]


def digest(folder: Path) -> str:
    """Return a hash of all weights in a folder."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("model.safetensors")):
        for name, weight in sorted(load_file(path).items()):
            whole.update(name.encode())
            whole.update(weight.contiguous().numpy().tobytes())
    return whole.hexdigest()


@pytest.mark.parametrize("name", PIPELINES)
def test_a_saved_pipeline_finds_the_same(saved: Path, name: str, tmp_path: Path) -> None:
    expected = json.loads((saved / "expected.json").read_text(encoding="utf8"))
    nlp = spacy.load(saved / name)
    facts = found(nlp, expected["texts"])
    assert without_numbers(facts) == without_numbers(expected["found"][name])
    # bit for bit on the machine that wrote them; other processors round differently
    assert numbers(facts) == pytest.approx(numbers(expected["found"][name]), abs=1e-5)
    if name in expected["weights"]:
        nlp.to_disk(tmp_path / "again")
        assert digest(tmp_path / "again") == expected["weights"][name]


def test_a_checkpoint_is_resumed(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three more steps of a training with dropout and shuffling, from the state of another commit."""
    from gliner_pipe.train import train

    monkeypatch.chdir(saved)
    nlp = spacy.blank("en")
    section = json.loads((saved / "component.json").read_text(encoding="utf8"))
    section["model"]["encoder"]["embed_ent_token"] = True  # the default of these commits
    nlp.add_pipe("gliner", config=section)
    train(
        nlp,
        train_data="train.jsonl",
        val_data="train.jsonl",
        output_path=str(tmp_path / "model-last"),
        max_steps=6,
        seed=3,
        batch_size="2 samples",
        loggers=[],
        checkpoint_interval=3,
        save_total_limit=5,
        resume_from_checkpoint=str(saved / "training" / "checkpoints" / "step-000003"),
    )
    weights = {
        name: weight
        for path in sorted((tmp_path / "model-last").rglob("model.safetensors"))
        for name, weight in load_file(path).items()
    }
    expected = load_file(saved / "resumed.safetensors")
    assert sorted(weights) == sorted(expected)
    for name, weight in expected.items():
        assert weights[name].numpy() == pytest.approx(weight.numpy(), abs=1e-6), name
