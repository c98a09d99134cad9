"""What is written for the `gliner` package gives the same entities there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import make_backbone, make_causal_lm

from gliner_pipe.convert import convert, to_gliner
from gliner_pipe.errors import ConfigError

peer = pytest.importorskip("gliner")
pytestmark = pytest.mark.filterwarnings("ignore")

TEXTS = [
    "Maria Lindqvist joined Oslo University on 3 March 2019.",
    "The baker from Lima, who had measles, bought a well-known painting for $40 at 7 p.m. in Berlin.",
]
LABELS = ["person", "big city", "date"]


def pipeline(backbone: Path, **blocks: Any) -> Any:
    """An untrained pipeline whose scores are far apart."""
    nlp = spacy.blank("en")
    model = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": {
            "@encoders": "uni_encoder",
            "backbone": {"@backbones": "transformer", "model": str(backbone)},
        },
        "span_rep": {"@span_reps": "markerV0", "max_width": 5},
        **blocks,
    }
    config = {"model": model, "labels": LABELS, "word_splitter": {"@word_splitters": "whitespace"}}
    component: Any = nlp.add_pipe("gliner", config=config)
    torch.manual_seed(0)
    component.gliner.build()
    for parameter in component.gliner.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return nlp


def bi(backbone: Path, **settings: Any) -> dict[str, Any]:
    text = {"@backbones": "transformer", "model": str(backbone)}
    return {"@encoders": "bi_encoder", "backbone": text, "label_model": str(backbone), **settings}


SHAPES = {
    "span": {"span_rep": {"@span_reps": "conv_share", "max_width": 4}},
    "context": {"context": {"@context_encoders": "deberta-v2", "n_layers": 1}},
    "token": {"span_rep": {"@span_reps": "token_level"}},
    "token_spans": {"span_rep": {"@span_reps": "token_level", "represent_spans": True}},
}


def same(ours: Any, theirs: Any, threshold: float = 0.5) -> int:
    """Hold entities and scores against each other, and return how many there are."""
    component = ours.get_pipe("gliner")
    component.threshold = threshold
    count = 0
    for text in TEXTS:
        doc = ours.make_doc(text)
        offsets = component.word_splitter.split(doc).offsets
        (found,) = component.predict([doc])
        mine = {(offsets[e.start][0], offsets[e.end][1], e.label): e.score for e in found.entities}
        (expected,) = theirs.inference([text], LABELS, threshold=threshold, flat_ner=True)
        wanted = {(e["start"], e["end"], e["label"]): e["score"] for e in expected}
        assert mine == pytest.approx(wanted, abs=1e-4)
        count += len(mine)
    return count


def loaded(folder: Path) -> Any:
    return peer.GLiNER.from_pretrained(str(folder), local_files_only=True).eval()


@pytest.mark.parametrize("shape", SHAPES)
def test_uni_encoders(backbone: Path, tmp_path: Path, shape: str) -> None:
    nlp = pipeline(backbone, **SHAPES[shape])
    folder = to_gliner(nlp, tmp_path / "out")
    assert same(nlp, loaded(folder), 0.3) > 1


@pytest.mark.parametrize("token", [False, True])
def test_bi_encoders(backbone: Path, tmp_path: Path, token: bool) -> None:
    rep = {"@span_reps": "token_level"} if token else {"@span_reps": "marker"}
    fusion = {"@fusions": "cross_attention", "pattern": "l2t-t2l", "n_heads": 4}
    nlp = pipeline(backbone, encoder=bi(backbone), span_rep=rep, fusion=fusion)
    folder = to_gliner(nlp, tmp_path / "out")
    assert same(nlp, loaded(folder), 0.3) > 1


def streaming(folder: Path, **settings: Any) -> dict[str, Any]:
    text = {"@backbones": "causal_transformer", "model": str(folder), "hidden_size": 48, "window": 100}
    context = {"@context_encoders": "deberta-v2", "n_layers": 2, "width": 16}
    return {"@encoders": "causal_encoder", "backbone": text, "label_context": context, **settings}


@pytest.mark.parametrize("settings", [{}, {"rnn_layers": 1, "right_context": 3, "max_session_tokens": 90}])
def test_streaming(tmp_path: Path, settings: dict[str, Any]) -> None:
    causal = make_causal_lm(tmp_path / "causal", kind="gpt2")
    spans = {"@span_reps": "markerV2", "max_width": 4}
    nlp = pipeline(causal, encoder=streaming(causal, **settings), span_rep=spans)
    theirs = loaded(to_gliner(nlp, tmp_path / "out"))
    assert same(nlp, theirs, 0.3) > 1
    asked = (theirs.config.right_context_width, theirs.config.max_cache_length)
    assert asked == (settings.get("right_context", 4), settings.get("max_session_tokens"))
    convert(str(tmp_path / "out"), tmp_path / "again", labels="person,big city,date")
    again = spacy.load(tmp_path / "again").get_pipe("gliner")
    ours = nlp.get_pipe("gliner")
    again.threshold = ours.threshold
    for text in TEXTS:
        assert again.predict([nlp.make_doc(text)]) == ours.predict([nlp.make_doc(text)])


def test_streaming_models_without_an_equivalent(tmp_path: Path) -> None:
    causal = make_causal_lm(tmp_path / "causal", kind="gpt2")
    for blocks, named in (
        ({"encoder": streaming(causal, label_context=None)}, "label_context"),
        ({"encoder": streaming(causal), "span_rep": {"@span_reps": "token_level"}}, "span_rep"),
    ):
        with pytest.raises(ConfigError, match=named):
            to_gliner(pipeline(causal, **blocks), tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_generative(backbone: Path, tmp_path: Path) -> None:
    causal = make_causal_lm(tmp_path / "causal")
    nlp = pipeline(backbone, decoder={"@decoders": "generative", "model": str(causal), "max_new_tokens": 3})
    folder = to_gliner(nlp, tmp_path / "out")
    theirs = loaded(folder)
    ours = nlp.get_pipe("gliner").gliner.label_generator.decoder.state_dict()
    for name, tensor in theirs.model.decoder.decoder_layer.model.state_dict().items():
        assert torch.equal(tensor, ours[name])
    # the next line also runs their language model
    (expected,) = theirs.inference([TEXTS[0]], LABELS, threshold=0.5, do_sample=False, max_new_tokens=3)
    assert expected


def test_relations(backbone: Path, tmp_path: Path) -> None:
    encoder = {
        "@encoders": "uni_encoder",
        "rel_token": "<<REL>>",
        "backbone": {"@backbones": "transformer", "model": str(backbone)},
    }
    nlp = pipeline(backbone, encoder=encoder, relation_layer={"@relation_layers": "mlp"})
    model = nlp.get_pipe("gliner").gliner
    theirs = loaded(to_gliner(nlp, tmp_path / "out"))
    for name, tensor in model.relation_layer.state_dict().items():
        assert torch.equal(tensor, theirs.model.relations_rep_layer.relation_rep_layer.state_dict()[name])
    for name, tensor in model.triple.pair_rep.state_dict().items():
        assert torch.equal(tensor, theirs.model.pair_rep_layer.state_dict()[name])


def test_there_and_back(backbone: Path, tmp_path: Path) -> None:
    nlp = pipeline(backbone)
    nlp.to_disk(tmp_path / "spacy")
    convert(str(tmp_path / "spacy"), tmp_path / "gliner")
    convert(str(tmp_path / "gliner"), tmp_path / "again", labels="person,big city,date")
    again = spacy.load(tmp_path / "again")
    for one in (nlp, again):
        one.get_pipe("gliner").threshold = 0.2
    for text in TEXTS:
        ours, back = (one.get_pipe("gliner").predict([one.make_doc(text)]) for one in (nlp, again))
        assert ours[0].entities
        assert ours == back


@pytest.mark.parametrize(
    ("blocks", "named"),
    [
        ({"fusion": {"@fusions": "cross_attention", "n_heads": 4}}, "fusion"),
        ({"relation_layer": {"@relation_layers": "biaffine"}}, "relation_layer"),
        (
            {"relation_layer": {"@relation_layers": "dot"}, "triple": {"@triples": "transe"}},
            "triple.compatible",
        ),
        ({"relation_layer": {"@relation_layers": "dot"}, "triple": {"@triples": "ermlp"}}, "width of 768"),
        ({"span_rep": {"@span_reps": "token_level", "project_labels": True}}, "project_labels"),
    ],
)
def test_blocks_without_an_equivalent_in_gliner_are_refused(
    backbone: Path, tmp_path: Path, blocks: dict[str, Any], named: str
) -> None:
    encoder = {
        "@encoders": "uni_encoder",
        "rel_token": "<<REL>>",
        "backbone": {"@backbones": "transformer", "model": str(backbone)},
    }
    nlp = pipeline(backbone, encoder=encoder, **blocks)
    with pytest.raises(ConfigError, match=named):
        to_gliner(nlp, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_neither(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text(json.dumps({}))
    with pytest.raises(ConfigError, match=r"neither meta\.json nor gliner_config\.json"):
        convert(str(tmp_path), tmp_path / "out")


def test_training_goes_on_after_the_way_there_and_back(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "deberta", "deberta-v2")
    nlp = pipeline(backbone)
    component = nlp.get_pipe("gliner")
    example = spacy.training.Example.from_dict(
        nlp.make_doc("Maria lives in Oslo"), {"entities": [(0, 5, "person"), (15, 19, "big city")]}
    )
    optimizer = nlp.resume_training()
    for _ in range(3):
        nlp.update([example], sgd=optimizer)
    folder = to_gliner(nlp, tmp_path / "out")
    same(nlp, loaded(folder))
    convert(str(folder), tmp_path / "again", labels="person,big city,date")
    again = spacy.load(tmp_path / "again")
    optimizer = again.resume_training()
    before = {name: p.clone() for name, p in again.get_pipe("gliner").gliner.named_parameters()}
    again.update([example], sgd=optimizer)
    changed = [
        n for n, p in again.get_pipe("gliner").gliner.named_parameters() if not torch.equal(p, before[n])
    ]
    assert len(changed) > len(before) // 2
    same(again, loaded(to_gliner(again, tmp_path / "once more")))
    assert component.gliner.is_built
