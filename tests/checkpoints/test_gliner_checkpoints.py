"""Checkpoints made by the `gliner` package give the same entities here."""

import json

import pytest
import spacy
import torch
from conftest import make_backbone

from gliner_pipe.errors import CheckpointError, ConfigError

peer = pytest.importorskip("gliner")

TEXTS = [
    "Maria Lindqvist joined Oslo University on 3 March 2019.",
    "Hi!",
    "The  baker from Lima, who had measles, bought a well-known painting for $40 at 7 p.m. in Berlin.",
]
LABELS = ["person", "big city", "date"]
SHAPES = {
    "bert": {"hidden_size": 48, "fuse_layers": True},
    "deberta-v2": {"hidden_size": 32, "subtoken_pooling": "mean"},
    "modernbert": {"hidden_size": 32, "num_rnn_layers": 0, "subtoken_pooling": "last"},
}
pytestmark = pytest.mark.filterwarnings("ignore")


def make_checkpoint(folder, kind, **changes):
    backbone = make_backbone(folder / "backbone", kind)
    config = {
        "model_name": str(backbone),
        "encoder_config": json.loads((backbone / "config.json").read_text()),
        "span_mode": "markerV0",
        "max_width": 5,
        **SHAPES[kind],
        **changes,
    }
    torch.manual_seed(1)
    model = peer.GLiNER.from_config(config, backbone_from_pretrained=False).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:  # scores far apart, so that rounding decides nothing
            torch.nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder / "checkpoint", safe_serialization=True)
    return model, folder / "checkpoint"


def entities(nlp):
    found = []
    for doc in nlp.pipe(TEXTS):
        group = doc.spans["gliner"]
        scores = group.attrs["scores"]
        found.append(
            [(s.start_char, s.end_char, s.label_, float(p)) for s, p in zip(group, scores, strict=True)]
        )
    return found


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("flat", "multi"), [(True, False), (False, True)])
def test_same_entities_and_scores(tmp_path, kind, flat, multi):
    model, folder = make_checkpoint(tmp_path, kind)
    every = model.inference(TEXTS, LABELS, threshold=0.0, flat_ner=False, multi_label=True, batch_size=1)
    ranked = sorted(entity["score"] for text in every for entity in text)
    middle = range(len(ranked) // 3, 2 * len(ranked) // 3)
    gap = max(middle, key=lambda index: ranked[index + 1] - ranked[index])
    threshold = (ranked[gap] + ranked[gap + 1]) / 2
    theirs = model.inference(
        TEXTS, LABELS, threshold=threshold, flat_ner=flat, multi_label=multi, batch_size=1
    )
    settings = {"threshold": threshold, "flat_ner": flat, "multi_label": multi, "alignment_mode": "expand"}
    nlp = spacy.blank("en")
    component = nlp.add_pipe("gliner", config={"model": str(folder), "labels": LABELS, **settings})
    docs = [nlp.make_doc(text) for text in TEXTS]
    count = 0
    for doc, ours, expected in zip(docs, component.predict(docs), theirs, strict=True):
        offsets = component.word_splitter.split(doc).offsets
        found = {(offsets[e.start][0], offsets[e.end][1], e.label): e.score for e in ours.entities}
        wanted = {(e["start"], e["end"], e["label"]): e["score"] for e in expected}
        assert found == pytest.approx(wanted, abs=1e-5)
        count += len(found)
    assert count > 3


def test_a_pipeline_saved_from_a_checkpoint_stands_alone(tmp_path):
    _, folder = make_checkpoint(tmp_path, "bert")
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config={"model": str(folder), "labels": LABELS, "threshold": 0.2})
    expected = entities(nlp)
    nlp.to_disk(tmp_path / "saved")
    for path in (folder, tmp_path / "backbone"):
        path.rename(path.with_name(path.name + ".gone"))
    assert entities(spacy.load(tmp_path / "saved")) == expected
    assert sum(map(len, expected)) > 3


def load(folder):
    nlp = spacy.blank("en")
    return nlp.add_pipe("gliner", config={"model": str(folder), "labels": LABELS}).gliner


def test_missing_and_unexpected_tensors_are_refused_by_name(tmp_path):
    from safetensors.torch import load_file, save_file

    _, folder = make_checkpoint(tmp_path, "deberta-v2")
    weights = load_file(folder / "model.safetensors")
    weights["extra.weight"] = weights.pop("prompt_rep_layer.0.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"Missing: prompt_rep\.0\.weight\. Unexpected: extra\.weight"):
        load(folder)


@pytest.mark.parametrize(("key", "value"), [("span_mode", "spans"), ("words_splitter_type", "moses")])
def test_blocks_that_are_not_here_are_refused_by_name(tmp_path, key, value):
    _, folder = make_checkpoint(tmp_path, "deberta-v2")
    path = folder / "gliner_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(CheckpointError, match=f"{key} = '{value}'"):
        load(folder)


def test_folders_that_are_no_checkpoints(tmp_path):
    with pytest.raises(ConfigError, match=r"gliner_config\.json"):
        load(tmp_path)
    spacy.blank("en").to_disk(tmp_path / "pipeline")
    with pytest.raises(ConfigError, match="It is a spaCy pipeline"):
        load(tmp_path / "pipeline")
    with pytest.raises(ConfigError, match="Check the path"):
        load(tmp_path / "nowhere")
    (tmp_path / "gliner_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="no valid JSON"):
        load(tmp_path)


def test_pickled_weights_are_read_without_running_code(tmp_path):
    from safetensors.torch import load_file

    _, folder = make_checkpoint(tmp_path, "deberta-v2")
    expected = load(folder).state_dict()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    for name, tensor in load(folder).state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_a_checkpoint_is_trained_further_with_another_loss(tmp_path):
    from gliner_pipe.modeling.losses.bce import BCELoss
    from gliner_pipe.modeling.losses.focal import FocalLoss

    _, folder = make_checkpoint(tmp_path, "bert")
    nlp = spacy.blank("en")
    loss = {"@losses": "gliner_pipe.bce", "masking": "label", "negatives": 0.5}
    model = {"@architectures": "gliner_pipe.Pretrained.v1", "name": str(folder), "loss": loss}
    component = nlp.add_pipe("gliner", config={"model": model, "labels": LABELS})
    assert (
        isinstance(component.gliner.loss, BCELoss) and component.gliner.relation_loss is component.gliner.loss
    )
    nlp.to_disk(tmp_path / "saved")
    again = spacy.load(tmp_path / "saved").get_pipe("gliner").gliner
    assert isinstance(again.loss, BCELoss) and again.loss.masking == "label"
    plain = spacy.blank("en").add_pipe("gliner", config={"model": str(folder), "labels": LABELS})
    assert isinstance(plain.gliner.loss, FocalLoss)
