import logging
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import make_backbone

from gliner_pipe.errors import ConfigError, NotInitializedError
from gliner_pipe.modeling.backbones.base import Pieces, Prompt
from gliner_pipe.modeling.backbones.transformer import Transformer

EMPTY = Prompt(np.zeros(0, np.int64), np.zeros(0, np.int64))
WORDS = ["Maria", "Lindqvist", "met", "\u200b", "Bob", "in", "Oslo", "."]


def build(folder, **settings):
    torch.manual_seed(0)
    backbone = Transformer(str(folder), **settings)
    backbone.build()
    return backbone.eval()


def run(backbone, texts, prompt=EMPTY, min_overlap=4):
    windows = backbone.windows(backbone.tokenize(texts), [prompt] * len(texts), min_overlap)
    with torch.no_grad():
        return windows, backbone(backbone.collate(windows))


def test_words_have_the_vectors_of_their_first_subword_token(backbone):
    model = build(backbone)
    _, output = run(model, [WORDS])
    joint = model.tokenizer(WORDS, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model.encoder(input_ids=joint["input_ids"], attention_mask=joint["attention_mask"])[0][0]
    places = joint.word_ids()
    for index, _ in enumerate(WORDS):
        if index == 3:
            assert not output.words[0, index].any()
        else:
            torch.testing.assert_close(output.words[0, index], hidden[places.index(index)])


def test_a_word_without_subword_tokens_shifts_nothing(backbone):
    model = build(backbone)
    without = [word for word in WORDS if word != "\u200b"]
    _, (with_words, _) = run(model, [WORDS])
    _, (without_words, _) = run(model, [without])
    kept = [index for index, word in enumerate(WORDS) if word != "\u200b"]
    torch.testing.assert_close(with_words[0, kept], without_words[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", ["first", "last", "mean", "max"])
@pytest.mark.parametrize("fuse_layers", [False, True])
def test_other_texts_in_the_batch_change_nothing(backbone, pooling, fuse_layers):
    model = build(backbone, pooling=pooling, fuse_layers=fuse_layers)
    _, (alone, _) = run(model, [WORDS])
    _, (together, _) = run(model, [["Hi"], WORDS, WORDS * 9])
    torch.testing.assert_close(together[1, : len(WORDS)], alone[0], rtol=0, atol=1e-5)


def test_a_text_in_one_window_does_not_depend_on_the_window(backbone):
    text = WORDS * 4
    _, (small, _) = run(build(backbone, window=100, stride=50), [text])
    _, (large, _) = run(build(backbone, window=400, stride=300), [text])
    assert torch.equal(small, large)


def test_windows_cover_a_long_text(backbone):
    model = build(backbone, window=64, stride=40)
    windows, output = run(model, [WORDS * 50])
    assert len(windows) > 5
    assert [w.own_start for w in windows[1:]] == [w.own_stop for w in windows[:-1]]
    assert windows[-1].own_stop == len(WORDS) * 50
    assert output.words.shape[0] == len(windows)


def test_no_overlap_in_training_without_training_stride(backbone):
    model = build(backbone, window=64, stride=32, training_stride=False)
    pieces = model.tokenize([WORDS * 50])
    counts = {
        (mode, training): len(model.train(mode).windows(pieces, [EMPTY], 8, training=training))
        for mode in (True, False)
        for training in (True, False)
    }
    assert counts[True, True] == counts[False, True] < counts[True, False] == counts[False, False]


def test_a_word_longer_than_a_window_is_truncated_and_counted(backbone):
    model = build(backbone, window=16, stride=8)
    report: Counter[str] = Counter()
    pieces = [Pieces(np.arange(5, 45), np.array([1, 38, 1]))]
    windows = model.windows(pieces, [EMPTY], 2, report)
    assert sum(report.values()) == 1
    assert all(len(window.ids) <= 16 for window in windows)
    assert windows[-1].stop == 3


def test_prompt_vectors_are_taken_at_its_positions(backbone):
    model = build(backbone)
    prompt = Prompt(np.array([20, 21, 22]), np.array([0, 2]))
    windows, output = run(model, [["Oslo"], ["a", "b", "c"]], prompt)
    batch = model.collate(windows)
    with torch.no_grad():
        hidden = model.encoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask)[0]
    torch.testing.assert_close(output.prompt, hidden[:, [1, 3]])


def test_a_prompt_without_room_for_text_is_refused(backbone):
    model = build(backbone)
    prompt = Prompt(np.full(500, 7), np.array([0]))
    with pytest.raises(ConfigError) as error:
        run(model, [WORDS], prompt)
    assert error.value.where.endswith("backbone.window")
    assert "500" in error.value.found and "512" in error.value.found


def test_a_long_prompt_reduces_windows_with_a_warning(backbone, caplog):
    model = build(backbone)
    prompt = Prompt(np.full(300, 7), np.array([0]))
    with caplog.at_level(logging.WARNING):
        windows, _ = run(model, [WORDS * 100], prompt)
    assert all(w.n_pieces + 2 <= 512 for w in windows)
    assert "300 of 512" in caplog.text


@pytest.mark.parametrize(
    ("settings", "option", "found"),
    [
        ({"window": 511, "stride": 100}, "window", "511"),
        ({"window": 8, "stride": 4}, "window", "8"),
        ({"window": 100, "stride": 101}, "stride", "101"),
        ({"window": 100, "stride": 0}, "stride", "0"),
    ],
)
def test_wrong_windows_are_refused(backbone, settings, option, found):
    with pytest.raises(ConfigError) as error:
        build(backbone, **settings)
    assert error.value.where.endswith(f"backbone.{option}") and f"found {found}" in error.value.found


def test_unknown_models_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    for model in (tmp_path, "./nowhere/at/all"):
        with pytest.raises(ConfigError) as error:
            build(model)
        assert error.value.where.endswith("backbone.model") and str(model) in error.value.found


def test_nothing_is_loaded_before_build():
    with pytest.raises(NotInitializedError):
        _ = Transformer("no/such-model").output_size


def test_a_frozen_encoder_is_not_trained(backbone):
    model = build(backbone, freeze=True, hidden_size=16).train()
    assert not model.encoder.training
    windows = model.windows(model.tokenize([WORDS]), [EMPTY], 2)
    model(model.collate(windows)).words.sum().backward()
    assert all(p.grad is None for p in model.encoder.parameters())
    assert model.projection.weight.grad.abs().sum() > 0


def test_gradient_checkpointing_gives_the_same_gradients(backbone):
    grads = []
    for checkpointing in (False, True):
        model = build(backbone, gradient_checkpointing=checkpointing)
        if checkpointing:
            model.encoder.train()
            for module in model.encoder.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.0
        windows = model.windows(model.tokenize([WORDS]), [EMPTY], 2)
        model(model.collate(windows)).words.square().sum().backward()
        grads.append(model.encoder.get_input_embeddings().weight.grad)
    torch.testing.assert_close(*grads)


def test_bf16_gives_fp32_vectors_close_to_fp32(backbone):
    _, (full, _) = run(build(backbone), [WORDS])
    _, (half, _) = run(build(backbone, dtype="bf16"), [WORDS])
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, rtol=0, atol=0.1)
    assert not torch.equal(half, full)


@pytest.mark.parametrize("kind", ["deberta-v2", "modernbert"])
def test_other_encoders(tmp_path, kind):
    model = build(make_backbone(tmp_path, kind))
    _, (alone, _) = run(model, [WORDS])
    _, (together, _) = run(model, [WORDS, WORDS * 5])
    torch.testing.assert_close(together[0, : len(WORDS)], alone[0], rtol=0, atol=1e-5)


def test_relative_positions_have_no_limit(tmp_path):
    assert build(make_backbone(tmp_path, "deberta-v2"), window=2000, stride=1500).limit is None


def test_saved_assets_restore_the_module_without_the_source(backbone, tmp_path):
    model = build(backbone, hidden_size=24)
    model.save_assets(tmp_path)
    again = Transformer("gone/away", hidden_size=24)
    again.load_assets(tmp_path)
    again.load_state_dict(model.state_dict())
    assert torch.equal(run(model, [WORDS])[1].words, run(again.eval(), [WORDS])[1].words)
