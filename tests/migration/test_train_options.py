from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import translate
from gliner_pipe.migration.tables import OPTIONS, SECTIONS
from gliner_pipe.migration.values import NEVER
from gliner_pipe.train import train

KNOWN = list(inspect.signature(train).parameters)
TRAIN_OPTIONS = sorted(
    {
        row.target
        for row in OPTIONS.values()
        if row.target.startswith("train.")
        and not row.target.startswith(("train.train_data.", "train.val_data."))
    }
)


def ours(**options):
    notes: list[str] = []
    return translate(options, KNOWN, notes.append), notes


def test_names_of_edsnlp():
    options, notes = ours(grad_max_norm=5, output_dir="out", sub_batch_size="1000 tokens", logger=["csv"])
    assert options == {
        "max_grad_norm": 5.0,
        "output_path": Path("out"),
        "grad_accumulation_max_tokens": 1000,
        "loggers": ["csv"],
    }
    assert notes[0] == "note: grad_max_norm is read as max_grad_norm = 5.0"


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"learning_rate": "1e-5", "others_lr": 5e-5}, {"transformer_lr": 1e-5, "task_lr": 5e-5}),
        ({"lr_encoder": 1, "lr_others": 2}, {"transformer_lr": 1.0, "task_lr": 2.0}),
        ({"others_weight_decay": 0.1}, {"task_weight_decay": 0.1}),
        ({"num_steps": "3e4"}, {"max_steps": 30000}),
        ({"num_train_epochs": 2.5}, {"max_epochs": 2.5}),
        ({"lr": 1e-4, "epochs": 3}, {"transformer_lr": 1e-4, "max_epochs": 3.0}),
        ({"optim": "adamw_torch_fused"}, {"optimizer": "adamw"}),
        ({"optim": "SGD"}, {"optimizer": "sgd"}),
        ({"optim": "adafactor"}, {"optimizer": "adafactor"}),
        ({"lr_scheduler_type": "cosine"}, {"schedule": "cosine"}),
        ({"lr_scheduler_type": "constant"}, {"schedule": "constant", "warmup_rate": 0.0}),
        (
            {"scheduler_type": "constant_with_warmup", "warmup_ratio": 0.1},
            {"warmup_rate": 0.1, "schedule": "constant"},
        ),
        ({"warmup_steps": 0, "warmup_ratio": 0.2}, {"warmup_rate": 0.2}),
        ({"warmup_steps": 50, "warmup_ratio": 0.2}, {"warmup_steps": 50}),
        ({"warmup_steps": 0.05}, {"warmup_rate": 0.05}),
        ({"fp16": False, "bf16": True}, {"mixed_precision": "bf16"}),
        ({"fp16": False}, {"mixed_precision": "no"}),
        ({"per_device_train_batch_size": 8}, {"batch_size": "8 samples"}),
        ({"report_to": "wandb"}, {"loggers": ["default", "wandb"]}),
        ({"report_to": ["none"]}, {}),
        ({"log": "tensorboard"}, {"loggers": ["default", "tensorboard"]}),
        ({"eval_strategy": "no"}, {"validation_interval": NEVER}),
        ({"evaluation_strategy": "epoch", "eval_steps": 10}, {"validation_interval": "epoch"}),
        ({"eval_strategy": "steps", "eval_steps": "20"}, {"validation_interval": 20}),
        ({"eval_strategy": "steps", "logging_steps": 5}, {"validation_interval": 5, "logging_interval": 5}),
        ({"eval_steps": 0.1, "num_steps": 200}, {"max_steps": 200, "validation_interval": 20}),
        ({"eval_every": 100}, {"validation_interval": 100}),
        ({"save_strategy": "best"}, {"checkpoint_interval": NEVER}),
        ({"save_steps": 30}, {"checkpoint_interval": 30}),
        (
            {"save_steps": 1, "num_steps": 200},
            {"max_steps": 200, "checkpoint_interval": 1},
        ),  # a step, not all of them
        ({"logging_steps": -1}, {}),
        ({"metric_for_best_model": "eval_f1"}, {"best_metric": "ner.micro.f"}),
        ({"metric_for_best_model": "ner.macro.f"}, {"best_metric": "ner.macro.f"}),
        ({"early_stopping_patience": 3}, {"patience": 3}),
        ({"early_stopping_threshold": 0.01}, {"patience_threshold": 0.01}),
        ({"gradient_accumulation": 4}, {"gradient_accumulation_steps": 4}),
        ({"dataloader_num_workers": 2}, {"num_workers": 2}),
        ({"overwrite_output_dir": "no"}, {"overwrite": False}),
        ({"eval_on_start": True}, {"validate_at_start": True}),
        ({"project_name": "mine"}, {"output_path": Path("mine")}),
        ({"no_cuda": True, "compile_model": True}, {"cpu": True, "compile": True}),
        ({"hub_token": "<TOKEN>", "group_by_length": True}, {}),
        ({"hub_token": None}, {}),
        ({"token": "${HF_TOKEN}"}, {}),
    ],
)
def test_options(given, options):
    made, notes = ours(**given)
    assert made == options
    assert set(made) <= set(KNOWN)
    for name, value in made.items():
        assert (
            any(f"read as {name} = {value}" in note for note in notes)
            or name in given
            or name == "warmup_rate"
        )


@pytest.mark.parametrize("name", ["hub_token", "token"])
def test_a_real_token_is_refused_and_not_shown(name):
    with pytest.raises(ConfigError, match="HF_TOKEN") as raised:
        ours(**{name: "hf_secret"})
    assert raised.value.where == f"train.{name}" and "hf_secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "mentioned"),
    [
        ({"max_step": 3}, ["is no option of train", "'max_steps'"]),
        ({"optimizer_": 1}, ["is no option of train", "'optimizer'"]),
        ({"sub_batch_size": "4 splits"}, ["'4 splits'", "16000 tokens"]),
        ({"learning_rate": "fast"}, ["'fast'", "a number"]),
        ({"learning_rate": True}, ["True"]),
        ({"num_steps": 2.5}, ["2.5 (float)", "a whole number"]),
        ({"num_steps": 5, "max_steps": 6}, ["train.max_steps", "num_steps (train.num_steps)"]),
        ({"fp16": True, "bf16": True}, ["fp16 and bf16"]),
        ({"optim": "adamw_torch_fusd"}, ["adamw_torch_fused"]),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, ["linear, cosine"]),
        ({"report_to": "neptune_ai"}, ["'neptune_ai'", "none, tensorboard"]),
        ({"metric_for_best_model": "eval_runtime"}, ["f1", "ner.micro.f"]),
        ({"greater_is_better": "no way"}, ["true"]),
        ({"eval_steps": 0.2}, ["0.2", "max_steps"]),
        ({"eval_strategy": "sometimes"}, ["no, steps, epoch"]),
        ({"focal_loss_alpha": 0.7}, ["alpha", "[components.gliner.model.loss]"]),
        ({"gradient_checkpointing": True}, ["[components.gliner.model.encoder.backbone]"]),
        ({"adam_beta1": 0.8}, ["beta1", "[train.optimizer]"]),
        ({"max_width": 8}, ["max_width", "[components.gliner.model.span_rep]"]),
        ({"val_data_dir": "x"}, ["path", "[train.val_data.reader]"]),
        ({"deepspeed": "x.json"}, ["accelerate launch"]),
        ({"username": "me"}, ["hub_model_id"]),
        ({"eval_every": 5, "eval_steps": 6}, ["train.validation_interval", "eval_every (train.eval_every)"]),
    ],
)
def test_mistakes(given, mentioned):
    with pytest.raises(ConfigError) as raised:
        ours(**given)
    message = str(raised.value)
    assert raised.value.where == f"train.{list(given)[-1]}"
    assert [word for word in mentioned if word not in message] == []
    assert "\n" not in message


def test_every_argument_of_the_trainer_is_known_or_refused():
    transformers = pytest.importorskip("transformers")
    unanswered = []
    for item in dataclasses.fields(transformers.TrainingArguments):
        if item.name not in OPTIONS:
            try:
                ours(**{item.name: 1})
            except ConfigError:
                continue
            unanswered.append(item.name)
    assert unanswered == []


def test_every_argument_of_gliner_is_known():
    trainer = pytest.importorskip("gliner.training.trainer")
    arguments = {item.name for item in dataclasses.fields(trainer.TrainingArguments)}
    model = pytest.importorskip("gliner.model")
    signature = inspect.signature(model.BaseGLiNER.create_training_args).parameters
    arguments |= set(signature) - {"cls", "kwargs"}
    assert arguments - set(SECTIONS["training"]) == set()


def test_every_key_of_gliner_configurations_is_known():
    config = pytest.importorskip("gliner.config")
    keys = set()
    for name in (
        "BaseGLiNERConfig",
        "BiEncoderSpanConfig",
        "UniEncoderSpanDecoderConfig",
        "UniEncoderSpanRelexConfig",
    ):
        signature = inspect.signature(getattr(config, name).__init__)
        keys |= {key for key, item in signature.parameters.items() if item.kind is not item.VAR_KEYWORD}
    assert keys - {"self"} - set(SECTIONS["model"]) == set()


@pytest.mark.parametrize("name", TRAIN_OPTIONS)
def test_options_that_names_become_exist(name):
    assert name.removeprefix("train.").partition(".")[0] in KNOWN
