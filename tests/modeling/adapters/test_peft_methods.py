"""Other methods of peft: the same contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from adapted_pipeline import adapted, base_state, encoder, scores, trained

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.adapters import saving
from gliner_pipe.modeling.adapters.peft import Peft
from gliner_pipe.modeling.backbones.transformer import Transformer


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ia3", {}),
        ("LOHA", {"r": 4}),
        ("vera", {}),
        ("psoft", {"r": 8}),
        ("adalora", {"total_step": 50}),
        ("ln_tuning", {}),
    ],
)
def test_methods(backbone: Path, tmp_path: Path, method: str, options: dict[str, Any]) -> None:
    nlp = adapted(backbone, {"@adapters": "peft", "method": method, "options": options})
    before = base_state(nlp)
    rows = [p for n, p in encoder(nlp).encoder.named_parameters() if "trainable_tokens_delta" in n]
    fresh = rows[0].detach().clone()
    expected = scores(trained(nlp))
    assert not torch.equal(rows[0], fresh)
    for name, tensor in base_state(nlp).items():
        assert torch.equal(tensor, before[name])
    for form in ("full", "adapter", "merged"):
        with saving(form):
            nlp.to_disk(tmp_path / form)
        back = spacy.load(tmp_path / form)
        assert scores(back) == pytest.approx(expected, abs=1e-5 if form == "merged" else 0.0)
        assert encoder(back).has_adapter == (form != "merged")
    again = spacy.load(tmp_path / "full")
    trained(again)
    assert scores(again) != expected


def test_a_method_that_cannot_be_merged(backbone: Path, tmp_path: Path) -> None:
    nlp = adapted(backbone, {"@adapters": "peft", "method": "lily", "save": "merged"})
    with pytest.raises(ConfigError) as error:
        nlp.to_disk(tmp_path)
    assert error.value.where.endswith("adapter.save")
    assert "'lily'" in error.value.found and error.value.allowed == "full, adapter"


@pytest.mark.parametrize(
    ("settings", "option", "found", "allowed"),
    [
        ({"method": "lorra"}, ".method", "'lorra'", ["ia3", "lora"]),
        ({"method": "prefix_tuning"}, ".method", "'prefix_tuning'", ["ia3"]),
        ({"method": "loha", "options": {"rank": 3}}, ".options", "'rank'", ["alpha", "rank_dropout"]),
        ({"method": "loha", "options": {"task_type": "SEQ_CLS"}}, ".options", "'task_type'", ["alpha"]),
        ({"method": "adalora"}, "", "total_step", []),
        ({"method": "miss"}, "", "'miss'", []),
        ({"method": "loha", "target_modules": ["q"]}, ".target_modules", "'q'", []),
    ],
)
def test_errors(
    backbone: Path, settings: dict[str, Any], option: str, found: str, allowed: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        Transformer(str(backbone), adapter=Peft(**settings)).build(["<<ENT>>"])
    assert error.value.where.endswith(f"adapter{option}") and found in error.value.found
    assert set(allowed) <= set(error.value.allowed.split(", "))
