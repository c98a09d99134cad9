"""A frozen backbone reads each text once, and nothing else is different."""

from __future__ import annotations

import confit
import pytest
import torch

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import frozen_backbones
from gliner_pipe.modeling.backbones.feature_cache import FeatureCache
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from gliner_pipe.training.feature_cache import parse_bytes
from tests.training.conftest import weights

#: Adam would blow up rounding where gradients are nearly zero.
PLAIN = {"optimizer": "sgd", "max_grad_norm": 0.1, "task_lr": 0.1, "max_steps": 20, "validation_interval": 10}


def options(config_path, **changes):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    return {**resolved["train"], "loggers": [], "freeze_components": ["text_encoder"], **changes}


@pytest.fixture
def rows_read(monkeypatch):
    """Counts the windows that transformers read."""
    counts = []
    forward = Transformer.forward

    def counted(self, batch):
        counts.append(len(batch.input_ids))
        return forward(self, batch)

    monkeypatch.setattr(Transformer, "forward", counted)
    return counts


@pytest.mark.parametrize("num_workers", [0, 1])
def test_each_window_is_read_once_and_the_weights_are_the_same(config_path, rows_read, capsys, num_workers):
    plain = weights(train(**options(config_path, feature_cache=False, **PLAIN)))
    without = sum(rows_read)
    rows_read.clear()
    nlp = train(**options(config_path, num_workers=num_workers, **PLAIN))
    kept = weights(nlp)
    assert sum(rows_read) <= 84 < without  # 64 texts to learn from and 20 to measure on, some of them alike
    for name, value in plain.items():
        assert torch.allclose(kept[name], value, atol=1e-6), name
    assert "feature cache: " in capsys.readouterr().out
    assert all(backbone.features is None for backbone in frozen_backbones(nlp.get_pipe("gliner").model))


def test_a_cached_training_resumes_bit_for_bit(config_path, tmp_path):
    class StopError(Exception):
        pass

    def stop(record):
        if record["step"] == 4:
            raise StopError

    whole = weights(train(**options(config_path, max_steps=8, output_path=tmp_path / "whole" / "last")))
    with pytest.raises(StopError):
        train(**options(config_path, max_steps=8, validation_interval=2, on_validation_callback=stop))
    given = {"max_steps": 8, "validation_interval": 2, "resume_from_checkpoint": "auto"}
    went_on = weights(train(**options(config_path, **given)))
    assert all(torch.equal(value, went_on[name]) for name, value in whole.items())


def test_changing_prompts_are_cached_only_if_set(config_path, rows_read):
    given = options(config_path, max_steps=10)
    given["nlp"]["components"]["gliner"]["label_sampling"] = {"all_labels": True, "shuffle": True}
    train(**{**given, "feature_cache": False})
    without = sum(rows_read)
    rows_read.clear()
    train(**given)
    assert sum(rows_read) == without
    rows_read.clear()
    train(**{**given, "feature_cache": "1 MB"})
    assert sum(rows_read) < without


def test_a_cache_without_a_frozen_backbone_fails(config_path):
    with pytest.raises(ConfigError, match=r"train.feature_cache\] is True"):
        train(**options(config_path, feature_cache=True, freeze_components=[]))
    with pytest.raises(ConfigError, match=r'train.feature_cache\] is .2 apples.; allowed: .*"2 GB"'):
        train(**options(config_path, feature_cache="2 apples"))


@pytest.mark.parametrize(
    ("text", "size"), [("2 GB", 2 * 10**9), ("1.5kb", 1500), ("300 MiB", 300 * 2**20), ("7 B", 7)]
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.fixture
def model(backbone):
    model = Transformer(str(backbone), window=16, stride=8, freeze=True)
    torch.manual_seed(0)
    model.build()
    return model.train()


def batch_of(model, texts):
    from gliner_pipe.modeling.backbones.base import Prompt

    pieces = model.tokenize([text.split() for text in texts])
    (prompt,) = model.tokenize([["person", "city"]])
    prompts = [Prompt(prompt.ids, prompt.counts.cumsum() - prompt.counts)] * len(texts)
    return model.collate(model.windows(pieces, prompts, 2))


def test_the_same_bits_whatever_the_batch(model):
    model.features = FeatureCache(10**9)
    batch = batch_of(
        model, ["Ann lives in Oslo", "a much longer text about Ann who lives in Lima", "Ann slept"]
    )
    first = model.vectors(batch)
    plain = model(batch)
    torch.testing.assert_close(first.words, plain.words)
    torch.testing.assert_close(first.prompt, plain.prompt)
    assert first.words.shape == plain.words.shape and not first.words.requires_grad
    other = model.vectors(batch_of(model, ["Ann slept", "Ann slept"]))
    assert torch.equal(other.words[1], first.words[2, :2]) and torch.equal(other.prompt[0], first.prompt[2])
    assert (model.features.asked, model.features.found, len(model.features)) == (5, 2, 3)


def test_other_words_of_the_same_pieces_are_other_windows(model):
    model.features = FeatureCache(10**9)
    one, two = batch_of(model, ["Oslo"]), batch_of(model, ["Oslo \u200b"])
    assert torch.equal(one.input_ids, two.input_ids)
    assert model.vectors(one).words.shape[1] == 1 and model.vectors(two).words.shape[1] == 2


def test_new_weights_are_new_vectors(model):
    model.features = FeatureCache(10**9)
    batch = batch_of(model, ["Ann lives in Oslo"])
    before = model.vectors(batch).words
    with torch.no_grad():
        model.encoder.get_input_embeddings().weight.mul_(2.0)
    after = model.vectors(batch).words
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, model(batch).words)


def test_other_precision_is_another_vector(model):
    model.features = FeatureCache(10**9)
    batch = batch_of(model, ["Ann lives in Oslo"])
    exact = model.vectors(batch).words
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.vectors(batch).words
        torch.testing.assert_close(rounded, model(batch).words)
    assert not torch.equal(rounded, exact)
    assert torch.equal(model.vectors(batch).words, exact)


def test_trained_backbones_and_dropout_are_not_cached(model, backbone):
    model.features = FeatureCache(10**9)
    batch = batch_of(model, ["Ann lives in Oslo"])
    model.encoder.train()
    assert not torch.equal(model.vectors(batch).words, model.vectors(batch).words)
    model.train()
    next(model.encoder.parameters()).requires_grad_(True)
    model.vectors(batch)
    assert model.features.asked == 0


def test_a_full_cache_keeps_its_entries(model):
    batch = batch_of(model, ["Ann lives in Oslo", "Ann slept"])
    model.features = FeatureCache(model.vectors(batch_of(model, ["Ann slept"])).words.nbytes * 3)
    for _ in range(3):
        torch.testing.assert_close(model.vectors(batch).words, model(batch).words)
    assert len(model.features) == 1 and model.features.bytes <= model.features.most_bytes
    assert model.features.describe().endswith("not all windows fit")
