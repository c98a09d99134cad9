"""Labels that are read apart from the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import make_backbone

from gliner_pipe.backbones.transformer import Transformer
from gliner_pipe.encoders.base import Query
from gliner_pipe.encoders.bi_encoder import BiEncoder
from gliner_pipe.errors import CheckpointError

WORDS = ["Maria", "read", "Solaris", "in", "Lima", "."]


@pytest.fixture
def encoder(backbone: Path, tmp_path: Path) -> BiEncoder:
    torch.manual_seed(0)
    narrow = make_backbone(tmp_path / "labels", hidden_size=16)
    made = BiEncoder(Transformer(str(backbone)), str(narrow))
    made.build()
    return made.eval()


def run(encoder: BiEncoder, texts: Any, asked: Any) -> Any:
    with torch.inference_mode():
        return encoder(encoder.collate(encoder.prepare(texts, [Query(*one) for one in asked], 4)))


def test_labels_of_another_width_become_as_wide_as_words(encoder: BiEncoder) -> None:
    encoded = run(encoder, [WORDS], [(("person", "city"), ("lives in",))])
    assert encoded.words.shape == (1, 6, 32)
    assert encoded.labels.shape == (1, 2, 32)
    assert encoded.relations.shape == (1, 1, 32)


def test_batch_mates_and_their_labels_change_nothing(encoder: BiEncoder) -> None:
    asked = [(("person", "city"),), (("a much longer name of a label",),), ((), ("lives in",))]
    together = run(encoder, [WORDS, WORDS * 5, ["Hi"]], asked)
    alone = run(encoder, [WORDS], asked[:1])
    torch.testing.assert_close(together.labels[0, :2], alone.labels[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together.words[0, :6], alone.words[0], rtol=0, atol=1e-5)
    assert not together.labels[1, 1:].any()
    assert not together.labels[2].any()


def test_a_label_is_read_once_and_again_when_the_weights_change(encoder: BiEncoder) -> None:
    read: list[list[str]] = []
    real = encoder.label_encoder._run
    encoder.label_encoder._run = lambda texts: read.append(list(texts)) or real(texts)  # type: ignore[method-assign, func-returns-value]
    run(encoder, [WORDS], [(("person", "city"),)])
    run(encoder, [WORDS], [(("city", "date", "person"),)])
    assert read == [["city", "person"], ["date"]] or read == [["person", "city"], ["date"]]
    before = run(encoder, [WORDS], [(("city",),)]).labels
    assert len(read) == 2
    with torch.no_grad():
        next(encoder.label_encoder.encoder.parameters()).normal_()
    after = run(encoder, [WORDS], [(("city",),)]).labels
    assert len(read) == 3
    assert not torch.allclose(before, after)


def test_gradients_reach_the_label_model_unless_it_is_frozen(backbone: Path, encoder: BiEncoder) -> None:
    def learning(one: BiEncoder) -> bool:
        one.train()
        encoded = one(one.collate(one.prepare([WORDS], [Query(("person", "city"))], 4)))
        encoded.labels.square().sum().backward()
        return any(p.grad is not None for p in one.label_encoder.encoder.parameters())

    assert learning(encoder)
    frozen = BiEncoder(Transformer(str(backbone)), str(backbone), label_freeze=True)
    frozen.build()
    frozen.label_encoder.projection = torch.nn.Linear(32, 32)
    assert not learning(frozen)
    assert not frozen.label_encoder.encoder.training


def test_vectors_are_kept_in_a_file_for_the_same_weights(encoder: BiEncoder, tmp_path: Path) -> None:
    labels = ("person", "città", 'a "quoted" one', "")
    with torch.inference_mode():
        expected = encoder.encode_labels(labels)
    encoder.label_encoder.save_vectors(tmp_path / "labels.safetensors")
    encoder.label_encoder._kept.clear()
    assert encoder.label_encoder.load_vectors(tmp_path / "labels.safetensors") == 4
    encoder.label_encoder._run = None  # type: ignore[assignment, method-assign]
    with torch.inference_mode():
        assert torch.equal(encoder.encode_labels(labels), expected)
    with torch.no_grad():
        next(encoder.label_encoder.parameters()).mul_(2)
    with pytest.raises(CheckpointError, match="made by other weights"):
        encoder.label_encoder.load_vectors(tmp_path / "labels.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["markerV0", "token_level"])
def test_thousands_of_labels_at_once(backbone: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of all words, widths and labels is ever made, and the label set may be cut anywhere."""
    from gliner_pipe.span_reps import base, token_level

    names = [f"label {number}" for number in range(3000)]
    nlp = spacy.blank("en")
    model = {
        "encoder": {
            "@encoders": "bi_encoder",
            "label_model": str(backbone),
            "backbone": {"@backbones": "transformer", "model": str(backbone)},
        },
        "span_rep": {"@span_reps": kind},
        "decoder": {"@decoders": "span"},
    }
    component: Any = nlp.add_pipe("gliner", config={"labels": names, "model": model, "threshold": 0.0})
    nlp.initialize()
    component.cfg["multi_label"] = True
    text = " ".join(WORDS * 2)

    def found(limit: float) -> Any:
        component.threshold = limit
        return component.predict([nlp.make_doc(text)])[0].entities

    scores = sorted((entity.score for entity in found(0.5)), reverse=True)
    some = scores[min(len(scores) - 1, 40)] - 1e-6 if scores else 0.45
    expected = found(some)
    assert expected
    sizes = []
    real = component.gliner.span_rep.score

    def seen(words: Any, labels: Any, word_mask: Any) -> Any:
        logits = real(words, labels, word_mask)
        sizes.append(logits.numel())
        return logits

    monkeypatch.setattr(component.gliner.span_rep, "score", seen)
    for module in (base, token_level):
        monkeypatch.setattr(module, "SCORES_AT_ONCE", 20_000)
    again = found(some)
    assert max(sizes) <= 20_000
    assert len(sizes) > 4
    key = lambda e: (e.start, e.end, e.label)  # noqa: E731
    assert sorted(map(key, again)) == sorted(map(key, expected))
