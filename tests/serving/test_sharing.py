"""Pipelines by name that share the weights of their encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config
from spacy.language import Language

from gliner_pipe.metrics.alignment import prediction_getter
from gliner_pipe.pipeline.records import entities_of
from gliner_pipe.serving.sharing import SharedWeights

TEXT = "Ada met Charles in London."


@pytest.fixture
def folders(backbone: Path, tmp_path: Path) -> list[Path]:
    """Two LoRA adapters of one encoder, with other weights and heads, and the encoder alone with heads of its own."""
    pytest.importorskip("peft")
    found = []
    for number, adapter in enumerate([{"@adapters": "lora", "r": 4}, {"@adapters": "lora", "r": 2}, None]):
        torch.manual_seed(number)
        config = gliner_config(backbone, threshold=0.0)
        if adapter is not None:
            config["model"]["encoder"]["backbone"]["adapter"] = adapter
        nlp = spacy.blank("en")
        nlp.add_pipe("gliner", config=config)
        nlp.initialize()
        for name, weight in nlp.get_pipe("gliner").network.named_parameters():  # type: ignore[attr-defined]
            if "lora_B" in name:  # zero at first
                torch.nn.init.normal_(weight, std=0.3)
        nlp.to_disk(tmp_path / str(number))
        found.append(tmp_path / str(number))
    return found


def entities(nlp: Language) -> list[Any]:
    return entities_of(nlp(TEXT), prediction_getter(nlp))


def storages(nlp: Language) -> dict[int, int]:
    weights = nlp.get_pipe("gliner").network.parameters()  # type: ignore[attr-defined]
    return {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in weights}


def test_adapters_of_one_encoder_share_its_weights(folders: list[Path]) -> None:
    expected = [entities(spacy.load(folder)) for folder in folders]
    assert expected[0] != expected[1] != expected[2]
    pipelines, weights = [spacy.load(folder) for folder in folders], SharedWeights()
    apart = [storages(nlp) for nlp in pipelines]
    saved = [weights.add(nlp) for nlp in pipelines]
    assert saved[0] == 0 and saved[1] > 0.2 * sum(apart[1].values())
    together: dict[int, int] = {}
    for nlp in pipelines:
        together |= storages(nlp)
    assert sum(together.values()) == sum(sum(one.values()) for one in apart) - sum(saved)
    assert [entities(nlp) for nlp in pipelines] == expected
    del pipelines[0]
    assert entities(pipelines[0]) == expected[1]
