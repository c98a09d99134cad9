"""Bi-encoders of the `gliner` package give the same scores and entities here."""

from __future__ import annotations

import pytest
import spacy
import torch
from checkpoint_parity import (
    CLOSE,
    LABELS,
    TEXTS,
    backbone,
    bi_settings,
    cases,
    check,
    check_case,
    load,
    make_peer,
    our_entities,
    prepare_peer,
    save,
    score,
    their_entities,
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("case", [*cases("bi", token=False), *cases("bi", token=True)])
def test_combinations_of_options(tmp_path, case):
    check_case(case, tmp_path)


@pytest.mark.parametrize("span_mode", ["markerV0", "token_level"])
@pytest.mark.parametrize(
    ("schema", "depth"),
    [("l2l", 1), ("t2t", 2), ("l2t", 1), ("t2l", 2), ("l2l-l2t-t2t-t2l", 1), ("t2l-l2t-t2l", 2)],
)
def test_fusions(tmp_path, span_mode, schema, depth):
    settings = {"post_fusion_schema": schema, "num_post_fusion_layers": depth}
    model = make_peer(span_mode=span_mode, **settings, **bi_settings())
    check(model, load(save(model, tmp_path)))


@pytest.mark.parametrize("kind", ["bert", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("width", [24, 32])
def test_kinds_and_widths_of_labels_encoders(tmp_path, kind, width):
    model = make_peer(**bi_settings(kind, width))
    check(model, load(save(model, tmp_path)))


@pytest.mark.parametrize("schema", ["", "l2l-l2t-t2l"])
def test_each_text_with_labels_of_its_own(tmp_path, schema):
    model = make_peer(post_fusion_schema=schema, **bi_settings())
    component = load(save(model, tmp_path))
    sets = [["person", "place"], ["date"], ["artwork", "place", "very long label", "person"]]
    options = {"threshold": 0.4, "flat_ner": False, "multi_label": True}
    wanted = their_entities(model, TEXTS, sets, together=True, **options)
    docs = []
    nlp = spacy.blank("en")
    for text, labels in zip(TEXTS, sets, strict=True):
        docs.append(nlp.make_doc(text))
        docs[-1]._.gliner_labels = labels
    component.cfg = {**component.cfg, **options}
    assert sum(map(len, wanted)) > 5
    for doc, prediction, expected in zip(docs, component.predict(docs), wanted, strict=True):
        offsets = component.word_splitter.split(doc).offsets
        found = {(offsets[e.start][0], offsets[e.end][1], e.label): e.score for e in prediction.entities}
        assert found == pytest.approx(expected, abs=CLOSE)


def test_vectors_of_labels(tmp_path):
    model = make_peer(**bi_settings())
    component = load(save(model, tmp_path))
    labels = [*LABELS, "a label of a good many words, all told"]
    model.data_processor.labels_tokenizer.model_max_length = 32  # GLiNER pads each label to it
    with torch.inference_mode():
        ours = component.gliner.eval().encoder.encode_labels(labels)
    assert torch.allclose(ours, model.encode_labels(labels), atol=1e-5)


def test_a_labels_encoder_named_without_its_configuration(tmp_path):
    """Checkpoints from before it was written along."""
    model = make_peer(**bi_settings(saved=False))
    folder = save(model, tmp_path, changes={"labels_encoder_config": None})
    check(model, load(folder))


def test_fused_layers_of_the_labels_encoder_do_not_depend_on_the_labels_beside(tmp_path):
    """GLiNER 0.2.29 fault: they do there, as far as labels differ in length; each by itself comes out right."""
    model = make_peer(fuse_layers=True, **bi_settings())
    component = load(save(model, tmp_path))
    labels = ["person", "a label of a good many words, all told"]
    words, ours = score(component, TEXTS[:1], labels)
    with torch.inference_mode():
        for at, label in enumerate(labels):
            alone = model.model(**prepare_peer(model, TEXTS[:1], [label])).logits[..., 0]
            valid = torch.arange(len(words[0]))[:, None] + torch.arange(4) < len(words[0])
            assert float((alone - ours[..., at]).abs()[0][valid].max()) < CLOSE


def test_special_tokens_in_a_text_are_read_as_text(tmp_path):
    """GLiNER 0.2.29 fault: its tokenizer knows them, its weights do not, and such a text fails."""
    model = make_peer(**bi_settings())
    component = load(save(model, tmp_path))
    tokenizer = component.gliner.encoder.backbone.tokenizer
    assert len(tokenizer) == component.gliner.encoder.backbone.encoder.config.vocab_size
    words, logits = score(component, ["Ana met <<ENT>> in [FLERT] Lima"])
    assert logits.isfinite().all() and len(words[0]) > 5
    assert tokenizer.tokenize("Ana lives") == model.data_processor.transformer_tokenizer.tokenize("Ana lives")


def test_the_labels_encoder_keeps_its_own_tokenizer(tmp_path):
    """It is read from labels_tokenizer/, else from the model it names."""
    from transformers import AutoTokenizer

    model = make_peer(**bi_settings(hidden_size=16))
    folder = save(model, tmp_path)
    own = AutoTokenizer.from_pretrained(folder / "labels_tokenizer")
    own.backend_tokenizer.post_processor = None  # no [CLS] and [SEP]: other vectors
    own.save_pretrained(folder / "labels_tokenizer")
    texts = TEXTS[:1]
    _, without = score(load(folder), texts)
    (folder / "labels_tokenizer" / "tokenizer.json").write_bytes(
        (backbone("bert", 16) / "tokenizer.json").read_bytes()
    )
    _, with_specials = score(load(folder), texts)
    assert float((without - with_specials).abs().max()) > 1e-3
    assert our_entities(load(folder), texts, threshold=0.4) == [
        pytest.approx(found, abs=CLOSE) for found in their_entities(model, texts, threshold=0.4)
    ]
