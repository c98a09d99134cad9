"""A tagger that begins with the weights of another pipeline."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from tagging_pipeline import config, examples

from gliner_pipe.decoders.crf import CRFTags
from gliner_pipe.errors import ConfigError
from gliner_pipe.metrics.evaluation import evaluate_pipeline
from gliner_pipe.tagging.warm_start import fit_tags, label_vectors, read_words, warm_start
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


def test_what_cannot_begin_so(nlp: Any, backbone: Path, tmp_path: Path) -> None:
    other = student(make_backbone(tmp_path / "other"))
    with pytest.raises(
        ConfigError, match=r"warm_start\] is asked for, but the student's backbone is .*other"
    ):
        warmed(other, nlp)
    with pytest.raises(ConfigError, match="not exactly one gliner"):
        warmed(student(backbone), spacy.blank("en"))
    done = student(backbone)
    warmed(done, nlp)
    with pytest.raises(ConfigError, match="weights of its own"):
        warmed(done, nlp)


def test_label_vectors_of_a_prompt_are_means_over_texts(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    docs = [nlp.make_doc(text) for text in ("Ada lives here.", "", "Rome is far away from Oslo.")]
    one, _, two = (label_vectors(component, [doc], ["city"]) if len(doc) else None for doc in docs)
    assert one is not None and two is not None and not torch.allclose(one, two)
    assert torch.allclose(label_vectors(component, docs, ["city"]), (one + two) / 2, atol=1e-5)
    both = label_vectors(component, docs, ["person", "city"])
    assert both.shape == (2, 32)


def test_label_vectors_of_a_bi_encoder(backbone: Path) -> None:
    teacher = spacy.blank("en")
    settings = gliner_config(backbone)
    settings["model"]["encoder"] |= {"@encoders": "bi_encoder", "label_model": str(backbone)}
    component: Any = teacher.add_pipe("gliner", config=settings)
    teacher.initialize()
    one, two = (
        label_vectors(component, [teacher.make_doc(text)], ["city"]) for text in ("Ada", "is in Rome")
    )
    assert torch.allclose(one, two, atol=1e-6)
    pipeline = student(backbone)
    warmed(pipeline, teacher)
    assert exact(pipeline) > 0.95


def test_the_discriminant_of_two_clouds() -> None:
    # two normal clouds of one spread: the border lies half way, moved by how often each is met
    decoder = CRFTags(scheme="io", constrained=False)
    decoder.build(2, ["x"])
    rng = torch.Generator().manual_seed(0)
    gold = (torch.arange(4000) % 4 == 0).long()
    words = torch.randn(4000, 2, generator=rng) * torch.tensor([1.0, 3.0]) + gold[:, None] * torch.tensor(
        [4.0, 0.0]
    )
    fit_tags(decoder, words, gold[:, None])
    odds = decoder.project.weight[1] - decoder.project.weight[0]
    border = (decoder.project.bias[0] - decoder.project.bias[1]) / odds[0]
    assert abs(odds[1] / odds[0]) < 0.05
    assert border.item() == pytest.approx(2 + math.log(3) / 4, abs=0.2)


def test_a_rare_label_leans_on_those_alike() -> None:
    decoder = CRFTags(scheme="io")
    decoder.build(3, ["a", "b", "c"])
    words = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    gold = torch.zeros(300, 1, dtype=torch.long)
    gold[:50], words[:50, 0] = 1, words[:50, 0] + 8
    # no word bears b or c; b is like a, c is its contrary
    vectors = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]])
    fit_tags(decoder, words, gold, vectors)
    a, b, c = decoder.emissions(torch.tensor([[[8.0, 0.0, 0.0]]]))[0, 0, 0, 1:].tolist()
    assert a > b > c
    fit_tags(decoder, words, gold)
    _, b, c = decoder.emissions(torch.tensor([[[8.0, 0.0, 0.0]]]))[0, 0, 0, 1:].tolist()
    assert b == pytest.approx(c)


def test_words_are_read_up_to_a_number(nlp: Any, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = student(backbone)
    tagger = warmed(pipeline, nlp)
    gold = examples(pipeline)
    words, tags = read_words(tagger, gold)
    assert words.shape == (sum(len(one.reference) for one in gold), 32) and tags.shape == (len(words), 1)
    monkeypatch.setattr("gliner_pipe.tagging.warm_start.WORDS", 5)
    assert len(read_words(tagger, gold)[0]) == sum(len(one.reference) for one in gold[:16])
