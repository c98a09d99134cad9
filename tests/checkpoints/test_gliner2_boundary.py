"""Entities of GLiNER2.5 checkpoints (architecture ``boundary``), beside the `gliner2` package."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from gliner2_parity import (
    CLOSE,
    LABELS,
    TEXTS,
    boundary_checkpoint,
    gap,
    load,
    load_peer,
    our_entities,
    their_entities,
)

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.precision import HeadCopy

SURE = {"enable_abstention": False}
POOL = {"candidate_pool": "shared", **SURE}
OPTIONS: list[dict[str, Any]] = [
    SURE,
    POOL,
    {"start_top_k": 4, "end_top_k": 3, "ends_per_start": 3, "candidate_budget": 9, **SURE},
    {"pool_boundary_top_k": 6, "pool_size": 12, "min_pool_per_query": 3, **POOL},
    {
        "enable_span_content": True,
        "content_soft_max_pool": True,
        "enable_rotary_endpoints": True,
        "query_conditioned_inside_weight": True,
        "endpoint_difference_features": True,
        "boundary_attention_layers": 1,
        "boundary_top_k_alpha": 0.4,
        "multihead_pair_compat_heads": 4,
        "dropout": 0.0,
        **SURE,
    },
    {"enable_span_content": True, "boundary_attention_layers": 1, "boundary_attention_window": 3, **POOL},
    {"enable_records": False, "enable_relations": False, "overlap_policy": "nested", **SURE},
    {"overlap_policy": "longest", "pair_temperature": 2.0, **POOL},
    {"adaptive_threshold": True, **SURE},
    {"adaptive_threshold": True, **POOL},
]


def threshold_of(peer: Any, **options: Any) -> float:
    """A threshold that some entities pass, and none lies at, also if those that overlap are not dropped."""
    found = peer.batch_extract_entities(
        TEXTS, LABELS, threshold=0.0, include_confidence=True, include_spans=True, overlap_policy="allow"
    )
    scores = [one["confidence"] for result in found for some in result["entities"].values() for one in some]
    return gap(scores, **options)


@pytest.mark.parametrize("head", OPTIONS, ids=range(len(OPTIONS)))
def test_every_option(head: dict[str, Any]) -> None:
    folder = boundary_checkpoint(**head)
    peer = load_peer(folder)
    # with an adaptive threshold the predicted count decides
    threshold = 0.999 if "adaptive_threshold" in head else threshold_of(peer, low=0.6, high=0.95)
    theirs = their_entities(peer, TEXTS, LABELS, threshold)
    nlp = load(folder, labels=LABELS, threshold=threshold)
    for ours in (our_entities(nlp.pipe(TEXTS)), our_entities(map(nlp, TEXTS))):
        assert sum(map(len, theirs)) > 3
        for found, wanted in zip(ours, theirs, strict=True):
            assert found == pytest.approx(wanted, abs=CLOSE)


def test_labels_may_abstain() -> None:
    folder = boundary_checkpoint()
    peer = load_peer(folder)
    nlp = load(folder, labels=LABELS, threshold=0.3)
    gliner = nlp.get_pipe("gliner").gliner
    layers = peer.boundary_head.null_projection, gliner.span_rep.null_projection
    counts = set()
    for bias in (-99.0, -1.0, 0.0, 1.0, 99.0):
        with torch.no_grad():
            for layer in layers:
                layer.weight.copy_(20 * layers[0].weight / layers[0].weight.norm())
                layer.bias.fill_(bias)
            gliner.eval()
        theirs = their_entities(peer, TEXTS, LABELS, 0.3)
        assert our_entities(nlp.pipe(TEXTS)) == [pytest.approx(one, abs=CLOSE) for one in theirs]
        counts.add(sum(map(len, theirs)))
    assert len(counts) > 2
    assert 0 in counts


def test_descriptions_and_thresholds_of_labels() -> None:
    folder = boundary_checkpoint(**POOL)
    peer = load_peer(folder)
    threshold = threshold_of(peer)
    described = {"person": "names of people", "date": {"description": "days", "threshold": threshold - 0.05}}
    labels = [
        {"label": "person", "description": "names of people"},
        {"label": "date", "description": "days", "threshold": threshold - 0.05},
    ]
    nlp = load(folder, labels=labels, threshold=threshold)
    theirs = their_entities(peer, TEXTS, described, threshold)
    assert our_entities(nlp.pipe(TEXTS)) == [pytest.approx(one, abs=CLOSE) for one in theirs]


def test_classes_are_divided_by_their_temperature() -> None:
    folder = boundary_checkpoint(classification_temperature=3.0, **SURE)
    task = {"tone": ["good", "bad", "mixed"]}
    nlp = load(folder, classes=task)
    found = load_peer(folder).batch_classify_text(TEXTS, task, include_confidence=True)
    for doc, theirs in zip(nlp.pipe(TEXTS), found, strict=True):
        best = max(doc.cats, key=doc.cats.get)
        assert best == theirs["tone"]["label"]
        assert doc.cats[best] == pytest.approx(theirs["tone"]["confidence"], abs=CLOSE)


@pytest.mark.parametrize("head", [SURE, POOL])
def test_a_saved_pipeline_finds_the_same(head: dict[str, Any], tmp_path: Path) -> None:
    nlp = load(boundary_checkpoint(**head), labels=LABELS, threshold=0.4)
    nlp.to_disk(tmp_path / "saved")
    assert our_entities(spacy.load(tmp_path / "saved").pipe(TEXTS)) == our_entities(nlp.pipe(TEXTS))


@pytest.mark.parametrize("head", [SURE, POOL])
def test_reduced_precision_reaches_the_heads(head: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = boundary_checkpoint(**head)
    records = {"home": {"fields": ["who", "town"], "mode": "natural", "anchor": "who"}}
    asked = {"labels": LABELS, "threshold": 0.0, "relations": ["knows"], "records": records}
    full, half = load(folder, **asked), load(folder, dtype="bf16", **asked)
    gliner = half.get_pipe("gliner").gliner
    found = [our_entities(nlp.pipe(TEXTS)) for nlp in (full, half)]
    with torch.inference_mode():
        parts = [gliner.span_rep.current(), gliner.record_finder.reduced.of(gliner.record_finder)]
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in gliner.span_rep.parameters()} == {torch.float32}
    monkeypatch.setattr(HeadCopy, "of", lambda _, head: head)
    found.append(our_entities(half.pipe(TEXTS)))  # the encoder alone in bf16
    scores = [
        {(at, *key): score for at, one in enumerate(some) for key, score in one.items()} for some in found
    ]
    common = scores[0].keys() & scores[1].keys() & scores[2].keys()
    assert len(common) > 10
    assert max(abs(scores[0][key] - scores[1][key]) for key in common) < 0.1
    assert any(scores[1][key] != scores[2][key] for key in common)


# -- faults of the package that are not copied -----------------------------------------------------------------------


def test_the_smooth_maximum_of_a_shared_pool_finds_entities() -> None:
    """In the package all scores are NaN, and nothing is found."""
    folder = boundary_checkpoint(enable_span_content=True, content_soft_max_pool=True, **POOL)
    assert not any(their_entities(load_peer(folder), TEXTS, LABELS, 0.0))
    nlp = load(folder, labels=LABELS, threshold=0.0)
    found = our_entities(nlp.pipe(TEXTS))
    assert all(found)
    assert all(0 < score < 1 for one in found for score in one.values())


@pytest.mark.parametrize("head", [SURE, POOL])
def test_the_added_full_stop_is_read_but_never_found(head: dict[str, Any]) -> None:
    folder = boundary_checkpoint(**head)
    text = TEXTS[0].rstrip(".")
    nlp = load(folder, labels=LABELS, threshold=0.0)
    component = nlp.get_pipe("gliner")
    component.cfg["flat_ner"], component.cfg["partial_overlaps"] = False, True
    (without,), (within,) = our_entities([nlp(text)]), our_entities([nlp(f"{text}.")])
    assert without == pytest.approx(
        {key: score for key, score in within.items() if key[1] <= len(text)}, abs=1e-6
    )
    assert len(without) < len(within)


@pytest.mark.parametrize(
    "head", [{"start_top_k": 3, "end_top_k": 3, **SURE}, {"pool_size": 6, "min_pool_per_query": 2, **POOL}]
)
def test_entities_beyond_the_budget_are_reported(
    head: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    nlp = load(boundary_checkpoint(**head), labels=LABELS, threshold=0.0)
    caplog.set_level(logging.WARNING)
    list(nlp.pipe([TEXTS[2]] * 3))
    assert nlp.get_pipe("gliner").gliner.span_rep.full_budgets > 0
    assert len([record for record in caplog.records if "span_rep" in record.getMessage()]) == 1


@pytest.mark.parametrize(
    ("head", "more"),
    [
        ({"start_top_k": 2, "end_top_k": 2, **SURE}, {"start_top_k": 30}),
        ({"pool_size": 8, **POOL}, {"pool_size": 99}),
    ],
)
def test_budgets_may_be_raised(head: dict[str, Any], more: dict[str, float], tmp_path: Path) -> None:
    folder = boundary_checkpoint(**head)
    few = our_entities(load(folder, labels=LABELS, threshold=0.0).pipe(TEXTS))
    model = {"@architectures": "gliner_pipe.Pretrained.v1", "name": str(folder), "budgets": more}
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config={"model": model, "labels": LABELS, "threshold": 0.0, "device": "cpu"})
    many = our_entities(nlp.pipe(TEXTS))
    assert sum(map(len, many)) > sum(map(len, few))
    nlp.to_disk(tmp_path / "saved")
    assert our_entities(spacy.load(tmp_path / "saved").pipe(TEXTS)) == many


@pytest.mark.parametrize("budgets", [{"boundary_dim": 8}, {"start_top_k": 0}])
def test_what_is_no_budget_is_refused(budgets: dict[str, float]) -> None:
    model = {
        "@architectures": "gliner_pipe.Pretrained.v1",
        "name": str(boundary_checkpoint(**SURE)),
        "budgets": budgets,
    }
    nlp = spacy.blank("en")
    with pytest.raises(ConfigError, match=next(iter(budgets))):
        nlp.add_pipe("gliner", config={"model": model, "labels": LABELS}).gliner  # noqa: B018


def test_a_long_text_is_read_in_windows() -> None:
    """Each has a budget of its own: entities are found to the end."""
    folder = boundary_checkpoint(**SURE)
    nlp = load(folder, labels=LABELS, threshold=0.3)
    text = " ".join(TEXTS * 40)
    found = sorted(our_entities([nlp(text)])[0])
    assert len(found) > 50
    starts = [start for start, _, _ in found]
    assert (
        max(later - earlier for earlier, later in zip([0, *starts], [*starts, len(text)], strict=True)) < 999
    )


def changed(folder: Path, tmp_path: Path, **head: Any) -> Path:
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["boundary_head"] |= head
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize("head", [{"candidate_pool": "both"}, {"overlap_policy": "any"}])
def test_unknown_values_are_refused(head: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=next(iter(head))):
        load(changed(boundary_checkpoint(**SURE), tmp_path, **head))


def test_unknown_options_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(boundary_checkpoint(**SURE))
    assert "boundary_head" not in caplog.text
    load(changed(boundary_checkpoint(**SURE), tmp_path, boundary_dims=3))
    assert "boundary_dims" in caplog.text
