import random
from types import SimpleNamespace

import pytest
import torch

from gliner_pipe.errors import CheckpointError
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.batch import TrainingBatch
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.inference import TokenBudget, plan, predict_spans
from gliner_pipe.modeling.losses.focal import FocalLoss
from gliner_pipe.modeling.span_reps.base import valid_spans
from gliner_pipe.modeling.span_reps.marker import MarkerV0

LABELS = ["person", "city"]
TEXTS = [
    ["Maria", "met", "Bob", "in", "Oslo", "."],
    ["Hi"],
    ["the", "city", "of", "Lima", "\u200b", "and", "Ana", "Silva"] * 3,
]


def build(folder, width=3, **settings):
    torch.manual_seed(0)
    backbone = Transformer(str(folder), **settings)
    model = GLiNER(UniEncoder(backbone), MarkerV0(width, dropout=0.0), FocalLoss(), dropout=0.0)
    model.build()
    return model.eval()


def scores(model, texts, budget=4000):
    """Every span of every text with its score, as a mapping."""
    windows = model.encoder.prepare(texts, [Query(tuple(LABELS))] * len(texts), model.min_overlap)
    found = predict_spans(model, windows, [[0.0, 0.0]] * len(texts), TokenBudget(budget))
    return [{candidate[:3]: candidate.score for candidate in text.candidates} for text in found]


def close(ours, theirs):
    assert ours.keys() == theirs.keys()
    return max((abs(ours[key] - theirs[key]) for key in ours), default=0.0) < 1e-5


def test_every_span_that_can_be_is_scored_once(backbone):
    (text,) = scores(build(backbone), [TEXTS[0]])
    assert set(text) == {(i, i + k, c) for i in range(6) for k in range(3) if i + k < 6 for c in range(2)}


def test_no_span_starts_or_ends_at_a_word_without_subword_tokens(backbone):
    (text,) = scores(build(backbone), [["Ana", "\u200b", "Silva"]])
    assert {key[:2] for key in text} == {(0, 0), (2, 2), (0, 2)}


def test_other_rows_and_budgets_change_no_score(backbone):
    model = build(backbone)
    alone = [scores(model, [text])[0] for text in TEXTS]
    for budget in (1, 50, 4000):
        together = scores(model, TEXTS, budget)
        assert all(close(a, b) for a, b in zip(alone, together, strict=True))


def test_empty_texts_keep_their_place(backbone):
    model = build(backbone)
    found = scores(model, [[], TEXTS[0], []])
    assert (found[0], found[2]) == ({}, {})
    assert close(found[1], scores(model, [TEXTS[0]])[0])


def test_windows_on_or_off_give_the_same_bits_where_a_text_fits(backbone):
    on = scores(build(backbone, window=64, stride=32), [TEXTS[0]])
    off = scores(build(backbone, window=500, stride=500), [TEXTS[0]])
    assert on == off


def test_a_long_text_has_each_span_once_whatever_the_windows(backbone):
    text = TEXTS[2] * 30
    found = scores(build(backbone, window=48, stride=30), [text])[0]
    n_words = len(text)
    has_pieces = [word != "\u200b" for word in text]
    expected = {
        (i, i + k, c)
        for i in range(n_words)
        for k in range(3)
        if i + k < n_words and has_pieces[i] and has_pieces[i + k]
        for c in range(2)
    }
    assert set(found) == expected


def test_a_span_in_a_long_text_scores_as_in_its_window_alone(backbone):
    model = build(backbone, window=48, stride=30)
    text = TEXTS[2] * 10
    windows = model.encoder.prepare([text], [Query(tuple(LABELS))], model.min_overlap)
    assert len(windows) > 4
    whole = scores(model, [text])[0]
    for window in windows:
        part = scores(model, [text[window.start : window.stop]])[0]
        for (start, end, label), score in part.items():
            if window.own_start <= start + window.start < window.own_stop:
                assert abs(whole[start + window.start, end + window.start, label] - score) < 1e-5


def test_a_text_without_labels_has_no_spans(backbone):
    model = build(backbone)
    windows = model.encoder.prepare(TEXTS[:2], [Query(()), Query(tuple(LABELS))], model.min_overlap)
    found = predict_spans(model, windows, [[], [0.0, 0.0]], TokenBudget(1000))
    assert found[0].candidates == []
    assert len(found[1].candidates) == 2


def test_thresholds_are_by_label_and_strict(backbone):
    model = build(backbone)
    table = scores(model, [TEXTS[0]])[0]
    some = sorted(table.values())[len(table) // 2]
    windows = model.encoder.prepare([TEXTS[0]], [Query(tuple(LABELS))], model.min_overlap)
    (found,) = predict_spans(model, windows, [[some, 1.0]], TokenBudget(1000))
    assert {c[:3] for c in found.candidates} == {
        key for key, score in table.items() if key[2] == 0 and score > some
    }


def test_plans_hold_every_window_within_the_budget():
    prompt = SimpleNamespace(n_labels=2)
    windows = [SimpleNamespace(n_pieces=n, prompt=prompt) for n in [5, 90, 3, 40, 41, 7, 100, 100]]
    groups = list(plan(windows, 100))
    assert sorted(index for group in groups for index in group) == list(range(8))
    for group in groups:
        padded = max(windows[index].n_pieces for index in group) * len(group)
        assert padded <= 100 or len(group) == 1


def test_windows_of_one_prompt_go_together():
    """A group never holds few labels beside many, and two prompts only where neither fills a group."""
    few, some, many = (SimpleNamespace(n_labels=n) for n in (3, 2, 500))
    windows = [
        SimpleNamespace(n_pieces=10, prompt=prompt) for prompt in [few, many, some, few] * 25 + [few, many]
    ]
    groups = [[windows[index].prompt for index in group] for group in plan(windows, 100)]
    assert sorted(index for group in plan(windows, 100) for index in group) == list(range(len(windows)))
    assert all(len(group) <= 10 for group in groups)
    assert all(len({prompt.n_labels.bit_length() for prompt in group}) == 1 for group in groups)
    mixed = [group for group in groups if len({id(prompt) for prompt in group}) > 1]
    assert len(mixed) == 1  # 51 of few and 25 of some: one and five windows are left over


def test_the_budget_is_halved_when_memory_runs_out(backbone, monkeypatch, caplog):
    model = build(backbone)
    expected = scores(model, TEXTS)
    real = GLiNER.encode

    def short_of_memory(self, batch):
        if batch.windows.input_ids.shape[0] > 1:
            raise torch.cuda.OutOfMemoryError("no memory")
        return real(self, batch)

    monkeypatch.setattr(GLiNER, "encode", short_of_memory)
    found = scores(model, TEXTS)
    assert all(close(a, b) for a, b in zip(expected, found, strict=True))
    assert "Out of device memory" in caplog.text


def test_a_group_that_runs_out_of_memory_late_counts_once(backbone, monkeypatch):
    model = build(backbone)
    expected = scores(model, TEXTS)
    model.span_rep.needs_vectors = True
    real = type(model.span_rep).represent

    def short_of_memory(self, words, spans, word_mask):
        if len(words) > 1:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
        return real(self, words, spans, word_mask)

    monkeypatch.setattr(type(model.span_rep), "represent", short_of_memory)
    windows = model.encoder.prepare(TEXTS, [Query(tuple(LABELS))] * len(TEXTS), model.min_overlap)
    found = predict_spans(model, windows, [[0.0, 0.0]] * len(TEXTS), TokenBudget(10_000))
    assert [len(one.candidates) for one in found] == [len(one) for one in expected]


def test_prediction_restores_the_training_mode(backbone):
    model = build(backbone).train()
    scores(model, TEXTS)
    assert model.training


def training_batch(model, texts, gold):
    windows = model.encoder.prepare(texts, [Query(tuple(LABELS))] * len(texts), model.min_overlap)
    inputs = model.encoder.collate(windows)
    count = float(valid_spans(inputs.windows, model.max_width).sum())
    return TrainingBatch(inputs, torch.tensor(gold).view(-1, 4), 0, 0, count)


def test_a_loss_is_the_sum_of_the_losses_of_its_texts(backbone):
    model = build(backbone)
    whole = training_batch(model, TEXTS[:2], [[0, 0, 0, 0], [0, 4, 0, 1], [1, 0, 0, 0]])
    first = training_batch(model, TEXTS[:1], [[0, 0, 0, 0], [0, 4, 0, 1]])
    second = training_batch(model, TEXTS[1:2], [[0, 0, 0, 0]])
    total = model(first).total + model(second).total
    torch.testing.assert_close(model(whole).total, total, rtol=1e-5, atol=1e-5)
    assert whole.count == first.count + second.count


def test_training_fits_the_examples(backbone):
    model = build(backbone).train()
    rng = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = training_batch(model, TEXTS[:2], [[0, 0, 0, 0], [0, 2, 0, 0], [0, 4, 0, 1]])
    first = float(model(batch).total.detach())
    for _ in range(60):
        optimizer.zero_grad()
        model(batch).total.backward()
        optimizer.step()
    assert float(model(batch).total.detach()) < first / 10
    table = scores(model, [TEXTS[0]])[0]
    assert {key for key, score in table.items() if score > 0.5} == {(0, 0, 0), (2, 2, 0), (4, 4, 1)}
    del rng


def test_saved_and_loaded_scores_are_the_same_bits(backbone, tmp_path):
    model = build(backbone)
    model.save(tmp_path / "m")
    again = GLiNER(UniEncoder(Transformer("gone/away")), MarkerV0(3), FocalLoss())
    again.load(tmp_path / "m")
    assert scores(model, TEXTS) == scores(again.eval(), TEXTS)


def test_weights_of_other_blocks_are_rejected_by_name(backbone, tmp_path):
    build(backbone).save(tmp_path / "m")
    other = GLiNER(UniEncoder(Transformer("gone/away"), rnn_layers=0), MarkerV0(3), FocalLoss())
    with pytest.raises(CheckpointError, match=r"encoder\.rnn\.lstm"):
        other.load(tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        other.load(tmp_path)
