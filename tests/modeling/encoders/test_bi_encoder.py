"""Labels that are read apart from the text."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config, make_backbone
from forked import Forked
from spacy.training import Example

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.encoders.bi_encoder import BiEncoder
from gliner_pipe.modeling.encoders.label_cache import VectorStore
from gliner_pipe.modeling.encoders.label_encoder import TextEmbedder

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


def test_label_vectors_have_the_width_of_words(encoder: BiEncoder) -> None:
    encoded = run(encoder, [WORDS], [(("person", "city"), ("lives in",))])
    assert encoded.words.shape == (1, 6, 32)
    assert encoded.labels.shape == (1, 2, 32)
    assert encoded.relations.shape == (1, 1, 32)


def test_other_texts_and_labels_in_the_batch_change_nothing(encoder: BiEncoder) -> None:
    asked = [(("person", "city"),), (("a much longer name of a label",),), ((), ("lives in",))]
    together = run(encoder, [WORDS, WORDS * 5, ["Hi"]], asked)
    alone = run(encoder, [WORDS], asked[:1])
    torch.testing.assert_close(together.labels[0, :2], alone.labels[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together.words[0, :6], alone.words[0], rtol=0, atol=1e-5)
    assert not together.labels[1, 1:].any()
    assert not together.labels[2].any()


def test_a_label_is_encoded_once_until_the_weights_change(encoder: BiEncoder) -> None:
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


def test_a_file_of_vectors_is_bound_to_its_weights(encoder: BiEncoder, tmp_path: Path) -> None:
    labels = ("person", "città", 'a "quoted" one', "")
    with torch.inference_mode():
        expected = encoder.encode_labels(labels)
    encoder.label_encoder.save_vectors(tmp_path / "labels.safetensors")
    encoder.label_encoder.encoder_changed()
    assert encoder.label_encoder.load_vectors(tmp_path / "labels.safetensors") == 4
    encoder.label_encoder._run = None  # type: ignore[assignment, method-assign]
    with torch.inference_mode():
        assert torch.equal(encoder.encode_labels(labels), expected)
    with torch.no_grad():
        next(encoder.label_encoder.parameters()).mul_(2)
    with pytest.raises(CheckpointError, match=r"\.safetensors"):
        encoder.label_encoder.load_vectors(tmp_path / "labels.safetensors")


def test_the_same_labels_give_the_same_memory(encoder: BiEncoder) -> None:
    with torch.inference_mode():
        first = encoder.encode_labels(("person", "city"))
        assert encoder.encode_labels(("person", "city")).data_ptr() == first.data_ptr()
        assert encoder.encode_labels(("city", "person", "city")).equal(first[[1, 0, 1]])


def test_the_cache_in_memory_is_bounded(
    encoder: BiEncoder,
) -> None:
    embedder = encoder.label_encoder
    embedder._vectors.most = 5
    with torch.inference_mode():
        before = embedder(["0"])
        for number in range(30):
            embedder([str(number), str(number + 1)])
            assert len(embedder._vectors) <= 2 * 5 + 2
        assert len(embedder([str(number) for number in range(9)])) == 9
        torch.testing.assert_close(embedder(["0"]), before, rtol=0, atol=1e-6)


def embedder_with_cache(backbone: Path, cache: Path) -> TextEmbedder:
    torch.manual_seed(0)
    made = TextEmbedder(str(backbone), where="components.*.model.encoder.label_model", cache=str(cache))
    made.build(32)
    return made.eval()


def test_vectors_on_disk(backbone: Path, tmp_path: Path) -> None:
    texts = ["person", "città", "", 'a "quoted" one', "x" * 3000]
    one = embedder_with_cache(backbone, tmp_path / "cache")
    with torch.inference_mode():
        expected = one(texts)
    another = embedder_with_cache(backbone, tmp_path / "cache")
    real, read = another._run, []
    another._run = lambda some: read.extend(some) or real(some)  # type: ignore[method-assign, func-returns-value]
    with torch.inference_mode():
        assert another(texts[::-1]).equal(expected.flip(0))
        assert read == []
        another(["person", "date"])
        assert read == ["date"]
        with torch.no_grad():
            next(another.parameters()).mul_(1.5)
        other = another(texts)
    assert read[1:] == sorted(texts, key=len)  # other weights have a file of their own
    assert not other.allclose(expected)
    assert len(list((tmp_path / "cache").glob("*.sqlite"))) == 2


def test_several_processes_write_to_one_cache(tmp_path: Path) -> None:
    """Each writes 40 times what the others write too, and finds at once all that it wrote."""

    def work() -> None:
        store = VectorStore(tmp_path, "key", 3, "here")
        for at in range(40):
            texts = [f"label {number}" for number in range(at, at + 5)]
            store.put(texts, torch.arange(at, at + 5.0)[:, None].expand(-1, 3))
            found = {text: int(vector[0]) for text, vector in store.get(texts).items()}
            assert found == dict(zip(texts, range(at, at + 5), strict=True))

    runs = [Forked(work, [], tmp_path / f"process {number}") for number in range(3)]
    assert [run.output() for run in runs] == ["", "", ""]
    store = VectorStore(tmp_path, "key", 3, "here")
    assert len(store.get([f"label {number}" for number in range(2000)])) == 44


def test_an_unusable_cache_is_an_error(backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with (
        torch.inference_mode(),
        pytest.raises(ConfigError, match=r"encoder\.label_cache"),
    ):
        embedder_with_cache(backbone, tmp_path / "file")(["person"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["markerV0", "token_level"])
def test_thousands_of_labels_at_once(backbone: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor of all words, widths and labels is ever made, and the label set may be cut anywhere."""
    from gliner_pipe.modeling.span_reps import base, token_level

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
    span_rep = component.gliner.span_rep
    score, represent = span_rep.score, span_rep.represent

    def scored(words: Any, labels: Any, word_mask: Any) -> Any:
        logits = score(words, labels, word_mask)
        sizes.append(logits.numel())
        return logits

    def represented(words: Any, spans: Any, word_mask: Any) -> Any:
        sizes.append(spans.shape[0] * spans.shape[1] * len(names))
        return represent(words, spans, word_mask)

    monkeypatch.setattr(span_rep, "score", scored)
    monkeypatch.setattr(span_rep, "represent", represented)
    for module in (base, token_level):
        monkeypatch.setattr(module, "SCORES_AT_ONCE", 20_000)
    again = found(some)
    assert max(sizes) <= 20_000
    assert len(sizes) > 4
    key = lambda e: (e.start, e.end, e.label)  # noqa: E731
    assert sorted(map(key, again)) == sorted(map(key, expected))


@pytest.mark.parametrize("frozen", [True, False])
def test_caches_are_cleared_by_a_fused_optimizer(backbone: Path, frozen: bool) -> None:
    nlp = spacy.blank("en")
    config = gliner_config(backbone, threshold=0.0)
    config["model"]["encoder"] |= {
        "@encoders": "bi_encoder",
        "label_model": str(backbone),
        "label_freeze": frozen,
    }
    component = nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    doc = nlp.make_doc("Maria met Bob in Lima")
    doc.ents = [doc.char_span(0, 5, "person")]

    def scores() -> Any:
        return nlp("Maria met Bob in Lima").spans["gliner"].attrs["scores"]

    before = scores()
    network = component.network
    step = torch.optim.AdamW(
        [weight for weight in network.parameters() if weight.requires_grad], 0.002, fused=True
    )
    network.train()
    network(component.collate([Example(doc.copy(), doc)])).total.backward()
    step.step()
    after = scores()
    fresh = copy.deepcopy(network)
    fresh.encoder.label_encoder.encoder_changed()
    fresh.projected_labels.forget()
    component.replace_model(fresh)
    assert after != before
    assert after == scores()
