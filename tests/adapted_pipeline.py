"""Pipelines with an adapter, for the tests."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import spacy
import torch
from conftest import gliner_config
from spacy.training import Example

TEXT = "Ada Lovelace met Charles Babbage in London."
LORA = {"@adapters": "lora", "r": 4}


def adapted(backbone: Path, adapter: Any = LORA, **settings: Any) -> Any:
    """An untrained pipeline."""
    config = gliner_config(backbone, threshold=0.0, flat_ner=False, multi_label=True)
    config["model"]["encoder"]["backbone"] |= {"adapter": adapter, **settings}
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config)
    torch.manual_seed(0)
    random.seed(0)
    nlp.initialize()
    return nlp


def trained(nlp: Any, steps: int = 3, rate: float = 0.005) -> Any:
    """Train for a few steps."""
    gold = {"entities": [(0, 5, "person"), (15, 19, "city")]}
    example = Example.from_dict(nlp.make_doc("Maria lives in Oslo"), gold)
    optimizer = nlp.resume_training()
    optimizer.learn_rate = rate
    nlp.get_pipe("gliner").cfg["max_learn_rate"] = None
    for _ in range(steps):
        nlp.update([example], sgd=optimizer)
    return nlp


def scores(nlp: Any) -> Any:
    """Score of every span for every label: what decoding makes of near ties is not asked here."""
    (found,) = nlp.get_pipe("gliner").predict([nlp.make_doc(TEXT)])
    assert found.entities
    return {(entity.start, entity.end, entity.label): entity.score for entity in found.entities}


def encoder(nlp: Any) -> Any:
    """What holds the text encoder."""
    return nlp.get_pipe("gliner").gliner.encoder.backbone


def state(module: Any) -> dict[str, Any]:
    """Copy the weights."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def base_state(nlp: Any) -> dict[str, Any]:
    """Copy the weights of the text encoder under its adapter, by the names they have without one."""
    holder = encoder(nlp)
    from gliner_pipe.modeling.adapters.wrapping import base_state as of

    return of(holder.encoder, holder._base_names)
