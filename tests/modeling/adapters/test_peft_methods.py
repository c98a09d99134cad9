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


def test_a_method_that_cannot_be_merged_says_so(backbone: Path, tmp_path: Path) -> None:
    nlp = adapted(backbone, {"@adapters": "peft", "method": "lily", "save": "merged"})
    with pytest.raises(ConfigError, match=r"'lily' cannot be merged.*allowed: full, adapter"):
        nlp.to_disk(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "lorra"}, r"adapter\.method\] found 'lorra'; allowed: .*\bia3\b.*\blora\b"),
        ({"method": "prefix_tuning"}, r"found 'prefix_tuning'; allowed"),
        (
            {"method": "loha", "options": {"rank": 3}},
            r"adapter\.options\] found 'rank'.*\balpha\b.*\brank_dropout\b",
        ),
        ({"method": "loha", "options": {"task_type": "SEQ_CLS"}}, "found 'task_type'"),
        ({"method": "adalora"}, r"settings that 'adalora' cannot have .*total_step"),
        ({"method": "miss"}, r"'miss' does not fit the encoder"),
        ({"method": "loha", "target_modules": ["q"]}, r"adapter\.target_modules\] found 'q'"),
    ],
)
def test_errors(backbone: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Transformer(str(backbone), adapter=Peft(**settings)).build(["<<ENT>>"])
