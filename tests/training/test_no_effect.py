from __future__ import annotations

from pathlib import Path
from typing import Any

import confit
import pytest
import relation_pipeline
import spacy
from conftest import gliner_config

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from gliner_pipe.training.arguments import TrainOptions
from gliner_pipe.training.no_effect import learns_nothing, without_effect
from gliner_pipe.training.schedules import cosine
from tests.training.test_arguments import GOOD

FOCAL = {"@losses": "gliner_pipe.focal"}
MLP = {"@relation_layers": "mlp"}


def places(backbone: Path, model: dict[str, Any], data: Any = (), **options: Any) -> list[str]:
    """The options that are reported for a model with these blocks."""
    nlp = spacy.blank("en")
    config = gliner_config(backbone)
    config["model"] |= model
    component = nlp.add_pipe("gliner", config=config)
    examples = [relation_pipeline.example(nlp, *one) for one in data]
    lines = without_effect(nlp, {"gliner": component}, TrainOptions.of({**GOOD, **options}), examples)
    return [
        line.partition("]")[0].removeprefix("[").removeprefix("components.gliner.model.") for line in lines
    ]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({}, []),
        ({"loss": {**FOCAL, "negatives": 0.5}}, ["loss.negatives"]),
        ({"loss": {**FOCAL, "negatives": 0.5, "masking": "label"}}, []),
        ({"loss": {**FOCAL, "masking": "label"}}, ["loss.masking"]),
        ({"loss": {**FOCAL, "width_weight": True}}, []),
        (
            {"loss": {**FOCAL, "width_weight": True}, "span_rep": {"@span_reps": "token_level"}},
            ["loss.width_weight"],
        ),
        ({"triple": {"@triples": "distmult"}}, ["triple"]),
        ({"relation_loss": FOCAL, "relation_loss_coef": 2.0}, ["relation_loss", "relation_loss_coef"]),
        ({"adjacency_loss_coef": 1.0, "decoder_loss_coef": 0.5}, []),
        ({"decoder_loss_coef": 0.1}, ["decoder_loss_coef"]),
        ({"relation_layer": MLP, "triple": {"@triples": "distmult"}}, ["relation_layer"]),
        (
            {"relation_layer": MLP, "relation_loss": {**FOCAL, "reduction": "mean", "width_weight": True}},
            ["relation_layer", "relation_loss.width_weight", "relation_loss.reduction"],
        ),
        (
            {
                "relation_layer": MLP,
                "loss": {**FOCAL, "reduction": "mean"},
                "relation_loss": {**FOCAL, "reduction": "mean"},
            },
            ["relation_layer"],
        ),
    ],
)
def test_options_of_a_model(backbone: Path, model: dict[str, Any], expected: list[str]) -> None:
    assert sorted(places(backbone, model)) == sorted(expected)


def test_a_relation_model_on_data_with_relations(backbone: Path) -> None:
    assert places(backbone, {"relation_layer": MLP}, relation_pipeline.DATA) == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"warmup_rate": 0.3}, []),
        ({"warmup_rate": 0.3, "warmup_steps": 5}, ["train.warmup_rate"]),
        ({"warmup_rate": 0.3, "schedule": cosine()}, ["train.warmup_rate"]),
        ({"patience_threshold": 0.1}, ["train.patience_threshold"]),
        ({"ignore_data_skip": True}, ["train.ignore_data_skip"]),
        (
            {"hub_model_id": "a/b", "hub_private_repo": False},
            ["train.hub_model_id", "train.hub_private_repo"],
        ),
        ({"hub_model_id": "a/b", "push_to_hub": True}, []),
    ],
)
def test_options_of_a_training(backbone: Path, options: dict[str, Any], expected: list[str]) -> None:
    assert places(backbone, {}, **options) == expected


def trained(config_path: Path, model: dict[str, Any], **changes: Any) -> None:
    config = confit.Config.from_disk(config_path)
    config["components"]["gliner"]["model"].update(model)
    given = config.resolve(registry=registry)["train"]
    train(**{**given, "loggers": [], "max_steps": 1, "validation_interval": 1, **changes})


def test_a_training_reports_them_once(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(config_path, {"loss": {**FOCAL, "negatives": 0.5}}, patience_threshold=0.1)
    lines = [line for line in capsys.readouterr().out.splitlines() if "has no effect" in line]
    assert [line.partition("]")[0] for line in lines] == [
        "warning: [train.patience_threshold",
        "warning: [components.gliner.model.loss.negatives",
    ]


@pytest.mark.parametrize(
    ("token", "sampling", "labels", "steps", "warned"),
    [
        (True, {}, [], 400, True),
        (True, {"all_labels": True}, ["a", "b"], 400, True),
        (True, {"all_labels": True, "shuffle": False}, ["a", "b"], 400, False),
        (True, {"all_labels": True}, ["a"], 400, False),
        (True, {}, [], 30000, False),
        (False, {}, [], 400, False),
    ],
)
def test_settings_of_a_new_model_that_learn_nothing(
    backbone: Path, token: bool, sampling: dict[str, Any], labels: list[str], steps: int, warned: bool
) -> None:
    nlp = spacy.blank("en")
    config = gliner_config(backbone)
    config["model"]["encoder"]["embed_ent_token"] = token
    component = nlp.add_pipe("gliner", config={**config, "label_sampling": sampling, "labels": labels})
    lines = list(learns_nothing(nlp, {"gliner": component}, ["gliner"], steps))
    assert [line.partition("]")[0] for line in lines] == (
        ["[components.gliner.model.encoder.embed_ent_token"] if warned else []
    )


def test_only_a_new_model_is_warned_about(config_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = confit.Config.from_disk(config_path)
    encoder = {**config["components"]["gliner"]["model"]["encoder"], "embed_ent_token": True}
    config["components"]["gliner"]["model"]["encoder"] = encoder
    config["components"]["gliner"]["label_sampling"] = {"shuffle": True}
    given = {
        **config.resolve(registry=registry)["train"],
        "loggers": [],
        "max_steps": 1,
        "validation_interval": 1,
    }
    nlp = train(**given)
    assert "embed_ent_token] is true" in capsys.readouterr().out
    train(**{**given, "nlp": nlp})
    assert "embed_ent_token] is true" not in capsys.readouterr().out


@pytest.mark.parametrize("part", ["encoder.backbone", "encoder"])
def test_an_encoder_with_an_adapter_is_not_frozen_as_a_whole(config_path: Path, part: str) -> None:
    pytest.importorskip("peft")
    config = confit.Config.from_disk(config_path)
    encoder = config["components"]["gliner"]["model"]["encoder"]
    encoder["backbone"]["adapter"] = {"@adapters": "lora", "r": 2}
    with pytest.raises(ConfigError) as raised:
        trained(config_path, {"encoder": encoder}, freeze_components=[part])
    assert raised.value.where == "train.freeze_components"
