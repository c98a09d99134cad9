"""Models of the `gliner` package that find relations: the same entities, and the same relations."""

from __future__ import annotations

from typing import Any

import pytest
import spacy
import torch
from checkpoint_parity import (
    LABELS,
    RELATIONS,
    TEXTS,
    cases,
    check_case,
    gap,
    load,
    make_peer,
    prepare_peer,
    run_peer,
    save,
    valid_scores,
)

from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.inference import TokenBudget, predict_spans

pytestmark = pytest.mark.filterwarnings("ignore")
LONG = [TEXTS[0], TEXTS[2]]
_NLP = spacy.blank("en")


@pytest.mark.parametrize("case", [*cases("relates", token=False), *cases("relates", token=True)])
def test_combinations_of_options(tmp_path, case):
    check_case(case, tmp_path)


def strengths(component: Any, texts: list[str], labels: list[str], threshold: float) -> list[float]:
    """How strongly each two entities above the threshold are tied."""
    model = component.gliner
    words = [component.word_splitter.split(_NLP.make_doc(text)).texts for text in texts]
    query = Query(tuple(labels), tuple(RELATIONS))
    windows = model.encoder.prepare(words, [query] * len(texts), model.min_overlap)
    found = predict_spans(model, windows, [[threshold] * len(labels)] * len(texts), TokenBudget(8192))
    result = []
    for one in found:
        vectors = one.windows[0].vectors[None]
        mask = torch.ones(vectors.shape[:2], dtype=torch.bool)
        with torch.inference_mode():
            strong = model.relation_layer(vectors, mask)[0]
        result += strong[~torch.eye(len(strong), dtype=torch.bool)].tolist()
    return result


def compare(
    model: Any, component: Any, texts: list[str] = LONG, labels: list[str] = LABELS, together: bool = True
) -> None:
    """Compare relations, and the entities that they are between; thresholds lie in gaps between scores."""
    threshold, tied = lively_threshold(model, component, texts, labels)
    levels = {round(strength, 5) for strength in tied}  # some layers know few
    adjacency = gap(levels, 0.1, 0.7) if len(levels) > 3 else min(levels) - 0.01
    if min(abs(strength - adjacency) for strength in tied) < 1e-5:  # no gap that rounding could not close
        adjacency = min(levels) - 0.01
    assert min(abs(strength - adjacency) for strength in tied) > 1e-6
    groups = [texts] if together else [[text] for text in texts]
    probs: list[float] = []
    for group in groups:
        out = run_peer(model, group, labels, threshold=threshold, adjacency_threshold=adjacency)
        probs += out.rel_logits[out.rel_mask.bool()].sigmoid().flatten().tolist()
    options = {
        "relation_threshold": gap(probs, 0.2, 0.6),
        "adjacency_threshold": adjacency,
        "threshold": threshold,
    }
    component.labels = labels
    count = 0
    for flat in (True, False):
        size = len(texts) if together else 1
        _, theirs = model.inference(
            texts, labels, relations=RELATIONS, flat_ner=flat, batch_size=size, **options
        )
        component.cfg = {**component.cfg, **options, "flat_ner": flat}
        docs = [_NLP.make_doc(text) for text in texts]
        for doc, prediction, wanted in zip(docs, component.predict(docs), theirs, strict=True):
            offsets = component.word_splitter.split(doc).offsets
            ends = [(offsets[e.start][0], offsets[e.end][1], e.label) for e in prediction.entities]
            found = {
                (ends[link.head], ends[link.tail], link.label): link.score for link in prediction.relations
            }
            expected = {
                (_end(one["head"]), _end(one["tail"]), one["relation"]): one["score"] for one in wanted
            }
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-9)
            count += len(found)
    assert count > 2


def lively_threshold(
    model: Any, component: Any, texts: list[str], labels: list[str]
) -> tuple[float, list[float]]:
    """Return a threshold that some ten spans pass, and how strongly these are tied."""
    batch = prepare_peer(model, texts, labels)
    logits = run_peer(model, texts, labels, threshold=0.0).logits
    scores = valid_scores(logits, [len(tokens) for tokens in batch["tokens"]])
    for low in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2):
        threshold = gap(scores, low, low + 0.07)
        tied = strengths(component, texts, labels, threshold)
        if len(tied) > 20:
            return threshold, tied
    raise AssertionError("no threshold with enough entities")


def _end(entity: dict[str, Any]) -> tuple[int, int, str]:
    return entity["start"], entity["end"], entity["type"]


def related(folder: Any, layer: str, **changes: Any) -> tuple[Any, Any]:
    model = make_peer(relations_layer=layer, **changes)
    return model, load(save(model, folder), relations=RELATIONS)


@pytest.mark.parametrize("layer", ["none", "dot", "mlp", "attention", "bilinear", "gcn", "gat"])
def test_relation_layers(tmp_path, layer):
    compare(*related(tmp_path, layer))


@pytest.mark.parametrize("layer", ["none", "dot", "mlp", "attention", "bilinear", "gcn", "gat"])
def test_relation_layers_of_token_models(tmp_path, layer):
    """GLiNER 0.2.29 faults: a span with two labels counts as two entities, which may be related to each other, and
    spans of padding fail; so there is one label, and each text is by itself.
    """
    model, component = related(tmp_path, layer, span_mode="token_level")
    compare(model, component, labels=["person"], together=False)


def test_no_entity_is_related_to_itself(tmp_path):
    """GLiNER 0.2.29 fault: in token models those with two labels may be."""
    _, component = related(tmp_path, "none", span_mode="token_level")
    component.labels = LABELS
    component.cfg = {
        **component.cfg,
        "threshold": 0.01,
        "relation_threshold": 0.0,
        "flat_ner": False,
        "multi_label": True,
    }
    (prediction,) = component.predict([_NLP.make_doc(TEXTS[0])])
    spans = [(entity.start, entity.end) for entity in prediction.entities]
    assert len(set(spans)) < len(spans)
    assert prediction.relations
    assert all(spans[link.head] != spans[link.tail] for link in prediction.relations)


@pytest.mark.parametrize("triple", ["UM", "SE", "DistMult", "SimplE", "DistMA", "ComplEx", "QuatE", "HolE"])
def test_triples_without_weights(tmp_path, triple):
    compare(*related(tmp_path, "dot", triples_layer=triple))


def test_transe(tmp_path):
    """Its scores end at -10, so vectors must be short to see any difference."""
    model = make_peer(relations_layer="dot", triples_layer="TransE", hidden_size=16)
    with torch.no_grad():
        for parameter in model.model.token_rep_layer.projection.parameters():
            parameter.mul_(0.2)
    compare(model, load(save(model, tmp_path), relations=RELATIONS))


@pytest.mark.parametrize("triple", ["TransH", "TransF", "PairRE", "TripleRE", "ERMLP", "ConvKB"])
def test_triples_with_weights(tmp_path, triple):
    """GLiNER 0.2.29 makes them for vectors of 768, whatever the width is; short ones keep scores off 0 and 1."""
    settings = {"hidden_size": 768, "num_rnn_layers": 0, "span_mode": "query"}
    model = make_peer(relations_layer="dot", triples_layer=triple, **settings)
    with torch.no_grad():
        for part in (model.model.token_rep_layer.projection, model.model.triples_score_layer):
            for parameter in part.parameters():
                parameter.mul_(0.2)
    compare(model, load(save(model, tmp_path), relations=RELATIONS))


@pytest.mark.parametrize("embed", [True, False])
@pytest.mark.parametrize("kind", ["deberta-v2", "modernbert"])
def test_kinds_and_places_of_relation_labels(tmp_path, embed, kind):
    compare(*related(tmp_path, "mlp", kind=kind, embed_rel_token=embed, embed_ent_token=not embed))


def test_texts_with_few_entities_beside_others(tmp_path):
    compare(*related(tmp_path, "bilinear"), texts=TEXTS)


@pytest.mark.parametrize("layer", ["attention", "gat"])
def test_texts_without_entities(tmp_path, layer):
    """GLiNER 0.2.29 fault: these layers fail where no text of a batch has an entity."""
    _, component = related(tmp_path, layer)
    component.threshold = 0.999
    (prediction,) = component.predict([_NLP.make_doc(TEXTS[1])])
    assert (prediction.entities, prediction.relations) == ([], [])


@pytest.mark.parametrize(("key", "value"), [("relations_layer", "attn"), ("triples_layer", "distmult")])
def test_other_spellings(tmp_path, key, value):
    """Of older documentation; GLiNER 0.2.29 refuses triples in lower case."""
    settings = {"relations_layer": "attention", "triples_layer": "DistMult"}
    model = make_peer(**settings)
    folder = save(model, tmp_path, changes={key: value})
    compare(model, load(folder, relations=RELATIONS))


def test_compressed_prompts_of_entities_and_relations(tmp_path):
    model = make_peer(relations_layer="dot")
    component = load(save(model, tmp_path / "before"), relations=RELATIONS)
    model.compress_prompt_embeddings(TEXTS, LABELS, RELATIONS, batch_size=2)
    words = [model.prepare_inputs([text])[0][0] for text in TEXTS]
    component.gliner.encoder.compress(words, Query(tuple(LABELS), tuple(RELATIONS)))
    table = component.gliner.encoder.table
    assert torch.allclose(table.entities, model.model.precomputed_prompts, atol=1e-5)
    assert torch.allclose(table.relations, model.model.precomputed_rel_prompts, atol=1e-5)
    compare(model, load(save(model, tmp_path / "after"), relations=RELATIONS))
