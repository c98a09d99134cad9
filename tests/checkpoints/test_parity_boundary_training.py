"""Losses of GLiNER2.5 checkpoints beside those of the `gliner2` package, on the same weights and texts."""

from __future__ import annotations

import random
from typing import Any

import pytest
from gliner2_parity import boundary_checkpoint, load, load_peer
from task_pipeline import PLAIN

from gliner_pipe.data.readers import gliner2_json
from gliner_pipe.modeling.record_finders import boundary_records

TEXT = "Ann of Acme sells the Fox for 5 dollars and the Owl for 7 dollars."
RECORDS = [
    {"product": {"name": "Fox", "price": "5 dollars"}},
    {"product": {"name": "Owl", "price": "7 dollars"}},
]
OUTPUT = {
    "entities": {"person": ["Ann"], "company": ["Acme"], "place": []},
    "relations": [{"works for": {"head": "Ann", "tail": "Acme"}}],
    "json_structures": RECORDS,
}
#: Losses that both define: means over queries, no part that changes with the step, no random choice.
SAME = {
    "loss_reduction": "per_query",
    "negative_query_ratio": 0.0,
    "soft_iou_aux_weight": 0.0,
    "consistency_loss_weight": 0.0,
    "dropout": 0.0,
    # all pairs: the package leaves out gold ones that it does not propose
    "relation_heads_per_type": 140,
    "relation_tails_per_type": 140,
    "relation_pair_cap": 20000,
}


def their_losses(folder: Any, mode: str) -> dict[str, float]:
    """The losses of the package, of a prompt whose parts have the order of ours."""
    from gliner2.processor import SamplingConfig
    from gliner2.training.trainer import ExtractorCollator

    peer = load_peer(folder)
    never = {name: 0.0 for name in vars(SamplingConfig()) if name.endswith("prob")}
    peer.processor.sampling_config = SamplingConfig(**never, shuffle_json_fields=False)
    card = {"fields": {"name": {"cardinality": "optional_one"}, "price": {"cardinality": "optional_one"}}}
    if mode == "natural":
        card = {"anchor": "name", "fields": {"price": {"cardinality": "optional_one"}}}
    schema = {**OUTPUT, "record_metadata": {"product": {"mode": mode, **card}}}
    collate = ExtractorCollator(peer.processor, architecture="boundary")
    for seed in range(100):
        random.seed(seed)
        batch = collate([(TEXT, schema)])
        if batch.task_types == [["json_structures", "entities", "relations"]]:
            break
    else:
        raise AssertionError("no prompt with this order")
    peer.train()
    peer.encoder.eval()
    try:
        losses = peer(batch).losses
    finally:
        peer.eval()
    return {name: value.item() for name, value in losses.items()}


@pytest.mark.parametrize("mode", ["natural", "latent", "anchorless"])
@pytest.mark.parametrize("pool", ["per_query", "shared"])
def test_losses_equal_those_of_the_package(pool: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = boundary_checkpoint(candidate_pool=pool, **SAME)
    theirs = their_losses(folder, mode)
    anchor = {"anchor": "name"} if mode == "natural" else {}
    nlp = load(
        folder,
        labels=["person", "company", "place"],
        relations=["works for"],
        records={"product": {"fields": ["name", "price"], "mode": mode, **anchor}},
        task_sampling=PLAIN,
        label_sampling={"all_labels": True, "shuffle": False},
    )
    component = nlp.get_pipe("gliner")
    model = component.gliner
    model.record_finder.single_values = "one"
    sizes = {"instances": 0}
    model.relation_finder.scorer.register_forward_hook(lambda *args: sizes.update(pairs=len(args[2])))
    matched = boundary_records._matched

    def counted(objects: Any, possible: Any, *rest: Any) -> Any:
        sizes["instances"] = int(possible.sum())
        return matched(objects, possible, *rest)

    monkeypatch.setattr(boundary_records, "_matched", counted)
    batch = component.collate(list(gliner2_json([{"input": TEXT, "output": OUTPUT}])(nlp)), random.Random(0))
    parts = {name: part.item() for name, part in model(batch).parts.items()}
    n_queries, n_gold = 7, 6  # one label has no entity
    marginals = theirs["start_loss"] + theirs["end_loss"] + 0.5 * theirs["inside_loss"]
    expected = {
        "boundary": n_queries * marginals + 0.3 * n_gold * theirs["proposal_loss"],
        "span": n_queries * theirs["pair_loss"] + 0.3 * n_gold * theirs["rerank_listwise_loss"],
        "abstention": 0.2 * n_queries * theirs["abstention_loss"],
        "span_count": 0.2 * n_queries * theirs["count_loss"],
        "relation": sizes["pairs"] * theirs["relation_loss"],
        "record": 4 * theirs["record_field_loss"] + sizes["instances"] * theirs["record_object_loss"],
    }
    assert parts == pytest.approx(expected, rel=1e-4)
    assert not batch.dropped
