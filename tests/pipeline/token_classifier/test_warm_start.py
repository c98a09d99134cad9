"""A tagger that begins with the weights of another pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from tagging_pipeline import config, examples

from gliner_pipe.distillation.warm_start import fit_tags, read_words, warm_start
from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import evaluate_pipeline
from gliner_pipe.modeling.decoders.crf import CRFTags
from gliner_pipe.modeling.decoders.softmax import SoftmaxTags
from gliner_pipe.modeling.decoders.tags import UNKNOWN
from gliner_pipe.modeling.inference import TokenBudget
from tests.conftest import gliner_config, make_backbone


def student(backbone: Path, decoder: Any = "softmax", **changes: Any) -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", config=config(backbone, decoder, **changes))
    return nlp


def warmed(nlp: Any, teacher: Any) -> Any:
    tagger = nlp.get_pipe("token_classifier")
    warm_start(tagger, teacher, examples(nlp))
    return tagger


def moved(nlp: Any) -> Any:
    """A pipeline whose backbone is no longer the one on disk."""
    with torch.no_grad():
        for weight in nlp.get_pipe("gliner").gliner.encoder.backbone.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    return nlp


def exact(nlp: Any) -> float:
    return float(evaluate_pipeline(nlp, examples(nlp), metrics=["exact"])["exact"]["micro"]["f"])


def test_backbone_and_labels_are_the_teachers(nlp: Any, backbone: Path) -> None:
    teacher = moved(nlp)
    tagger = warmed(student(backbone), teacher)
    assert tagger.labels == ("person", "city")
    ours = tagger.network.encoder.backbone.encoder.state_dict()
    theirs = teacher.get_pipe("gliner").gliner.encoder.backbone.encoder.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    weight = next(tagger.network.encoder.backbone.parameters())
    with torch.no_grad():
        weight.zero_()
    assert next(teacher.get_pipe("gliner").gliner.encoder.backbone.parameters()).abs().sum() > 0


@pytest.mark.parametrize(
    "decoder",
    ["softmax", "crf", {"@decoders": "crf", "scheme": "bio", "mode": "independent"}],
    ids=["softmax", "crf", "chains"],
)
def test_it_begins_better_than_with_chance(nlp: Any, backbone: Path, decoder: Any) -> None:
    warm, cold = student(backbone, decoder), student(backbone, decoder)
    warmed(warm, nlp)
    cold.initialize(lambda: examples(cold))
    assert exact(warm) > 0.95 > 0.5 > exact(cold)


def test_training_keeps_the_first_weights(nlp: Any, backbone: Path) -> None:
    pipeline = student(backbone)
    before = warmed(pipeline, nlp).network.decoder.project.weight.clone()
    pipeline.initialize(lambda: examples(pipeline))
    assert torch.equal(before, pipeline.get_pipe("token_classifier").network.decoder.project.weight)


def test_from_a_tagger(nlp: Any, backbone: Path) -> None:
    first = student(backbone)
    warmed(first, nlp)
    second = student(backbone, "crf")
    assert warmed(second, first).labels == ("person", "city")
    assert exact(second) > 0.95


def test_saved_and_loaded(nlp: Any, backbone: Path, tmp_path: Path) -> None:
    pipeline = student(backbone)
    warmed(pipeline, moved(nlp))
    pipeline.to_disk(tmp_path / "model")
    text = "Ada Smith lives in Rome."
    assert [
        (s.text, s.label_) for s in spacy.load(tmp_path / "model")(text).ents
    ] == [(s.text, s.label_) for s in pipeline(text).ents]  # fmt: skip


def test_the_lstm_is_taken_along(backbone: Path) -> None:
    teacher = spacy.blank("en")
    settings = gliner_config(backbone)
    settings["model"]["encoder"]["rnn_layers"] = 1
    teacher.add_pipe("gliner", config=settings)
    teacher.initialize()
    below = config(backbone)["embedding"]
    tagger = warmed(student(backbone, embedding={"@backbones": "lstm", "embedding": below}), teacher)
    ours, theirs = tagger.network.encoder.backbone.rnn, teacher.get_pipe("gliner").gliner.encoder.rnn
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_no_warm_start_without_a_matching_teacher(nlp: Any, backbone: Path, tmp_path: Path) -> None:
    other = student(make_backbone(tmp_path / "other"))
    done = student(backbone)
    warmed(done, nlp)
    for tagger, teacher, found in (
        (other, nlp, "the student's backbone is "),
        (student(backbone), spacy.blank("en"), "the teacher "),
        (done, nlp, "the student has weights"),
    ):
        with pytest.raises(ConfigError) as caught:
            warmed(tagger, teacher)
        assert caught.value.where == "distill.warm_start" and found in caught.value.found


def test_from_a_bi_encoder(backbone: Path) -> None:
    teacher = spacy.blank("en")
    settings = gliner_config(backbone)
    settings["model"]["encoder"] |= {"@encoders": "bi_encoder", "label_model": str(backbone)}
    teacher.add_pipe("gliner", config=settings)
    teacher.initialize()
    pipeline = student(backbone)
    warmed(pipeline, teacher)
    assert exact(pipeline) > 0.95


@pytest.mark.parametrize("kind", [CRFTags, SoftmaxTags])
def test_where_the_decoder_starts_makes_no_difference(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gliner_pipe.distillation.warm_start.PENALTY", 1e-2)
    torch.manual_seed(0)
    rows = [(torch.randn(n, 6), torch.randint(3, (n, 1))) for n in (5, 9, 1, 30)]
    rows[1][1][3] = UNKNOWN
    found = []
    for seed in range(2):
        torch.manual_seed(seed)
        decoder = kind(scheme="io", **({"chains": "one"} if kind is CRFTags else {}))
        decoder.build(6, ["a", "b"])
        before = decoder.project.weight.clone()
        fit_tags(decoder, rows)
        assert not torch.allclose(before, decoder.project.weight, atol=0.01)
        assert decoder.training and all(weight.grad is None for weight in decoder.parameters())
        found.append(decoder.eval().emissions(rows[0][0][None]))
    assert torch.allclose(*found, atol=1e-2)


def test_words_are_read_up_to_a_number(nlp: Any, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = student(backbone)
    tagger = warmed(pipeline, nlp)
    gold = examples(pipeline)
    rows = read_words(tagger, gold)
    assert [len(words) for words, _ in rows] == [len(one.reference) for one in gold]
    model = tagger.network.eval()
    (alone,) = model.score(model.prepare([[token.text for token in gold[3].reference]]), 1, TokenBudget(1000))
    assert torch.allclose(model.decoder.emissions(rows[3][0][None])[0], alone, atol=1e-5)
    assert torch.equal(rows[3][1], tagger.collate([gold[3]]).gold[0])
    monkeypatch.setattr("gliner_pipe.distillation.warm_start.WORDS", 5)
    assert len(read_words(tagger, gold)) == 16
