"""Any combination of encoder, span representation, fusion, context, relations and written labels composes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import make_causal_lm
from relation_pipeline import DATA, config, example

# slots without labels are those of a prompt, which a bi-encoder has not
MODES = {"uni_encoder": ["span", "prompt"], "bi_encoder": ["span"]}
COMBINATIONS = [
    (encoder, span_rep, mode)
    for encoder, span_rep in itertools.product(MODES, ["markerV0", "token_level", "conv_mean"])
    for mode in MODES[encoder]
]


def entities(doc: Any) -> Any:
    group = doc.spans["gliner"]
    attrs = group.attrs
    return [(s.start, s.end, s.label_) for s in group], attrs["scores"], attrs["generated_labels"]


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_causal_lm(tmp_path_factory.mktemp("combined"))


@pytest.mark.parametrize(("encoder", "span_rep", "mode"), COMBINATIONS)
def test_learns_finds_and_is_saved(
    backbone: Path, causal: Path, tmp_path: Path, encoder: str, span_rep: str, mode: str
) -> None:
    torch.manual_seed(0)
    settings = config(backbone, encoder, span_rep, threshold=0.3)
    model = settings["model"]
    if span_rep.startswith("conv"):
        model["span_rep"] = {"@span_reps": span_rep, "max_width": 4}
    model["decoder"] = {"@decoders": "generative", "model": str(causal), "mode": mode, "max_new_tokens": 3}
    model["context"] = {"@context_encoders": "lstm"}
    if mode == "prompt":
        model["encoder"]["embed_ent_token"] = True
    if encoder == "bi_encoder":
        model["fusion"] = {"@fusions": "cross_attention", "n_heads": 4}
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config=settings)
    gold = [example(nlp, *one) for one in DATA]
    optimizer = nlp.initialize(lambda: gold)
    losses: dict[str, float] = {}
    before = {name: parameter.clone() for name, parameter in component.gliner.named_parameters()}
    nlp.update(gold, sgd=optimizer, losses=losses)
    parts = component.get_loss(gold).parts
    assert {"label", "relation", "adjacency"} < set(parts)
    moved = [name for name, p in component.gliner.named_parameters() if not torch.equal(p, before[name])]
    for head in ("relation_layer", "triple", "decoder", "context", "span_rep", "encoder"):
        assert any(name.startswith(head) for name in moved), f"{head} learned nothing"
    texts = [" ".join(token.text for token in one.reference) for one in gold]
    nlp.to_disk(tmp_path / "model")
    again = spacy.load(tmp_path / "model")
    for left, right in zip(nlp.pipe(texts), again.pipe(texts), strict=True):
        assert entities(left) == entities(right)
        assert [str(one) for one in left._.relations] == [str(one) for one in right._.relations]
