from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path

import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import translate
from gliner_pipe.migration.names import SYSTEMS
from gliner_pipe.migration.tables import OPTIONS, PARAMETERS, SECTIONS
from gliner_pipe.migration.values import NEVER
from gliner_pipe.train import train

KNOWN = list(inspect.signature(train).parameters)
ALL = [*PARAMETERS.values(), *(name for names in SECTIONS.values() for name in names.values())]


def ours(**options):
    notes: list[str] = []
    return translate(options, KNOWN, notes.append), notes


def test_names_of_edsnlp():
    options, notes = ours(grad_max_norm=5, output_dir="out", sub_batch_size="1000 tokens", logger=["csv"])
    assert options == {
        "max_grad_norm": 5.0,
        "output_path": Path("out/model-last"),
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
        ({"optimizer_": 1}, None),
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
        ({"logging_steps": -1}, {}),
        ({"metric_for_best_model": "eval_f1"}, {"best_metric": "ner.micro.f"}),
        ({"metric_for_best_model": "ner.macro.f"}, {"best_metric": "ner.macro.f"}),
        ({"early_stopping_patience": 3}, {"patience": 3}),
        ({"early_stopping_threshold": 0.01}, {"patience_threshold": 0.01}),
        ({"gradient_accumulation": 4}, {"gradient_accumulation_steps": 4}),
        ({"dataloader_num_workers": 2}, {"num_workers": 2}),
        ({"overwrite_output_dir": "no"}, {"overwrite": False}),
        ({"eval_on_start": True}, {"validate_at_start": True}),
        ({"project_name": "mine"}, {"output_path": Path("mine/model-last")}),
        ({"no_cuda": True, "compile_model": True}, {"cpu": True, "compile": True}),
        ({"hub_token": "<TOKEN>", "group_by_length": True}, {}),
        ({"hub_token": None}, {}),
        ({"token": "${HF_TOKEN}"}, {}),
    ],
)
def test_options(given, options):
    if options is None:
        with pytest.raises(ConfigError, match=r"is no option of train"):
            ours(**given)
        return
    made, notes = ours(**given)
    assert made == options
    assert set(made) <= set(KNOWN)
    for name, value in made.items():
        assert (
            any(f"read as {name} = {value}" in note for note in notes)
            or name in given
            or name == "warmup_rate"
        )


def test_the_token_is_not_shown():
    for name in ("hub_token", "token"):
        with pytest.raises(ConfigError, match=r"HF_TOKEN") as raised:
            ours(**{name: "hf_secret"})
        assert "hf_secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_step": 3}, r"\[train.max_step\] is no option of train.*Did you mean 'max_steps'"),
        ({"sub_batch_size": "4 splits"}, r"\[train.sub_batch_size\] is '4 splits'.*1000|16000 tokens"),
        ({"learning_rate": "fast"}, r"\[train.learning_rate\] is 'fast'; allowed: a number"),
        ({"learning_rate": True}, r"is True"),
        ({"num_steps": 2.5}, r"is 2.5 \(float\); allowed: a whole number"),
        ({"num_steps": 5, "max_steps": 6}, r"\[train.max_steps\] says what num_steps says already"),
        ({"fp16": True, "bf16": True}, r"contradicts another option: fp16 and bf16"),
        ({"optim": "adamw_torch_fusd"}, r"Did you mean adamw_torch_fused"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, r"allowed: linear, cosine"),
        ({"report_to": "neptune_ai"}, r"names 'neptune_ai'; allowed: none, tensorboard"),
        ({"metric_for_best_model": "eval_loss"}, r"allowed: f1.*ner\.micro\.f.*not by its loss"),
        ({"greater_is_better": False}, r"allowed: true"),
        (
            {"eval_steps": 0.2},
            r"\[train.eval_steps\] is 0.2, a share of the steps, and there is no max_steps",
        ),
        ({"eval_strategy": "sometimes"}, r"allowed: no, steps, epoch"),
        ({"focal_loss_alpha": 0.7}, r"Put alpha in the section \[components\.gliner\.model\.loss\]"),
        (
            {"gradient_checkpointing": True},
            r"in the section \[components\.gliner\.model\.encoder\.backbone\]",
        ),
        ({"adam_beta1": 0.8}, r"Put beta1 in the section \[train\.optimizer\]"),
        ({"max_width": 8}, r"Put max_width in the section \[components\.gliner\.model\.span_rep\]"),
        ({"val_data_dir": "x"}, r"Put path in the section \[train\.val_data\.reader\]"),
        ({"deepspeed": "x.json"}, r"accelerate launch"),
        ({"username": "me"}, r"hub_model_id"),
        ({"eval_every": 5, "eval_steps": 6}, r"\[train.eval_steps\] says what eval_every says already"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(ConfigError, match=message) as raised:
        ours(**given)
    assert "\n" not in str(raised.value)


def test_each_argument_of_the_trainer_has_an_answer():
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


def test_each_argument_of_gliner_is_known():
    trainer = pytest.importorskip("gliner.training.trainer")
    arguments = {item.name for item in dataclasses.fields(trainer.TrainingArguments)}
    model = pytest.importorskip("gliner.model")
    signature = inspect.signature(model.BaseGLiNER.create_training_args).parameters
    arguments |= set(signature) - {"cls", "kwargs"}
    assert arguments - set(SECTIONS["training"]) == set()


def test_each_key_of_gliners_configurations_is_known():
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


@pytest.mark.parametrize("name", ALL, ids=lambda name: f"{name.systems[0]}-{name.name}")
def test_rows(name):
    assert set(name.systems) <= set(SYSTEMS)
    assert name.meaning.endswith(".") and name.meaning[0].isalnum()
    assert bool(name.target) == (name.fate == "option")
    assert bool(name.do) == (name.fate == "refused")
    if name.target.startswith("train.") and name.target.split(".")[1] not in ("train_data", "val_data"):
        assert name.target.split(".")[1] in KNOWN
