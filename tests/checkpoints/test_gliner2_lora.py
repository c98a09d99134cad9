"""LoRA weights of the `gliner2` package, merged into a checkpoint."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from gliner2_parity import CLOSE, LABELS, TEXTS, checkpoint, load, load_peer, our_entities, their_entities

from gliner_pipe.errors import CheckpointError, ConfigError

pytest.importorskip("peft")

TARGETS = ["encoder", "span_rep", "classifier", "count_pred"]


@pytest.fixture(scope="module", params=["lora", "dora"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Folder of random LoRA weights, and the package's model with them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = load_peer.__wrapped__(checkpoint("count_lstm"))
        wrapped = peer.apply_lora(r=4, alpha=8, targets=TARGETS, use_dora=request.param == "dora")
        torch.manual_seed(3)
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
            if "magnitude" in name:
                with torch.no_grad():
                    parameter.mul_(1.1)
        folder = tmp_path_factory.mktemp(request.param)
        wrapped.save_pretrained(str(folder))
        return folder, wrapped.merge_and_unload().eval()


def scored(nlp: Any) -> list[Any]:
    """Entities of the texts, one by one and overlapping."""
    return our_entities(nlp.pipe(TEXTS))


def test_weights_of_peft(trained: tuple[Path, Any]) -> None:
    """By their folder, which names the checkpoint, and beside the checkpoint."""
    folder, peer = trained
    wanted = their_entities(peer, TEXTS, LABELS, 0.1)
    assert sum(map(len, wanted)) > 5
    before = scored(load(checkpoint("count_lstm"), labels=LABELS, threshold=0.1))
    named = {
        "@architectures": "gliner_pipe.Pretrained.v1",
        "name": str(checkpoint("count_lstm")),
        "lora": str(folder),
    }
    for model in (str(folder), named):
        nlp = spacy.blank("en")
        nlp.add_pipe("gliner", config={"model": model, "labels": LABELS, "threshold": 0.1, "device": "cpu"})
        found = scored(nlp)
        assert found == [pytest.approx(one, abs=CLOSE) for one in wanted]
        assert found != before


def test_weights_of_earlier_versions(trained: tuple[Path, Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder, peer = trained
    tensors = load_file(folder / "adapter_model.safetensors")
    if any("magnitude" in name for name in tensors):
        pytest.skip("earlier versions have no DoRA")
    renamed = {
        name.removeprefix("base_model.model.").removesuffix(".weight"): one for name, one in tensors.items()
    }
    save_file(renamed, tmp_path / "adapter_weights.safetensors")
    config = {"adapter_type": "lora", "lora_r": 4, "lora_alpha": 8.0, "target_modules": ["encoder"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    named = {
        "@architectures": "gliner_pipe.Pretrained.v1",
        "name": str(checkpoint("count_lstm")),
        "lora": str(tmp_path),
    }
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config={"model": named, "labels": LABELS, "threshold": 0.1, "device": "cpu"})
    assert scored(nlp) == [pytest.approx(one, abs=CLOSE) for one in their_entities(peer, TEXTS, LABELS, 0.1)]
    with pytest.raises(ConfigError, match=r"^\[components.gliner.model\]"):  # it does not name its checkpoint
        load(tmp_path)


def test_weights_of_another_checkpoint(trained: tuple[Path, Any], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(checkpoint("count_lstm"))})
    )
    save_file(
        {f"base_model.model.other.lora_{side}.weight": torch.zeros(2, 2) for side in "AB"},
        tmp_path / "adapter_model.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"other\.weight"):
        load(tmp_path)


@pytest.mark.parametrize("wrong", ["complex", "whole numbers", "no tensors", "of another kind", "long name"])
def test_damaged_weights(trained: tuple[Path, Any], tmp_path: Path, wrong: str) -> None:
    from safetensors.torch import load_file, save_file

    config = json.loads((trained[0] / "adapter_config.json").read_text("utf8"))
    tensors = load_file(trained[0] / "adapter_model.safetensors")
    name = next(iter(tensors))
    if wrong == "of another kind":
        config["peft_type"] = "IA3"
    elif wrong == "long name":
        config["base_model_name_or_path"] = "x" * 5000
    elif wrong == "no tensors":
        tensors = {}
    else:
        tensors[name] = tensors[name].to(torch.complex64 if wrong == "complex" else torch.int64)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config), "utf8")
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises((CheckpointError, ConfigError)):
        load(tmp_path, labels=LABELS)
