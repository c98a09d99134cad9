from __future__ import annotations

import confit
import pytest
import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from tests.training.conftest import weights


def trained(config_path, component=None, **changes):
    config = confit.Config.from_disk(config_path)
    config["components"]["gliner"]["model"].update(component or {})
    given = config.resolve(registry=registry)["train"]
    return train(**{**given, "loggers": [], "max_steps": 2, **changes})


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        (["text_encoder"], "encoder.backbone."),
        (["encoder.backbone.encoder.embeddings"], "encoder.backbone.encoder.embeddings."),
        (["span_rep"], "span_rep."),
        (["gliner.encoder"], "encoder."),
    ],
)
def test_frozen_parts_do_not_change_and_others_do(config_path, names, frozen):
    start = weights(trained(config_path, task_lr=0.0, transformer_lr=0.0))
    nlp = trained(config_path, freeze_components=names, weight_decay=0.1)
    after = weights(nlp)
    inside = [name for name in after if name.startswith(frozen)]
    assert inside and all(torch.equal(after[name], start[name]) for name in inside)
    assert any(not torch.equal(after[name], start[name]) for name in after if not name.startswith(frozen))


@pytest.mark.parametrize("layer", [{"hidden_size": 24}, {"adapter": {"@adapters": "lora", "r": 2}}])
def test_new_layers_of_a_frozen_encoder_learn(config_path, layer):
    config = confit.Config.from_disk(config_path)
    config["components"]["gliner"]["model"]["encoder"]["backbone"] |= layer
    given = {
        **config.resolve(registry=registry)["train"],
        "loggers": [],
        "freeze_components": ["text_encoder"],
    }
    start = weights(train(**{**given, "task_lr": 0.0, "transformer_lr": 0.0, "max_steps": 1}))
    after = weights(train(**{**given, "max_steps": 3}))
    changed = {name for name in after if not torch.equal(after[name], start[name])}
    new = {
        name for name in after if "backbone.projection." in name or "lora_" in name or "tokens_delta" in name
    }
    assert new and new <= changed
    assert not any("backbone" in name for name in changed - new)


def test_layers_of_peft_added_by_hand_are_refused(config_path, tmp_path):
    peft = pytest.importorskip("peft")
    nlp = trained(config_path, max_steps=1)
    backbone = nlp.get_pipe("gliner").gliner.encoder.backbone
    backbone.encoder = peft.get_peft_model(backbone.encoder, peft.LoraConfig(target_modules=["query"]))
    with pytest.raises(ConfigError) as caught:
        train(
            nlp,
            **{**_data(config_path), "output_path": tmp_path / "b" / "model-last"},
            max_steps=1,
            loggers=[],
        )
    assert caught.value.where == "components.gliner.model.encoder.backbone.encoder"
    assert not (tmp_path / "b").exists()


def test_a_frozen_part_knows_no_dropout(config_path, backbone):
    """The tiny backbone as it comes has dropout; frozen, it gives the same vectors in training as afterwards."""
    from gliner_pipe.training.distributed import TrainedModels
    from gliner_pipe.training.optimizers import freeze

    nlp = trained(config_path)
    model = nlp.get_pipe("gliner").model
    models = TrainedModels({"gliner": model}, False, freeze({"gliner": model}, ["text_encoder"]))
    models.train()
    assert not any(module.training for module in model.encoder.backbone.encoder.modules())
    assert model.span_rep.training


def test_unknown_parts_and_freezing_everything_fail(config_path, tmp_path):
    for name, where in (
        ("text_encodr", "train.freeze_components"),
        ("labels_encoder", "train.freeze_components"),
        ("gliner", "train.nlp"),
    ):
        with pytest.raises(ConfigError) as caught:
            trained(config_path, freeze_components=[name])
        assert caught.value.where == where
    assert not (tmp_path / "out").exists()


def test_fine_tune_off_is_really_off(config_path):
    config = confit.Config.from_disk(config_path)
    config["components"]["gliner"]["model"]["encoder"]["backbone"]["freeze"] = True
    given = {**config.resolve(registry=registry)["train"], "loggers": []}
    start = weights(train(**{**given, "task_lr": 0.0, "max_steps": 1}))
    after = weights(train(**{**given, "max_steps": 3}))
    inside = [name for name in after if name.startswith("encoder.backbone.encoder.")]
    assert inside and all(torch.equal(after[name], start[name]) for name in inside)
    assert any(not torch.equal(after[name], start[name]) for name in after)


def test_a_later_training_trains_all_parts(config_path):
    nlp = trained(config_path, freeze_components=["text_encoder"])
    before = weights(nlp)
    again = train(nlp, **_data(config_path), max_steps=2, loggers=[], transformer_lr=1e-3)
    after = weights(again)
    assert any(
        not torch.equal(after[name], before[name]) for name in after if name.startswith("encoder.backbone.")
    )


def _data(config_path):
    given = confit.Config.from_disk(config_path, resolve=True, registry=registry)["train"]
    return {name: given[name] for name in ("train_data", "batch_size", "output_path", "overwrite")}
