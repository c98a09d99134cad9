"""LoRA: trained and frozen weights, its settings, and the other settings of the backbone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from adapted_pipeline import LORA, adapted, base_state, encoder, scores, state, trained
from conftest import make_backbone
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from transformers import AutoModel

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.adapters import saving
from gliner_pipe.modeling.adapters.lora import Lora
from gliner_pipe.modeling.backbones.base import Prompt, pretrained_parameters
from gliner_pipe.modeling.backbones.transformer import Transformer

WORDS = ["Maria", "lives", "in", "Oslo"]
EMBEDDING = "token_adapter.trainable_tokens_delta"


@pytest.fixture(params=["bert", "deberta-v2", "modernbert"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_backbone(tmp_path / request.param, request.param)


def run(model: Any, words: list[str] = WORDS) -> torch.Tensor:
    tokens = model.tokenizer.convert_tokens_to_ids(["<<ENT>>"])
    prompt = Prompt(np.array(tokens), np.array([0]))
    output = model(model.collate(model.windows(model.tokenize([words]), [prompt], 2)))
    return torch.cat([output.words, output.prompt], 1)


def built(folder: Path, **settings: Any) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(str(folder), **settings)
    model.build(["<<ENT>>", "<<SEP>>"])
    return model.eval()


def test_only_adapter_new_tokens_and_heads_are_trained(kind: Path) -> None:
    nlp = adapted(kind)
    model = nlp.get_pipe("gliner").gliner
    base, before = base_state(nlp), state(model)
    trained(nlp)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    inside = [name for name in changed if name.startswith("encoder.backbone")]
    assert all(".lora_" in name or EMBEDDING in name for name in inside)
    assert any(EMBEDDING in name for name in inside)
    assert {"lora_A", "lora_B"} <= {part for name in inside for part in name.split(".")}
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == set(changed)  # no trainable weight is unused, such as a pooler
    assert any(name.startswith("span_rep") for name in changed)
    source = AutoModel.from_pretrained(kind).state_dict()
    for name, tensor in base_state(nlp).items():
        assert torch.equal(tensor, base[name])
        assert torch.equal(tensor[: len(source[name])], source[name])


def test_a_new_adapter_does_not_change_the_output(kind: Path) -> None:
    assert torch.equal(run(built(kind)), run(built(kind, adapter=Lora())))


def test_the_adapter_has_the_learning_rate_of_the_backbone(backbone: Path) -> None:
    model = adapted(backbone).get_pipe("gliner").gliner
    inside = set(map(id, pretrained_parameters(model)))
    names = {name for name, parameter in model.named_parameters() if id(parameter) in inside}
    assert {name for name, _ in model.named_parameters() if ".lora_" in name or EMBEDDING in name} <= names
    assert not any(name.startswith("span_rep") for name in names)


@pytest.mark.parametrize(
    ("adapter", "trained_part"),
    [
        ({"bias": "all"}, "embeddings.LayerNorm.bias"),
        ({"bias": "lora_only"}, "query.base_layer.bias"),
        ({"use_dora": True}, "lora_magnitude_vector"),
        ({"use_rslora": True, "init": "gaussian"}, "lora_A"),
        ({"init": "pissa", "r": 4}, "lora_A"),
        ({"target_modules": ["query", "value"], "layers": [1]}, "layer.1.attention.self.query.lora_A"),
        ({"target_modules": r".*\.attention\.output\.dense"}, "attention.output.dense.lora_A"),
    ],
)
def test_settings(backbone: Path, tmp_path: Path, adapter: dict[str, Any], trained_part: str) -> None:
    nlp = adapted(backbone, {**LORA, **adapter})
    names = [name for name, parameter in encoder(nlp).encoder.named_parameters() if parameter.requires_grad]
    assert any(trained_part in name for name in names)
    if "layers" in adapter:
        assert not any("layer.0." in name or ".key." in name for name in names)
    expected = scores(trained(nlp))
    for form, within in (("full", 0.0), ("adapter", 0.0), ("merged", 1e-5)):
        if form == "adapter" and adapter.get("init") == "pissa":
            continue
        with saving(form):
            nlp.to_disk(tmp_path / form)
        assert scores(spacy.load(tmp_path / form)) == pytest.approx(expected, abs=within)


@pytest.mark.parametrize(
    "settings",
    [
        {"pooling": "mean", "fuse_layers": True},
        {"gradient_checkpointing": True},
        {"attn_implementation": "eager", "hidden_size": 16},
        {"dtype": "bf16"},
    ],
)
def test_settings_of_the_backbone(backbone: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    nlp = trained(adapted(backbone, **settings))
    updates = [p for n, p in encoder(nlp).encoder.named_parameters() if "lora_B" in n]
    assert all(parameter.any() for parameter in updates)
    nlp.to_disk(tmp_path / "out")
    assert scores(spacy.load(tmp_path / "out")) == scores(nlp)


def test_gradient_checkpointing_gives_the_same_gradients(backbone: Path) -> None:
    grads = []
    for checkpointing in (False, True):
        model = built(backbone, adapter=Lora(dropout=0.0), gradient_checkpointing=checkpointing)
        if checkpointing:
            model.encoder.train()
            for module in model.encoder.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        run(model).square().sum().backward()
        grads.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert any(grad.any() for grad in grads[0].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name])


def test_train_and_eval(backbone: Path) -> None:
    model = built(backbone, adapter=Lora(dropout=0.5))
    assert all(module.training for module in model.train().encoder.modules())
    assert not any(module.training for module in model.eval().encoder.modules())
    assert torch.equal(run(model), run(model))


def test_embeddings_of_new_tokens_match_those_of_peft(backbone: Path) -> None:
    model = built(backbone, adapter=Lora())
    table = model.encoder.get_input_embeddings()
    slow = copy.deepcopy(table)
    slow.token_adapter.__class__ = TrainableTokensLayer
    pieces = torch.tensor([[5, 6, *model.tokenizer.convert_tokens_to_ids(["<<ENT>>", "<<SEP>>"]), 5]])
    got = []
    for one in (table, slow):
        with torch.no_grad():
            one.token_adapter.trainable_tokens_delta["default"].add_(1.0)
        vectors = one(pieces)
        (vectors * torch.arange(vectors.numel()).view_as(vectors)).sum().backward()
        got.append((vectors, one.token_adapter.trainable_tokens_delta["default"].grad))
    assert type(table.token_adapter) is not TrainableTokensLayer
    assert torch.equal(got[0][0], got[1][0])
    assert torch.equal(got[0][1], got[1][1])


def test_frozen_with_an_adapter_is_refused(backbone: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Transformer(str(backbone), freeze=True, adapter=Lora())
    assert error.value.where.endswith("backbone.freeze")


@pytest.mark.parametrize(
    ("settings", "option", "found", "allowed"),
    [
        ({"target_modules": ["query", "q_proj"]}, "target_modules", "'q_proj'", "attention.self.query"),
        ({"target_modules": ".*nothing"}, "target_modules", "'.*nothing'", "intermediate.dense"),
        ({"target_modules": "(("}, "target_modules", "'(('", ""),
        ({"target_modules": []}, "target_modules", "", "attention.self.query"),
        ({"layers": [2]}, "layers", "2", "0 to 1"),
        ({"init": "pissa", "save": "adapter"}, "save", "'adapter'", "full, merged"),
    ],
)
def test_errors(backbone: Path, settings: dict[str, Any], option: str, found: str, allowed: str) -> None:
    with pytest.raises(ConfigError) as error:
        built(backbone, adapter=Lora(**settings))
    assert error.value.where.endswith(f"adapter.{option}")
    assert found in error.value.found and allowed in error.value.allowed


def test_quantised_weights_are_for_adapters_on_cuda(backbone: Path) -> None:
    for settings in ({}, {"adapter": Lora()}):
        with pytest.raises(ConfigError) as error:
            Transformer(str(backbone), quantization="nf4", **settings)
        assert error.value.where.endswith("backbone.quantization")
    if not torch.cuda.is_available():
        model = Transformer(str(backbone), quantization="int8", adapter=Lora(save="adapter"))
        with pytest.raises(ConfigError) as error:
            model.build()
        assert error.value.where.endswith("backbone.quantization")
