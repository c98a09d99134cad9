"""All random weights of a training derive from its seed, also those of models given by name."""

from __future__ import annotations

import pytest
import spacy
import torch

from gliner_pipe.pipeline.convert import to_gliner
from gliner_pipe.train import train
from tests.conftest import gliner_config
from tests.training.conftest import records

LORA = {"@adapters": "lora", "r": 2}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A GLiNER checkpoint over a tiny backbone."""
    from tests.conftest import make_backbone

    folder = tmp_path_factory.mktemp("gliner")
    torch.manual_seed(0)
    nlp = spacy.blank("en")
    config = gliner_config(make_backbone(folder / "backbone"))
    config["model"]["encoder"]["embed_ent_token"] = True
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    return to_gliner(nlp, folder / "checkpoint")


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    """A token classification model over a tiny backbone."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    from tests.conftest import make_backbone

    folder = tmp_path_factory.mktemp("tagger")
    backbone = make_backbone(folder / "backbone")
    tags = {0: "O", 1: "B-animal", 2: "I-animal"}
    AutoModelForTokenClassification.from_pretrained(backbone, id2label=tags).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder / "model")
    return folder / "model"


def trained(factory, model, folder, seed, noise):
    torch.manual_seed(noise)  # what a script drew before does not matter
    nlp = spacy.blank("en")
    nlp.add_pipe(factory, name="it", config={"model": model})
    train(
        nlp,
        records(4),
        max_steps=1,
        task_lr=0.0,
        transformer_lr=0.0,
        seed=seed,
        loggers=[],
        cpu=True,
        output_path=folder / f"{seed}-{noise}" / "model-last",
    )
    return {name: value.clone() for name, value in nlp.get_pipe("it").model.state_dict().items()}


@pytest.mark.parametrize("kind", ["lora", "tagger lora", "tagger head"])
def test_the_seed_determines_new_weights(kind, checkpoint, tagger, tmp_path):
    if kind == "lora":
        factory, model = "gliner", {"@architectures": "gliner_pipe.Pretrained.v1", "name": str(checkpoint)}
    else:
        factory = "token_classifier"
        model = {
            "@architectures": "gliner_pipe.PretrainedTokenClassifier.v1",
            "name": str(tagger),
            "labels": "data",
        }
    if "lora" in kind:
        model["adapter"] = LORA
    one, same, other = (
        trained(factory, model, tmp_path, seed, noise) for seed, noise in ((1, 1), (1, 2), (2, 1))
    )
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    different = [name for name, value in one.items() if not torch.equal(value, other[name])]
    assert different and all("lora_A" in name or "decoder" in name or "scorer" in name for name in different)
