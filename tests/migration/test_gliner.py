from __future__ import annotations

import json
import re
import shutil

import pytest
import spacy
import yaml
from confit import Config

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import read_yaml, to_config
from gliner_pipe.train import app
from tests.conftest import make_backbone, make_causal_lm
from tests.migration.migration_files import FLAT, SAMPLE, UNIFIED, resolved, written


def test_sections(backbone, tmp_path):
    moved = to_config(written(tmp_path, UNIFIED, backbone))
    nlp = resolved(moved)
    component = moved.config["components"]["gliner"]
    model, train = component["model"], moved.config["train"]
    assert component["label_sampling"] == {"max_types": 30, "negative_ratio": 2.0}
    assert component["word_splitter"] == {"@word_splitters": "whitespace"}
    assert nlp.get_pipe("gliner").cfg["batch_size"] == 16
    encoder = model["encoder"]
    assert encoder["@encoders"] == "uni_encoder" and encoder["rnn_layers"] == 1
    assert encoder["backbone"] == {
        "@backbones": "transformer",
        "model": str(backbone),
        "pooling": "mean",
        "hidden_size": 32,
        "fuse_layers": False,
        "freeze": False,
        "window": 240,
        "stride": 160,
        "attn_implementation": "auto",
        "gradient_checkpointing": False,
        "adapter": {"@adapters": "lora", "r": 4, "alpha": 8.0, "dropout": 0.1, "bias": "none"},
    }
    assert model["span_rep"]["@span_reps"] == "token_level"
    assert model["span_rep"]["token_loss_coef"] == 0.9 and model["span_rep"]["span_loss_coef"] == 0.8
    assert model["loss"] == {
        "@losses": "gliner_pipe.focal",
        "alpha": 0.7,
        "gamma": 2.0,
        "prob_margin": 0.0,
        "label_smoothing": 0.05,
        "reduction": "sum",
        "negatives": 0.9,
        "masking": "global",
    }
    reader = {"@readers": "gliner_json", "path": f"{SAMPLE}/train.jsonl"}
    chunk = {"max_words": 60, "stride": 12}
    assert train.pop("train_data") == {"randomize": True, "reader": reader, "chunk": chunk}
    assert train.pop("val_data") == {"reader": {**reader, "path": f"{SAMPLE}/dev.jsonl"}}
    del train["nlp"], train["scorer"]
    assert train == {
        "output_path": str(tmp_path / "out"),
        "overwrite": True,
        "max_epochs": 3.0,
        "batch_size": "6 samples",
        "gradient_accumulation_steps": 2,
        "transformer_lr": 2e-5,
        "task_lr": 1e-3,
        "weight_decay": 0.02,
        "task_weight_decay": 0.03,
        "optimizer": {"@optimizers": "adamw", "beta1": 0.9, "beta2": 0.98, "eps": 1e-6},
        "schedule": "cosine",
        "warmup_rate": 0.08,
        "max_grad_norm": 5.0,
        "mixed_precision": "no",
        "seed": 7,
        "loggers": ["default", "tensorboard"],
        "logging_interval": 5,
        "validation_interval": 20,
        "validate_at_start": False,
        "checkpoint_interval": 40,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "push_to_hub": False,
        "hub_model_id": "someone/model",
        "hub_strategy": "end",
        "hub_private_repo": True,
        "hub_always_push": True,
        "ignore_data_skip": False,
        "full_determinism": False,
        "best_metric": "ner.micro.f",
    }


def test_flat(backbone, tmp_path):
    moved = to_config(written(tmp_path, FLAT, backbone))
    resolved(moved)
    model, train = moved.config["components"]["gliner"]["model"], moved.config["train"]
    assert model["span_rep"] == {"@span_reps": "markerV0", "max_width": 8, "dropout": 0.3}
    assert model["loss"]["alpha"] == -1 and model["loss"]["gamma"] == 0
    assert (train["max_steps"], train["batch_size"], train["validation_interval"]) == (300, "4 samples", 50)
    assert (train["transformer_lr"], train["task_lr"]) == (1e-5, 5e-5)
    assert (train["weight_decay"], train["task_weight_decay"]) == (0.01, 0.02)
    assert "best_metric" not in train and "val_data" not in train
    assert "num_steps is an older name, read as train.max_steps" in moved.notes
    assert moved.to_cfg().startswith(f"# Made from {tmp_path / 'old.yaml'}\n# - ")


def test_options_without_effect_are_told(backbone, tmp_path):
    moved = to_config(
        written(
            tmp_path,
            FLAT.replace('loss_reduction: "sum"', "loss_reduction: none") + "triples_layer: distmult\n",
            backbone,
        )
    )
    assert moved.config["components"]["gliner"]["model"]["loss"]["reduction"] == "sum"
    assert "triple" not in moved.config["components"]["gliner"]["model"]
    for name in ("loss_reduction", "triples_layer"):
        assert [note for note in moved.notes if note.startswith(name)]


MODELS = {
    "bi_encoder": (
        "labels_encoder: '{backbone}'\npost_fusion_schema: l2t-t2l\nspan_mode: markerV0",
        {"encoder": "bi_encoder", "fusion": "cross_attention", "span_rep": "markerV0"},
    ),
    "bi_encoder_token": (
        "labels_encoder: '{backbone}'\nspan_mode: token-level",
        {"encoder": "bi_encoder", "span_rep": "token_level"},
    ),
    "decoder": (
        "labels_decoder: '{decoder}'\ndecoder_mode: span\nspan_loss_coef: 0.5",
        {"encoder": "uni_encoder", "decoder": "generative"},
    ),
    "relations": (
        "relations_layer: biaffine\ntriples_layer: distmult",
        {"relation_layer": "biaffine", "triple": "distmult"},
    ),
    "relations_older_names": (
        "relations_layer: attn\ntriples_layer: TransE\nspan_mode: token_level",
        {"relation_layer": "attention", "triple": "transe", "span_rep": "token_level"},
    ),
    "relations_all_pairs": ("relations_layer: none", {"relation_layer": "none", "triple": "concat"}),
    "context": (
        "span_encoder_config: {model_type: rnn, num_hidden_layers: 1}",
        {"context": "lstm", "span_rep": "markerV0"},
    ),
}


@pytest.fixture(scope="module")
def label_generator(tmp_path_factory):
    return make_causal_lm(tmp_path_factory.mktemp("label_generator"))


@pytest.mark.parametrize("name", MODELS)
def test_architectures(name, backbone, label_generator, tmp_path):
    keys, blocks = MODELS[name]
    text = f"{FLAT}{keys}\n".replace("labels_encoder: null\n", "").replace("{decoder}", str(label_generator))
    if "span_mode" in keys:
        text = text.replace("span_mode: markerV0\n", "", 1)
    moved = to_config(written(tmp_path, text, backbone))
    nlp = resolved(moved)
    model = moved.config["components"]["gliner"]["model"]
    assert {key: next(iter(model[key].values())) for key in blocks} == blocks
    component = nlp.get_pipe("gliner")
    component.gliner.build()
    assert not getattr(
        component.gliner.triple, "compatible", False
    )  # of checkpoints only: new models would not learn
    assert component.finds_relations is ("relation_layer" in blocks)
    assert ("relations" in moved.config["scorer"]) is ("relation_layer" in blocks)


@pytest.mark.parametrize("kind", ["deberta-v2", "modernbert"])
def test_window_follows_the_encoder(kind, tmp_path):
    folder = make_backbone(tmp_path / kind, kind)
    moved = to_config(written(tmp_path, FLAT.replace("max_len: 100", "max_len: 400"), folder))
    window = moved.config["components"]["gliner"]["model"]["encoder"]["backbone"]["window"]
    assert window == (508 if kind == "modernbert" else 800)


def test_unavailable_encoder(tmp_path):
    moved = to_config(written(tmp_path, UNIFIED, "someone/encoder-that-is-not-here"))
    backbone = moved.config["components"]["gliner"]["model"]["encoder"]["backbone"]
    assert backbone["model"] == "someone/encoder-that-is-not-here" and backbone["window"] == 240
    assert any("someone/encoder-that-is-not-here" in note and "window" in note for note in moved.notes)


@pytest.mark.parametrize(
    ("lines", "loss"),
    [
        ("loss_type: bce", {"@losses": "gliner_pipe.bce"}),
        ("loss_type: dice\ndice_gamma: 0.5", {"@losses": "gliner_pipe.dice", "gamma": 0.5}),
        (
            "use_span_width_weight: true",
            {"@losses": "gliner_pipe.focal", "alpha": -1, "gamma": 0, "width_weight": True},
        ),
    ],
)
def test_losses(lines, loss, backbone, tmp_path):
    text = re.sub(r"(loss_alpha|loss_gamma|label_smoothing|loss_reduction).*\n", "", FLAT) + lines
    moved = to_config(written(tmp_path, text, backbone))
    resolved(moved)
    assert moved.config["components"]["gliner"]["model"]["loss"] == loss


def test_loss_of_relations(backbone, tmp_path):
    text = FLAT + "relations_layer: dot\nrel_focal_loss_gamma: 2\n"
    model = to_config(written(tmp_path, text, backbone)).config["components"]["gliner"]["model"]
    assert model["relation_loss"] == {**model["loss"], "gamma": 2.0}


def test_training_continues_from_a_model(backbone, tmp_path):
    moved = to_config(
        written(tmp_path, FLAT.replace("prev_path: null", "prev_path: someone/gliner"), backbone)
    )
    model = moved.config["components"]["gliner"]["model"]
    assert model["@architectures"] == "gliner_pipe.Pretrained.v1" and model["name"] == "someone/gliner"
    assert model["loss"]["@losses"] == "gliner_pipe.focal"
    assert any(note.startswith("model_name") and "not read" in note for note in moved.notes)
    assert not any("loss_alpha" in note and "not read" in note for note in moved.notes)


def test_training_continues_from_a_frozen_model(tmp_path):
    keys = "fine_tune: false\nprev_path: someone/gliner\ntrain_data: x.json\nwords_splitter_type: spacy\n"
    moved = to_config(
        written(tmp_path, keys + "gradient_checkpointing: true\nfreeze_components: [decoder]\n")
    )
    assert moved.config["train"]["freeze_components"] == ["decoder", "text_encoder"]
    assert moved.config["components"]["gliner"]["word_splitter"] == {"@word_splitters": "spacy"}
    assert any(note.startswith("gradient_checkpointing: not read") for note in moved.notes)
    assert not any("fine_tune" in note for note in moved.notes)


def test_adapter_on_a_model_whose_training_continues(tmp_path):
    text = "model: {max_types: 5}\ntraining: {prev_path: someone/gliner}\npeft: {enabled: true, r: 2}\n"
    moved = to_config(written(tmp_path, text + "data: {train_data: x.json}\n"))
    assert moved.config["components"]["gliner"]["model"] == {
        "@architectures": "gliner_pipe.Pretrained.v1",
        "name": "someone/gliner",
        "adapter": {"@adapters": "lora", "r": 2},
    }
    assert moved.config["components"]["gliner"]["label_sampling"] == {"max_types": 5}


def test_other_adapters(backbone, tmp_path):
    text = "model: {model_name: '{backbone}'}\npeft: {method: IA3, target_modules: [value], init_ia3_weights: true}\n"
    moved = to_config(written(tmp_path, text + "data: {train_data: x.json}\n", backbone))
    resolved(moved)
    assert moved.config["components"]["gliner"]["model"]["encoder"]["backbone"]["adapter"] == {
        "@adapters": "peft",
        "method": "ia3",
        "target_modules": ["value"],
        "options": {"init_ia3_weights": True},
    }


def test_no_adapter_unless_enabled(backbone, tmp_path):
    moved = to_config(
        written(tmp_path, UNIFIED.replace("enabled: true\n  method", "enabled: false\n  method"), backbone)
    )
    assert "adapter" not in moved.config["components"]["gliner"]["model"]["encoder"]["backbone"]


@pytest.mark.parametrize(
    ("data", "reader"),
    [
        ("{train_data: a.conll, format: conll}", {"@readers": "conll", "path": "a.conll"}),
        ("{train_data: a, format: brat}", {"@readers": "standoff", "path": "a"}),
        (
            "{train_data: a.csv, format: csv, fields: {tokens: words, ner: tags}}",
            {"@readers": "bio", "path": "a.csv", "tokens_column": "words", "tags_column": "tags"},
        ),
        (
            "{train_data: a.jsonl, format: jsonl, fields: {text: body, ner: spans}}",
            {"@readers": "jsonl", "path": "a.jsonl", "fields": {"text": "body", "ner": "spans"}},
        ),
        (
            "{train_data: a.json, fields: {tokens: words, ner: ner}}",
            {"@readers": "gliner_json", "path": "a.json", "fields": {"tokens": "words"}},
        ),
    ],
)
def test_readers(data, reader, tmp_path):
    moved = to_config(written(tmp_path, f"model: {{model_name: x}}\ndata: {data}\n"))
    assert moved.config["train"]["train_data"]["reader"] == reader


def test_tags_in_the_field_of_entities(tmp_path):
    """A file with one tag per word is read by the reader bio."""
    tags = tmp_path / "tags.json"
    tags.write_text(json.dumps([{"tokens": ["Ann", "slept"], "ner_tags": ["B-person", "O"]}]))
    text = (
        f"model: {{model_name: x}}\ndata: {{train_data: {tags}, fields: {{tokens: tokens, ner: ner_tags}}}}\n"
    )
    moved = to_config(written(tmp_path, text))
    assert moved.config["train"]["train_data"]["reader"] == {
        "@readers": "bio",
        "path": str(tags),
        "tokens_column": "tokens",
        "tags_column": "ner_tags",
    }
    moved = to_config(written(tmp_path, text.replace(str(tags), "elsewhere.json")))
    assert moved.config["train"]["train_data"]["reader"]["@readers"] == "gliner_json"
    assert any(note.startswith("elsewhere.json") and "ner_tags" in note for note in moved.notes)


def test_steps_before_epochs_and_steps_by_default(tmp_path):
    base = "model: {model_name: x}\ndata: {train_data: a.json}\n"
    train = to_config(written(tmp_path, base + "training: {max_steps: 5, num_train_epochs: 2}\n")).config[
        "train"
    ]
    assert train["max_steps"] == 5 and "max_epochs" not in train
    assert to_config(written(tmp_path, base)).config["train"]["max_steps"] == 10_000
    train = to_config(written(tmp_path, base + "training: {learning_rate: 1e-4}\n")).config["train"]
    assert train["task_lr"] == train["transformer_lr"] == 1e-4


def test_json(tmp_path, backbone):
    data = yaml.safe_load(UNIFIED)
    text = json.dumps(data, indent=2)
    moved = to_config(written(tmp_path, text, backbone, "old.json"))
    assert moved.config["train"]["batch_size"] == "6 samples"


def test_files_of_this_package_are_recognised(tmp_path):
    path = written(tmp_path, "nlp: {lang: en}\ntrain: {max_steps: 3}\n")
    assert read_yaml(path).shape == "own"
    with pytest.raises(ConfigError) as raised:
        to_config(path)
    assert raised.value.where == str(path)


def test_training_from_a_file(backbone, tmp_path):
    """A converted file trains, with an adapter and chunks, and the result loads."""
    moved = to_config(written(tmp_path, UNIFIED, backbone))
    del moved.config["train"]["max_epochs"]
    cfg = tmp_path / "new.cfg"
    cfg.write_text(moved.to_cfg())
    assert Config.from_disk(cfg)["train"]["seed"] == 7
    limits = ["--train.train_data.limit", "6", "--train.val_data.limit", "3", "--cpu", "true"]
    app(["--config", str(cfg), "--max_steps", "1", "--loggers", "none", *limits])
    nlp = spacy.load(tmp_path / "out" / "model-last")
    assert "person" in nlp.get_pipe("gliner").labels


def test_configurations_of_encoders_are_used(backbone, label_generator, tmp_path):
    """No ``config.json`` is read: the folders hold weights and tokenizers alone."""
    settings = {}
    for key, source in (
        ("model", backbone),
        ("labels_encoder", backbone),
        ("labels_decoder", label_generator),
    ):
        folder = shutil.copytree(source, tmp_path / key)
        settings[key] = json.loads((folder / "config.json").read_text())
        (folder / "config.json").unlink()
    text = FLAT.replace("labels_encoder: null\n", "").replace("max_len: 100", "max_len: 400")
    text += f"encoder_config: {json.dumps(settings['model'])}\n"
    for other in ("labels_encoder", "labels_decoder"):
        more = f"{other}: '{tmp_path / other}'\n{other}_config: {json.dumps(settings[other])}\n"
        moved = to_config(
            written(tmp_path, text.replace("{backbone}", str(tmp_path / "model")) + more, backbone)
        )
        nlp = resolved(moved)
        encoder = moved.config["components"]["gliner"]["model"]["encoder"]
        assert encoder["backbone"]["config"] == settings["model"]
        assert encoder["backbone"]["window"] == 508  # of 512 positions
        nlp.get_pipe("gliner").gliner.build()
