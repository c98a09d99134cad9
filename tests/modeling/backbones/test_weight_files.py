"""Files of Hugging Face models: shards, prefixes of wrappers, missing, unused and resized tensors, attention."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_backbone
from safetensors.torch import load_file
from weight_files import PICKLED, SAFE, in_hub_cache, needs_version_5, prefixed, rewrite, sharded

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.encoders.label_encoder import TextEmbedder


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment variable is read when the package is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(backbone: Path, tmp_path: Path) -> Path:
    return shutil.copytree(backbone, tmp_path / "encoder")


def built(model: Path | str, **settings: Any) -> Any:
    made = Transformer(str(model), **settings)
    made.build()
    return made.encoder


def same(encoder: Any, weights: dict[str, torch.Tensor]) -> bool:
    own = encoder.state_dict()
    return all(torch.equal(own[name], tensor) for name, tensor in weights.items())


def set_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("name", [SAFE, PICKLED])
def test_shards(folder, name):
    weights = load_file(folder / SAFE)
    shards = sharded(folder, name)
    assert same(built(folder), weights)
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=rf"{shards[1].name}") as error:
        built(folder)
    assert "\n" not in str(error.value)


@needs_version_5
def test_snapshots_of_the_hub(folder, tmp_path, monkeypatch):
    weights = load_file(folder / SAFE)
    sharded(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = in_hub_cache(folder, tmp_path / "hub", "owner/encoder")
    assert same(built(snapshot), weights)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert same(built("owner/encoder"), weights)
    outside = tmp_path / "outside.safetensors"
    link = next(snapshot.glob("model-00001*"))
    shutil.copy(link, outside)
    link.unlink()
    link.symlink_to(outside)
    with pytest.raises((CheckpointError, ValueError), match="model-00001"):
        built(snapshot)


@needs_version_5
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "base_model.model.", "model.", "module.bert."])
def test_prefixes_of_wrappers(folder, prefix):
    weights = load_file(folder / SAFE)
    assert same(built(prefixed(folder, prefix)), weights)


@needs_version_5
@pytest.mark.parametrize("kind", ["deberta-v2", "modernbert"])
def test_prefixes_of_wrappers_in_other_models(tmp_path, kind):
    folder = make_backbone(tmp_path / kind, kind)
    weights = load_file(folder / SAFE)
    assert same(built(prefixed(folder, "module.")), weights)


def one_line(error: Any, size: int = 600) -> bool:
    return "\n" not in str(error.value) and len(str(error.value)) < size


def test_other_prefixes_are_refused_by_name(folder):
    with pytest.raises(CheckpointError, match=r"'roberta\.'") as error:
        built(prefixed(folder, "roberta."))
    assert one_line(error)


def test_two_prefixes_are_refused_by_name(folder):
    rewrite(folder, lambda w: {f"{p}.{n}": t.clone() for n, t in w.items() for p in ("module", "model")})
    with pytest.raises(CheckpointError, match=r"'model\.' or 'module\.'") as error:
        built(folder)
    assert one_line(error)


def test_missing_tensors_are_counted(folder):
    rewrite(folder, lambda w: {name: w[name] for name in w if "layer.1" not in name})
    with pytest.raises(CheckpointError, match=r"16 weights.* and 12 more") as error:
        built(folder)
    assert one_line(error)
    for name in [*folder.glob("*.safetensors")]:
        name.unlink()
    with pytest.raises(ConfigError) as error:
        built(folder)
    assert one_line(error)


def test_unmerged_adapters_are_refused(folder):
    name = "encoder.layer.0.attention.self.query"
    new = {f"{name}.lora_A.default.weight": torch.zeros(2, 32), f"{name}.base_layer.bias": torch.zeros(32)}
    rewrite(folder, lambda w: {key: w[key] for key in w if key != f"{name}.bias"} | new)
    with pytest.raises(CheckpointError, match="merge_and_unload") as error:
        built(folder)
    assert one_line(error)


def test_a_pooler_is_not_needed(folder):
    rewrite(folder, lambda w: {name: w[name] for name in w if "pooler" not in name})
    built(folder)


def test_unused_tensors_are_counted_in_one_line(folder, caplog):
    rewrite(folder, lambda w: {**w, **{f"cls.{place}.weight": torch.zeros(2) for place in range(9)}})
    with caplog.at_level(logging.WARNING):
        built(folder)
    (record,) = [record for record in caplog.records if "not used" in record.getMessage()]
    assert "9 tensors" in record.getMessage() and "and 5 more" in record.getMessage()


@needs_version_5
@pytest.mark.parametrize("change", [-1, 64])
def test_embeddings_of_another_size_than_the_configuration_says(folder, change):
    weights = load_file(folder / SAFE)
    set_config(folder, vocab_size=len(weights["embeddings.word_embeddings.weight"]) + change)
    assert same(built(folder), weights)


@needs_version_5
def test_embeddings_with_fewer_rows_than_the_tokenizer_has_tokens(folder, caplog):
    name = "embeddings.word_embeddings.weight"
    rewrite(folder, lambda w: {**w, name: w[name][:-3].clone()})
    with caplog.at_level(logging.WARNING):
        encoder = built(folder)
    assert "3 tokens" in caplog.text
    assert len(encoder.get_input_embeddings().weight) == len(load_file(folder / SAFE)[name]) + 3
    labels = TextEmbedder(str(folder))
    labels.build(32)
    assert len(labels.encoder.get_input_embeddings().weight) == len(labels.tokenizer)


def test_other_shapes_are_refused(folder):
    set_config(folder, intermediate_size=80)
    with pytest.raises(CheckpointError, match=r"6 tensors have another shape") as error:
        built(folder)
    assert one_line(error)


@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_half_precision_is_read_as_fp32(folder, name):
    set_config(folder, **{name: "bfloat16"})
    rewrite(folder, lambda w: {key: tensor.bfloat16() for key, tensor in w.items()})
    labels = TextEmbedder(str(folder))
    labels.build(32)
    assert {weight.dtype for weight in (*built(folder).parameters(), *labels.parameters())} == {torch.float32}
    labels.save_assets(folder / "saved")
    again = TextEmbedder(str(folder))
    again.load_assets(folder / "saved", 32)
    assert {weight.dtype for weight in again.parameters()} == {torch.float32}


def test_broken_files(folder):
    (folder / SAFE).write_bytes((folder / SAFE).read_bytes()[:100])
    with pytest.raises(ConfigError) as error:
        built(folder)
    assert one_line(error)


# -- attention -------------------------------------------------------------------------------------------------------


def test_attention_of_a_configuration(folder):
    set_config(folder, _attn_implementation="eager")
    assert built(folder).config._attn_implementation == "eager"


def test_attention_of_a_configuration_that_cannot_run(folder, caplog):
    set_config(folder, _attn_implementation="flash_attention_2")
    with caplog.at_level(logging.WARNING):
        assert built(folder).config._attn_implementation == "sdpa"
    assert sum("attention" in record.getMessage() for record in caplog.records) == 1
    set_config(folder, _attn_implementation="stranger/kernel")
    with pytest.raises(ConfigError, match="consent"):
        built(folder)


def test_attention_that_the_user_asks_for(folder, tmp_path, caplog):
    with pytest.raises(ConfigError, match=r"attn_implementation\] found 'flash_attention_2'"):
        built(folder, attn_implementation="flash_attention_2")
    made = Transformer(str(folder))
    made.build()
    made.save_assets(tmp_path / "saved")
    again = Transformer(str(folder), attn_implementation="flash_attention_2")
    with caplog.at_level(logging.WARNING):
        again.load_assets(tmp_path / "saved")  # on another machine than it was trained on
    assert again.encoder.config._attn_implementation == "sdpa" and "attention" in caplog.text


# -- tokenizers and configurations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "modernbert"])
def test_no_tokenizer(tmp_path, kind):
    folder = make_backbone(tmp_path / kind, kind)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match=r"no tokenizer in this folder.* Copy tokenizer\.json") as error:
        built(folder)
    assert one_line(error)


@needs_version_5
def test_no_tokenizer_in_the_cache_of_the_hub(folder, tmp_path, monkeypatch):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    in_hub_cache(folder, tmp_path / "hub", "owner/encoder")
    with pytest.raises(
        CheckpointError, match=r"'owner/encoder': no tokenizer, looked for in .*/hub"
    ) as error:
        built("owner/encoder")
    assert one_line(error)


def test_paths_of_another_system():
    with pytest.raises(ConfigError, match=r"found 'C:\\\\models\\\\bert', which is no folder"):
        built("C:\\models\\bert")


def test_a_configuration_in_place_of_that_of_the_model(folder):
    weights, settings = load_file(folder / SAFE), json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError):
        built(folder)
    assert same(built(folder, config=settings), weights)
    with pytest.raises(ConfigError, match="'nope'"):
        built(folder, config={**settings, "model_type": "nope"})
    with pytest.raises(CheckpointError, match="another shape"):
        built(folder, config={**settings, "intermediate_size": 80})
