"""Saving with an adapter: the three forms, what loading requires, and training afterwards."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from adapted_pipeline import LORA, TEXT, adapted, encoder, scores, state, trained
from conftest import make_backbone
from safetensors.torch import load_file, save_file

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.adapters import saving
from gliner_pipe.modeling.adapters.lora import Lora
from gliner_pipe.modeling.backbones.pretrained_encoder import fingerprint
from gliner_pipe.modeling.merging import add_adapters, merge_adapters

FORMS = [("full", 0.0), ("adapter", 0.0), ("merged", 1e-5)]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_backbone(tmp_path_factory.mktemp("own") / "deberta", "deberta-v2")


@pytest.fixture
def base(own: Path, tmp_path: Path) -> Path:
    """A folder that a test may change."""
    return Path(shutil.copytree(own, tmp_path / "base"))


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "modernbert"])
@pytest.mark.parametrize(("form", "within"), FORMS)
def test_saved_and_loaded(tmp_path: Path, kind: str, form: str, within: float) -> None:
    base = make_backbone(tmp_path / "base", kind)
    nlp = trained(adapted(base, {**LORA, "save": form}))
    nlp.to_disk(tmp_path / "out")
    if form != "adapter":
        shutil.rmtree(base)
    back = spacy.load(tmp_path / "out")
    assert scores(back) == pytest.approx(scores(nlp), abs=within)
    assert encoder(back).has_adapter == (form != "merged")
    back.to_disk(tmp_path / "again")
    assert scores(spacy.load(tmp_path / "again")) == scores(back)


def test_sizes_of_the_forms(own: Path, tmp_path: Path) -> None:
    nlp = adapted(own)
    sizes = {}
    for form, _ in FORMS:
        with saving(form):
            nlp.to_disk(tmp_path / form)
        sizes[form] = sum(path.stat().st_size for path in (tmp_path / form).rglob("*.safetensors"))
    assert sizes["adapter"] < 0.5 * sizes["merged"] < sizes["full"]


FRESH = f"""
import json, spacy, sys
sys.modules["peft"] = None  # not needed for merged weights
found = []
for name in ("merged", "full", "adapter"):
    nlp = spacy.load(sys.argv[1] + "/" + name)
    (each,) = nlp.get_pipe("gliner").predict([nlp.make_doc({TEXT!r})])
    found.append([[e.start, e.end, e.label, e.score] for e in each.entities])
    sys.modules.pop("peft", None)
print(json.dumps(found))
"""


def test_in_a_fresh_process(own: Path, tmp_path: Path) -> None:
    nlp = trained(adapted(own))
    for form, _ in FORMS:
        with saving(form):
            nlp.to_disk(tmp_path / form)
    command = [sys.executable, "-c", FRESH, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    merged, full, adapter = (
        {(start, end, label): score for start, end, label, score in found}
        for found in json.loads(done.stdout.splitlines()[-1])
    )
    assert full == adapter == scores(nlp)
    assert merged == pytest.approx(scores(nlp), abs=1e-5)


@pytest.mark.parametrize(("form", "within"), FORMS)
def test_bytes(own: Path, form: str, within: float) -> None:
    nlp = trained(adapted(own, {**LORA, "save": form}))
    other = spacy.util.load_model_from_config(nlp.config)
    other.from_bytes(nlp.to_bytes())
    assert scores(other) == pytest.approx(scores(nlp), abs=within)


def test_pickle_and_deepcopy(own: Path) -> None:
    nlp = trained(adapted(own))
    component = nlp.get_pipe("gliner")
    for twin in (pickle.loads(pickle.dumps(component)), copy.deepcopy(component)):
        assert twin.predict([nlp.make_doc(TEXT)]) == component.predict([nlp.make_doc(TEXT)])
        assert twin.gliner.encoder.backbone.has_adapter


@pytest.mark.parametrize("form", ["full", "adapter", "merged"])
def test_saving_does_not_affect_training(own: Path, tmp_path: Path, form: str) -> None:
    model = {}
    for saves in (False, True):
        nlp = adapted(own, {**LORA, "save": form})
        torch.manual_seed(1)
        trained(nlp)
        if saves:
            before = state(nlp.get_pipe("gliner").gliner)
            nlp.to_disk(tmp_path / "out")
            after = nlp.get_pipe("gliner").gliner.state_dict()
            assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        torch.manual_seed(2)
        trained(nlp)
        model[saves] = state(nlp.get_pipe("gliner").gliner)
    assert model[True].keys() == model[False].keys()
    assert all(torch.equal(tensor, model[False][name]) for name, tensor in model[True].items())


def test_a_form_can_be_forced(own: Path, tmp_path: Path) -> None:
    nlp = trained(adapted(own, {**LORA, "save": "merged"}))
    with saving("full"):
        nlp.to_disk(tmp_path / "checkpoint")
    back = spacy.load(tmp_path / "checkpoint")
    assert scores(back) == scores(nlp)
    there = back.get_pipe("gliner").gliner.state_dict()
    for name, tensor in nlp.get_pipe("gliner").gliner.state_dict().items():
        if "trainable_tokens_original" not in name:
            assert torch.equal(there[name], tensor)
    back.to_disk(tmp_path / "last")  # as the block says again
    assert not encoder(spacy.load(tmp_path / "last")).has_adapter


def test_another_form_in_the_same_folder(own: Path, tmp_path: Path) -> None:
    nlp = trained(adapted(own))
    for form, within in (*FORMS, *reversed(FORMS)):
        with saving(form):
            nlp.to_disk(tmp_path / "out")
        assert scores(spacy.load(tmp_path / "out")) == pytest.approx(scores(nlp), abs=within)


def test_peft_loads_the_saved_adapter(own: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    nlp = trained(adapted(own, {**LORA, "save": "adapter"}))
    nlp.to_disk(tmp_path)
    folder = tmp_path / "gliner" / "model" / "encoder" / "backbone"
    assert json.loads((folder / "adapter" / "adapter_config.json").read_text())["task_type"] is None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(own)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = PeftModel.from_pretrained(model, str(folder / "adapter")).eval()
    batch = tokenizer("<<ENT>> city <<SEP>> Maria lives in Oslo", return_tensors="pt")
    batch.pop("token_type_ids", None)
    with torch.no_grad():
        theirs, ours = model(**batch), encoder(nlp).eval().encoder(**batch)
    # this project's attention for DeBERTa sums in another order
    torch.testing.assert_close(theirs.last_hidden_state, ours.last_hidden_state, rtol=1e-5, atol=1e-5)


def test_a_missing_base_encoder_is_named(base: Path, tmp_path: Path) -> None:
    nlp = trained(adapted(base, {**LORA, "save": "adapter"}))
    nlp.to_disk(tmp_path / "out")
    moved = Path(shutil.move(base, tmp_path / "moved"))
    with pytest.raises(CheckpointError, match=rf"{base.name}.*backbone\.model"):
        spacy.load(tmp_path / "out")
    place = {"components.gliner.model.encoder.backbone.model": str(moved)}
    assert scores(spacy.load(tmp_path / "out", config=place)) == scores(nlp)


def test_a_base_with_other_weights_is_refused(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    adapted(base, {**LORA, "save": "adapter"}).to_disk(tmp_path / "out")
    other = AutoModel.from_pretrained(base)
    with torch.no_grad():
        next(other.parameters())[0, 0] += 1e-3
    other.save_pretrained(base)
    with pytest.raises(CheckpointError, match=rf"{base.name}.*backbone\.model"):
        spacy.load(tmp_path / "out")


def test_an_incomplete_adapter_folder(own: Path, tmp_path: Path) -> None:
    adapted(own).to_disk(tmp_path)
    folder = tmp_path / "gliner" / "model" / "encoder" / "backbone" / "adapter"
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        spacy.load(tmp_path)


def test_merged_in_place(own: Path, tmp_path: Path) -> None:
    nlp = trained(adapted(own))
    expected = scores(nlp)
    merge_adapters(nlp.get_pipe("gliner"))
    assert not encoder(nlp).has_adapter
    assert scores(nlp) == pytest.approx(expected, abs=1e-5)
    nlp.to_disk(tmp_path / "out")
    assert scores(spacy.load(tmp_path / "out")) == scores(nlp)
    before = state(encoder(nlp))
    trained(nlp)
    changed = [
        name for name, tensor in encoder(nlp).state_dict().items() if not torch.equal(tensor, before[name])
    ]
    assert len(changed) > 20  # all weights are trained again
    with pytest.raises(ConfigError) as error:
        merge_adapters(nlp.get_pipe("gliner"))
    assert error.value.where == "components.*.model"


def test_a_second_adapter_on_merged_weights(own: Path, tmp_path: Path) -> None:
    nlp = trained(adapted(own, {**LORA, "save": "merged"}))
    nlp.to_disk(tmp_path / "merged")
    nlp = spacy.load(tmp_path / "merged")
    expected = scores(nlp)
    with pytest.raises(ConfigError) as error:
        add_adapters(nlp.get_pipe("gliner"), Lora(save="adapter"))
    assert error.value.where == "components.*.model.encoder.backbone.adapter.save"
    add_adapters(nlp.get_pipe("gliner"), Lora(r=2))
    assert scores(nlp) == expected
    before = state(encoder(nlp))
    trained(nlp)
    changed = [
        name for name, tensor in encoder(nlp).state_dict().items() if not torch.equal(tensor, before[name])
    ]
    assert changed and all("lora_" in name or "trainable_tokens_delta" in name for name in changed)
    nlp.to_disk(tmp_path / "full")
    assert scores(spacy.load(tmp_path / "full")) == scores(nlp)
    with pytest.raises(ConfigError) as error:
        add_adapters(nlp.get_pipe("gliner"), Lora())
    assert error.value.where == "components.*.model.encoder.backbone"


def test_a_missing_package_is_named(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r'pip install "gliner_pipe\[peft\]"'):
        adapted(own)


def test_train_command(own: Path, tmp_path: Path) -> None:
    from gliner_pipe.train import train

    lines = [
        {"tokenized_text": ["Maria", "lives", "in", "Oslo"], "ner": [[0, 0, "person"], [3, 3, "city"]]}
    ] * 4
    data = tmp_path / "train.json"
    data.write_text(json.dumps(lines))
    nlp = adapted(own, {**LORA, "save": "adapter"})
    settings: dict[str, Any] = {
        "max_steps": 2,
        "batch_size": 2,
        "loggers": [],
        "output_path": tmp_path / "run",
    }
    train(nlp=nlp, train_data=str(data), val_data=str(data), **settings)
    assert scores(spacy.load(tmp_path / "run" / "model-last")) == scores(nlp)


def test_an_incomplete_encoder_file(own: Path, tmp_path: Path) -> None:
    adapted(own).to_disk(tmp_path)
    path = tmp_path / "gliner" / "model" / "encoder" / "backbone" / "encoder.safetensors"
    tensors = load_file(path)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors"):
        spacy.load(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"encoder\.safetensors"):
        spacy.load(tmp_path)


def test_fingerprints_differ_between_weights() -> None:
    weights = [torch.zeros(3, 2), torch.ones(3), torch.zeros(2)]
    same, other = fingerprint(reversed(weights)), [torch.full((3, 2), 0.1), *weights[1:]]
    assert fingerprint(weights) == same != fingerprint(other)
    assert fingerprint(weights, vectors_only=True) == fingerprint(other, vectors_only=True)
    assert fingerprint(weights[1:], vectors_only=True) != fingerprint(weights[:2], vectors_only=True)
    assert fingerprint([torch.zeros(3, 2)]) != fingerprint([torch.zeros(2, 3)])
    assert fingerprint([torch.zeros(2, dtype=torch.bfloat16)])
