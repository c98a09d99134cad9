# ruff: noqa: F811 (fixtures)
"""The command line, and that it trains what Python trains."""

from __future__ import annotations

import os
import random
from pathlib import Path

import confit
import pytest
import spacy
import torch

from gliner_pipe.cli.app import run
from gliner_pipe.registry import registry
from gliner_pipe.train import app, main, train
from tests.training.conftest import (  # noqa: F401 (fixtures)
    config_path,
    records,
    still_backbone,
    weights,
    write,
)

ROOT = Path(__file__).parent.parent


def command(*arguments: str) -> None:
    app([*arguments])


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail with one line, and return it."""
    with pytest.raises(SystemExit) as stopped:
        run(lambda: app([*arguments]), arguments)
    assert stopped.value.code == 1
    lines = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in lines if "it/s]" not in line]
    assert len(lines) == 1, lines
    return lines[0]


def test_command_line_and_python_train_the_same_weights(config_path, tmp_path):
    command("--config", str(config_path), "--train.loggers", '["jsonl"]')
    by_command = weights(spacy.load(tmp_path / "out" / "model-last"))

    torch.manual_seed(123)
    config = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    from_file = weights(train(**config["train"]))

    random.seed(9)
    nlp = spacy.blank("en")
    raw = confit.Config.from_disk(config_path)
    block = dict(raw["components"]["gliner"])
    block.pop("@factory")
    nlp.add_pipe("gliner", config=confit.Config(block))
    by_hand = weights(
        train(
            nlp,
            {"reader": raw["vars"]["train"], "max_length": 100},
            raw["vars"]["dev"],
            max_steps=4,
            validation_interval=2,
            batch_size="8 samples",
            transformer_lr=1e-3,
            task_lr=3e-3,
            output_path=tmp_path / "other" / "model-last",
        )
    )
    assert list(by_command) == list(from_file) == list(by_hand)
    for name, value in by_command.items():
        assert torch.equal(value, from_file[name]), name
        assert torch.equal(value, by_hand[name]), name


def test_overrides_and_the_config_beside_the_model(config_path, tmp_path):
    more = write(tmp_path / "more.jsonl", records(10, seed=7))
    command(
        "--config", str(config_path), "--max_steps", "2", "--seed=7", "--vars.train", str(more),
        "--components.gliner.threshold", "0.3", "--train.train_data.limit", "5", "--mixed-precision", "no",
    )  # fmt: skip
    written = tmp_path / "out" / "model-last" / "train_config.cfg"
    head = written.read_text("utf8").splitlines()
    assert head[0].startswith("# python 3.") and any(line.startswith("# torch ") for line in head)
    config = confit.Config.from_disk(written)
    assert (config["train"]["max_steps"], config["train"]["seed"], config["vars"]["train"]) == (
        2,
        7,
        str(more),
    )
    assert str(config["train"]["validation_interval"]) == "${train.max_steps//2}"
    trained = spacy.load(tmp_path / "out" / "model-last")
    assert trained.get_pipe("gliner").threshold == 0.3
    before = weights(trained)
    command("--config", str(written), "--output_path", str(tmp_path / "again" / "model-last"))
    again = weights(spacy.load(tmp_path / "again" / "model-last"))
    assert all(torch.equal(value, again[name]) for name, value in before.items())


def test_python_leaves_a_config_of_what_can_be_written(config_path, tmp_path):
    given = confit.Config.from_disk(config_path, resolve=True, registry=registry)["train"]
    train(**{**given, "max_steps": 1, "on_validation_callback": print})
    text = (tmp_path / "out" / "train_config.cfg").read_text("utf8")
    config = confit.Config.from_cfg_str(text)
    assert config["train"]["max_steps"] == 1 and config["train"]["task_lr"] == 3e-3
    assert "# Objects made in Python, not written here: " in text and "on_validation_callback" in text


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--max_steps", "0"], "[train.max_steps]"),
        (["--task_lr", "high"], "[train.task_lr]"),
        (["--max_step", "3"], "[train.max_step]"),
        (["--vars.train", "no/where.jsonl"], "no/where.jsonl"),
        (["--vars.dev", "no/where.jsonl"], "no/where.jsonl"),
        (["--train.train_data.max_len", "3"], "[train.train_data.max_len]"),
        (["--train.batch_size", "3 bananas"], "'3 bananas'"),
        (["--mixed_precision", "fp8"], "[train.mixed_precision]"),
        (["--schedule", "up"], "[train.schedule]"),
        (["--optimizer", "adam"], "[train.optimizer]"),
        (["--loggers", '["wandbb"]'], "[train.loggers]"),
        (["--best_metric", "ner.f"], "[train.best_metric]"),
        (["--val_data", "null", "--patience", "2"], "[train.patience]"),
        (["--train.best_path", "{out}/model-last"], "[train.best_path]"),
        (["--nlp", "no_such_pipeline"], "no_such_pipeline"),
        (
            ["--vars.trian", "x"],
            "[vars.trian]",
        ),
        (["--component.gliner.threshold", "0.1"], "[component.gliner.threshold]"),
        (["--components.glinr.threshold", "0.1"], "[components.glinr]"),
        (["--seed", "abc"], "[train.seed]"),
        (["--seed", "1.5"], "[train.seed]"),
        (["--seed", "-1"], "[train.seed]"),
        (
            ["--seed"],
            "[train.seed]",
        ),
        (
            ["--max_steps"],
            "write --max_steps VALUE",
        ),
        (["--max_steps", "ten"], "[train.max_steps]"),
        (["--batch_size", "0"], "[train.batch_size]"),
        (["--batch_size"], "write --batch_size VALUE"),
        (["--components.gliner.model.span_rep.max_width"], "[components.gliner.model.span_rep.max_width]"),
        (
            ["--components.gliner.model.span_rep.max_width", "NaN"],
            "[components.gliner.model.span_rep.max_width]",
        ),
        (["--components.gliner.model.dropout", "1.5"], "[components.gliner.model.dropout]"),
        (
            ["--components.gliner.model.encoder.rnn_layers", "-1"],
            "[components.gliner.model.encoder.rnn_layers]",
        ),
        (
            ["--components.gliner.model.encoder.backbone.hidden_size", "0"],
            "[components.gliner.model.encoder.backbone.hidden_size]",
        ),
        (["--components.gliner.threshold", "NaN"], "[components.gliner.threshold]"),
        (["--nlp.batch_size", "0"], "[nlp.batch_size]"),
        (["--loggers", "3"], "[train.loggers]"),
        (["--train.train_data.weight", "-1"], "[train.train_data.weight]"),
        (["--train.train_data.limit"], "[train.train_data.limit]"),
        (["--warmup_rate", "2"], "[train.warmup_rate]"),
        (
            ["--train.schedule", '{{"@schedules": "linear", "warmup_rate": 2}}'],
            "[train.schedule.warmup_rate]",
        ),
        (["--train.optimizer", '{{"@optimizers": "adamw", "eps": -1}}'], "[train.optimizer.eps]"),
        (
            ["--train.optimizer", '{{"@optimizers": "sgd", "momentum": 0, "nesterov": true}}'],
            "[train.optimizer]",
        ),
        (["--train.param_groups", '[{{"selector": "a", "lr": "x"}}]'], "[train.param_groups.0.lr]"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_is_trained(config_path, tmp_path, capsys, arguments, named):
    filled = [argument.format(out=tmp_path / "out") for argument in arguments]
    assert named in failure(capsys, "--config", str(config_path), *filled)
    assert not (tmp_path / "out").exists()


def test_a_missing_config_and_a_missing_section(tmp_path, capsys):
    assert "nowhere.cfg" in failure(capsys, "--config", "nowhere.cfg")
    assert "train.nlp" in failure(capsys)


def test_help_explains_every_option(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    for name in (
        "max_steps",
        "batch_size",
        "grad_accumulation_max_tokens",
        "val_data",
        "sample_texts",
        "patience",
    ):
        assert f"--{name}" in out
    assert "default: 0.1" in out and "ForwardRef" not in out and "config_meta" not in out


def test_names_of_eds_nlp(config_path, tmp_path, capsys):
    given = confit.Config.from_disk(config_path, resolve=True, registry=registry)["train"]
    given.pop("output_path")
    train(
        **given, output_dir=str(tmp_path / "eds"), grad_max_norm=5.0, sub_batch_size="100 tokens", logger=[]
    )
    assert (tmp_path / "eds" / "model-last" / "meta.json").exists()
    assert "note: grad_max_norm is read as max_grad_norm = 5.0" in capsys.readouterr().out


TUTORIAL = """
[nlp]
lang = "en"
pipeline = ["ner"]
batch_size = 1
components = ${{components}}

[components]

[components.ner]
@factory = "gliner"
gold_spans_key = ${{vars.gold_span_group}}

[components.ner.model]
@architectures = "gliner_pipe.GLiNER.v1"

[components.ner.model.encoder]
@encoders = "uni_encoder"

[components.ner.model.encoder.backbone]
@backbones = "transformer"
model = "{backbone}"
window = 128
stride = 96

[components.ner.model.span_rep]
@span_reps = "markerV0"

[scorer]

[scorer.ner]
@metrics = "gliner_pipe.ner_exact"
span_getter = ${{vars.gold_span_group}}
predicted_getter = "gliner"

[vars]
train = "{sample}/brat/train"
dev = "{sample}/brat/dev"
gold_span_group = "gold_spans"

[train]
nlp = ${{nlp}}
max_steps = 2000
validation_interval = ${{train.max_steps//10}}
warmup_rate = 0.1
# Adapt to the VRAM of your GPU
grad_accumulation_max_tokens = 48000
batch_size = 2000 words
transformer_lr = 5e-5
task_lr = 1e-4
scorer = ${{scorer}}
output_path = "artifacts/model-last"

[train.train_data]
randomize = true
# Documents will be split into sub-documents
max_length = 384
multi_sentence = true
[train.train_data.reader]
@readers = "standoff"
path = ${{vars.train}}
converter = "standoff"  # by default when readers==standoff
span_setter = ${{vars.gold_span_group}}

[train.val_data]
[train.val_data.reader]
@readers = "standoff"
path = ${{vars.dev}}
span_setter = ${{vars.gold_span_group}}

[package]
pipeline = ${{train.output_path}}
name = "my_ner_model"
"""


TAGGER = """
[nlp]
lang = "en"
pipeline = ["ner"]
batch_size = 1
components = ${{components}}

# The NER pipe will be a CRF model
[components.ner]
@factory = "token_classifier"
mode = "joint"
target_span_getter = ${{vars.gold_span_group}}
# Set spans as both to ents and in separate `ent.label` groups
span_setter = [ "ents", "*" ]
infer_span_setter = true

[components.ner.embedding]
@backbones = "text_cnn"
kernel_sizes = [3]

[components.ner.embedding.embedding]
@backbones = "transformer"
model = "{backbone}"
window = 128
stride = 96

[scorer.ner]
@metrics = "gliner_pipe.ner_exact"
span_getter = ${{vars.gold_span_group}}
"""


def test_the_tutorial_of_eds_nlp_with_blocks_of_ours(tmp_path, still_backbone, monkeypatch):
    """The whole file, values and all; only names of blocks and paths are others."""
    head, rest = TAGGER, TUTORIAL[TUTORIAL.index("[vars]") :]
    path = tmp_path / "config.cfg"
    text = (head + rest).format(backbone=still_backbone, sample=ROOT / "data" / "sample")
    path.write_text(text, encoding="utf8")
    monkeypatch.chdir(tmp_path)
    command("--config", "config.cfg", "--seed", "42", "--max_steps", "2", "--train.train_data.limit", "4")
    trained = spacy.load("artifacts/model-last")
    assert "person" in trained.get_pipe("ner").labels
    assert 0 <= trained.meta["performance"]["ner.micro.f"] <= 1


def test_a_config_with_all_that_eds_nlp_writes(tmp_path, still_backbone, monkeypatch):
    path = tmp_path / "config.cfg"
    path.write_text(
        TUTORIAL.format(backbone=still_backbone, sample=ROOT / "data" / "sample"), encoding="utf8"
    )
    monkeypatch.chdir(tmp_path)
    command("--config", "config.cfg", "--seed", "42", "--max_steps", "2", "--train.train_data.limit", "4")
    trained = spacy.load("artifacts/model-last")
    assert "person" in trained.get_pipe("ner").labels
    assert 0 <= trained.meta["performance"]["ner.micro.f"] <= 1


@pytest.mark.data
def test_the_wnut17_config_runs(tmp_path, still_backbone):
    folder = os.environ.get("GLINER_PIPE_DATA")
    if not folder or not (Path(folder) / "wnut17").is_dir():
        pytest.skip("GLINER_PIPE_DATA names no folder with wnut17")
    corpus = Path(folder) / "wnut17"
    command(
        "--config", str(ROOT / "configs" / "wnut17.cfg"), "--max_steps", "2", "--train.val_data.limit", "50",
        "--vars.train", str(corpus / "train.jsonl"), "--vars.dev", str(corpus / "dev.jsonl"),
        "--vars.model", str(still_backbone), "--output_path", str(tmp_path / "model-last"),
    )  # fmt: skip
    assert len(spacy.load(tmp_path / "model-last").get_pipe("gliner").labels) == 6
