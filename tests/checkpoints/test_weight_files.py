"""Files of checkpoints: shards, prefixes of wrappers, absent tokenizers and configurations, attention."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_parity import (
    LABELS,
    bi_settings,
    check,
    decoder_settings,
    forget_tokenizers,
    load,
    make_peer,
    save,
)
from safetensors.torch import load_file
from weight_files import PICKLED, SAFE, in_hub_cache, prefixed, rewrite, sharded

import gliner_pipe
from gliner_pipe.errors import CheckpointError, ConfigError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model of the `gliner` package and its checkpoint."""
    model = make_peer()
    return model, save(model, tmp_path_factory.mktemp("written") / "checkpoint")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable is read when the package is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(written: tuple[Any, Path], tmp_path: Path) -> Path:
    return shutil.copytree(written[1], tmp_path / "checkpoint")


def change(folder: Path, **changes: Any) -> None:
    path = folder / "gliner_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder: Path | str, match: str, kind: type[Exception] = CheckpointError) -> None:
    """The error is one short line."""
    with pytest.raises(kind, match=match) as error:
        load(folder)  # type: ignore[arg-type]
    assert "\n" not in str(error.value) and len(str(error.value)) < 900


def same(component: Any, other: Path) -> bool:
    expected = load(other).gliner.state_dict()
    found = component.gliner.state_dict()
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize("name", [SAFE, PICKLED, "model.fp16.safetensors"])
def test_shards(folder, written, name):
    shards = sharded(folder, name)
    assert same(load(folder), written[1])
    shards[2].unlink()
    shards[0].unlink()
    refused(folder, f"3 weight files, of which 2 are missing: {shards[0].name}, {shards[2].name}")


def test_an_index_of_nothing(folder):
    sharded(folder)
    (folder / f"{SAFE}.index.json").write_text("{}")
    refused(folder, "not an index")


def test_shards_on_the_hub(folder, written, tmp_path, monkeypatch):
    sharded(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = in_hub_cache(folder, tmp_path / "hub", "owner/model")
    assert same(load(snapshot), written[1])
    assert same(load("owner/model"), written[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "pytorch_model-00002-of-00009.bin"])
def test_shards_are_downloaded(name):
    from huggingface_hub.utils import filter_repo_objects

    from gliner_pipe.checkpoints.gliner_read import FILES

    assert [*filter_repo_objects([name, "notes.md"], allow_patterns=list(FILES))] == [name]


@pytest.mark.parametrize("prefix", ["module.", "model.", "base_model.model.", "_orig_mod.module."])
def test_prefixes_of_wrappers(folder, written, prefix):
    assert same(load(prefixed(folder, prefix)), written[1])


def test_prefix_of_peft_around_the_encoder(folder, written):
    inner = "token_rep_layer.bert_layer.model."
    rewrite(folder, lambda w: {n.replace(inner, f"{inner}base_model.model."): t for n, t in w.items()})
    assert same(load(folder), written[1])
    lora = f"{inner}encoder.layer.0.attention.self.query"
    rewrite(
        folder,
        lambda w: {
            n.replace(f"{inner}base_model.model.", inner).replace(
                f"{lora}.weight", f"{lora}.base_layer.weight"
            ): t
            for n, t in w.items()
        },
    )
    refused(folder, "merge_and_unload")


def test_other_prefixes_are_refused_by_name(folder):
    refused(prefixed(folder, "student."), r"'student\.'")


def test_two_prefixes_are_refused_by_name(folder):
    rewrite(folder, lambda w: {**w, **{f"ema.{name}": tensor.clone() for name, tensor in w.items()}})
    refused(folder, r"none, 'ema\.'")


def test_many_missing_tensors_are_counted(folder):
    rewrite(folder, lambda w: {n: t for n, t in w.items() if "layer.1" not in n})
    refused(folder, r"Missing: .* and 12 more\. Unexpected: none")


# -- configurations --------------------------------------------------------------------------------------------------


def test_the_configuration_under_another_name(folder, written):
    expected = written[1]
    (folder / "gliner_config.json").rename(folder / "config.json")
    assert same(load(folder), expected)
    nlp = gliner_pipe.load(folder, labels=LABELS)
    assert nlp.pipe_names == ["gliner"]
    (folder / "config.json").rename(folder / "my_config.json")
    refused(folder, r"Rename my_config\.json", ConfigError)


def test_a_checkpoint_in_a_subfolder(folder):
    refused(folder.parent, "Give the folder .*checkpoint", ConfigError)


@pytest.mark.parametrize("name", ["C:\\models\\base", "some/base", "/no/where"])
def test_encoders_that_are_elsewhere(folder, written, name):
    """The configuration and the tokenizer of the checkpoint are enough."""
    change(folder, model_name=name)
    assert same(load(folder), written[1])
    change(folder, encoder_config=None)
    refused(folder, r"has no encoder_config.* model_name, .* Write the content")


def test_label_models_that_are_elsewhere(tmp_path):
    model = make_peer(**bi_settings())
    folder = save(model, tmp_path / "bi", changes={"labels_encoder": "some/base"})
    check(model, load(folder))
    shutil.rmtree(folder / "labels_tokenizer")
    refused(folder, "holds no tokenizer, and that of its labels_encoder, 'some/base'")
    folder = save(make_peer(**decoder_settings()), tmp_path / "lm", changes={"labels_decoder": "some/base"})
    assert load(folder).gliner.decoder.decoder is not None
    change(folder, labels_decoder_config={"model_type": "nope"})
    refused(folder, "labels_decoder_config .*'nope'")


@pytest.mark.parametrize("name", ["C:\\models\\base", "some/base", "/no/where"])
def test_tokenizers_that_are_elsewhere(folder, name):
    forget_tokenizers(folder)
    change(folder, model_name=name)
    refused(folder, r"holds no tokenizer, and that of its model_name, .* Copy tokenizer\.json")


def test_tokens_in_a_file_of_their_own(folder, written):
    """Files that `transformers` wrote before it had ``tokenizer.json``."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = tokenizer.get_vocab()
    forget_tokenizers(folder)
    added = {token: vocabulary.pop(token) for token in ("[FLERT]", "<<ENT>>", "<<SEP>>")}
    (folder / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    (folder / "added_tokens.json").write_text(json.dumps(added))
    component = load(folder)
    assert same(component, written[1])
    assert component.gliner.encoder.backbone.tokenizer.get_vocab() == vocabulary | added


# -- attention -------------------------------------------------------------------------------------------------------


def test_attention_of_a_checkpoint(folder, written, caplog):
    change(folder, _attn_implementation="eager")
    component = load(folder)
    assert component.gliner.encoder.backbone.encoder.config._attn_implementation == "eager"
    check(written[0], component)
    change(folder, _attn_implementation="flash_attention_2")
    with caplog.at_level(logging.WARNING):
        component = load(folder)
    assert component.gliner.encoder.backbone.encoder.config._attn_implementation == "sdpa"
    assert sum("attention" in record.getMessage() for record in caplog.records) == 1
    check(written[0], component)


def test_attention_of_the_encoder_of_a_checkpoint(folder):
    encoder = json.loads((folder / "gliner_config.json").read_text())["encoder_config"]
    change(folder, encoder_config={**encoder, "_attn_implementation": "eager"})
    assert load(folder).gliner.encoder.backbone.encoder.config._attn_implementation == "eager"
    change(folder, encoder_config={**encoder, "_attn_implementation": "stranger/kernel"})
    refused(folder, r"attn_implementation\] found 'stranger/kernel'", ConfigError)


def test_rows_for_more_tokens_than_the_configuration_says(folder, written):
    encoder = json.loads((folder / "gliner_config.json").read_text())["encoder_config"]
    for size in (encoder["vocab_size"] - 9, encoder["vocab_size"] + 9):
        change(folder, encoder_config={**encoder, "vocab_size": size})
        assert same(load(folder), written[1])
    assert load_file(folder / SAFE)
