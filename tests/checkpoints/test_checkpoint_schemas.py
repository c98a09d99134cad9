"""Values in the files of checkpoints that cannot be right: refused by key before anything is built."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config, make_backbone
from fuzz.rule import obeys
from safetensors.torch import load_file, save_file
from tagging_pipeline import config as tagger_config
from tagging_pipeline import examples

from gliner_pipe.errors import GlinerPipeError
from gliner_pipe.pipeline.convert import to_gliner, to_transformers

SAFE = "model.safetensors"
CONFIG = "gliner_config.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of GLiNER and a token classifier of transformers."""
    root = tmp_path_factory.mktemp("written")
    backbone = make_backbone(root / "backbone")
    nlp = spacy.blank("en")
    words = {"@word_splitters": "whitespace"}
    nlp.add_pipe("gliner", config=gliner_config(backbone, word_splitter=words))
    nlp.initialize()
    to_gliner(nlp, root / "gliner")
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", config=tagger_config(backbone, {"@decoders": "softmax"}))
    nlp.initialize(lambda: examples(nlp))
    to_transformers(nlp, root / "tagger")
    return {kind: root / kind for kind in ("gliner", "tagger")}


@pytest.fixture
def folder(written: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(written["gliner"], tmp_path / "copy"))


def load(folder: Path, factory: str = "gliner") -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe(
        factory, config={"model": str(folder)} | ({"labels": ["person"]} if factory == "gliner" else {})
    )
    return nlp("Ada sings")


def refusal(folder: Path, factory: str = "gliner") -> str:
    """The message, within the limits of time and memory of the fuzzers."""
    error = obeys(load, folder, factory).error
    assert isinstance(error, GlinerPipeError), "loaded"
    return str(error)


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("hidden_size", value) for value in (-1, 10**12, "a", 31, True)),
        *(("max_width", value) for value in (0, 10**9, [])),
        *(("max_len", value) for value in ("a", -1, 10**12)),
        *(("encoder_config", value) for value in (3, "a", [])),
        *(("vocab_size", value) for value in (5, 10**9, "a")),
        *(("class_token_index", value) for value in (10**9, 3, -5)),
        *(("ent_token", value) for value in ("the", "<<OTHER>>", "", 3)),
        *(("sep_token", value) for value in ("the", "<<OTHER>>")),
        *(("num_rnn_layers", value) for value in (-1, 10**5, 2000)),
        ("dropout", 7),
        ("model_name", 3),
        ("span_mode", 3),
        ("subtoken_pooling", "most"),
        ("num_post_fusion_layers", 10**9),
        ("span_encoder_config", {"model_type": "deberta-v2", "hidden_size": 32, "num_hidden_layers": 10**5}),
    ],
)
def test_keys_of_gliner(folder: Path, key: str, value: Any) -> None:
    change(folder / CONFIG, **{key: value})
    message = refusal(folder)
    named = {"sep_token": "special token", "ent_token": "class_token_index|ent_token|<<OTHER>>"}
    assert any(
        name in message for name in (named.get(key, key).split("|") + ["pooling"] * (key[0] == "s"))
    ), message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("hidden_size", value) for value in (-1, 10**12, 60000, "a", 33)),
        *(("num_hidden_layers", value) for value in (-1, 10**9, 3000)),
        *(("num_attention_heads", value) for value in (0, 5, 10**9)),
        *(("vocab_size", value) for value in (-1, 10**9)),
        *(("max_position_embeddings", value) for value in (-1, 10**10, 10**7)),
        *(("model_type", value) for value in ("unknown", 3, [])),
        ("intermediate_size", 10**12),
        ("hidden_act", "loud"),
    ],
)
@pytest.mark.parametrize("kind", ["gliner", "tagger"])
def test_sizes_of_encoders(written: dict[str, Path], tmp_path: Path, kind: str, key: str, value: Any) -> None:
    folder = Path(shutil.copytree(written[kind], tmp_path / "copy"))
    if kind == "gliner":
        path = folder / CONFIG
        change(path, encoder_config={**json.loads(path.read_text())["encoder_config"], key: value})
    else:
        change(folder / "config.json", **{key: value})
    assert refusal(folder, "gliner" if kind == "gliner" else "token_classifier")


def test_unknown_keys_are_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(folder / CONFIG, lr_encoder=1, first_new_key=1, second_new_key={"a": 1})
    with caplog.at_level(logging.INFO, "gliner_pipe"):
        load(folder)
    assert "2 unknown keys are ignored: first_new_key, second_new_key" in caplog.text


def tensors(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = load_file(folder / SAFE)
        edit(content)
        save_file(content, folder / SAFE)

    return damage


def not_a_number(content: dict[str, Any]) -> None:
    content["prompt_rep_layer.0.weight"][0, 0] = float("nan")


def infinite(content: dict[str, Any]) -> None:
    content["token_rep_layer.bert_layer.model.embeddings.word_embeddings.weight"][3] = -float("inf")


def integers(content: dict[str, Any]) -> None:
    content["prompt_rep_layer.0.weight"] = content["prompt_rep_layer.0.weight"].to(torch.int8)


def integer_keys(folder: Path) -> None:
    torch.save(dict(enumerate(load_file(folder / SAFE).values())), folder / "pytorch_model.bin")
    (folder / SAFE).unlink()


def a_list(folder: Path) -> None:
    torch.save(list(load_file(folder / SAFE).values()), folder / "pytorch_model.bin")
    (folder / SAFE).unlink()


def cut(name: str, share: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(share * len(data))])

    return damage


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    shutil.rmtree(folder.parent.parent / "nowhere", ignore_errors=True)
    change(folder / CONFIG, model_name=str(folder / "nowhere"))


def huge_number(folder: Path) -> None:
    """A token whose number would take gigabytes."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["the"] = 10**9
    (folder / "tokenizer.json").write_text(json.dumps(content))


def number_without_a_row(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["the"] = 5000
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (huge_number, "tokenizer.json"),
        (number_without_a_row, "tokenizer"),
        (tensors(not_a_number), "prompt_rep.0.weight"),
        (tensors(infinite), "word_embeddings.weight"),
        (tensors(integers), "prompt_rep.0.weight"),
        (integer_keys, "pytorch_model.bin"),
        (a_list, "pytorch_model.bin"),
        (cut(SAFE, 0), SAFE),
        (cut(SAFE, 0.7), SAFE),
        (cut("tokenizer.json", 0), "tokenizer"),
        (cut("tokenizer.json", 0.5), "tokenizer"),
        (cut("tokenizer_config.json", 0.5), "tokenizer"),
        (without_tokenizer, "tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer"),
        (lambda folder: (folder / CONFIG).write_text("[" * 10**5), CONFIG),
        (lambda folder: change(folder / "tokenizer_config.json", model_max_length="a"), "model_max_length"),
    ],
)
def test_damaged_files(folder: Path, damage: Callable[[Path], Any], named: str) -> None:
    damage(folder)
    assert named in refusal(folder)
