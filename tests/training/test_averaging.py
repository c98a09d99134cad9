from __future__ import annotations

import confit
import pytest
import spacy
import torch
from torch import nn

from gliner_pipe.registry import registry
from gliner_pipe.train import train
from gliner_pipe.training.averaging import Anchor, WeightAverage
from tests.training.conftest import weights


def options(config_path, **changes):
    resolved = confit.Config.from_disk(config_path, resolve=True, registry=registry)
    return {**resolved["train"], "loggers": [], **changes}


def test_the_ema_follows_the_formula_and_is_swapped_out_again():
    weight = nn.Parameter(torch.zeros(3))
    average = WeightAverage([weight], 0.9)
    expected, values = torch.zeros(3), []
    for number in range(1, 200):
        with torch.no_grad():
            weight += 1
        average.update()
        keep = min(0.9, (1 + number) / (10 + number))
        expected = keep * expected + (1 - keep) * number
        values.append(expected)
    torch.testing.assert_close(average.average[0], expected, rtol=1e-5, atol=1e-5)
    with average.applied():
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-5)
    assert weight.tolist() == [199.0] * 3
    other = WeightAverage([nn.Parameter(torch.zeros(3))], 0.9)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.average[0], average.average[0]) and other.steps == 199


def test_the_anchor_pulls_back_by_the_learning_rate():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    anchor = Anchor([weight], 10.0)
    with torch.no_grad():
        weight += 1.0
    anchor.pull([{"params": [weight], "lr": 0.01}])
    torch.testing.assert_close(weight.detach(), torch.tensor([1.9, 2.9]))
    anchor.pull([{"params": [weight], "lr": 1.0}])  # never beyond the start
    torch.testing.assert_close(weight.detach(), torch.tensor([1.0, 2.0]))


def test_the_ema_is_validated_and_saved(config_path, tmp_path):
    seen = []
    nlp = train(
        **options(
            config_path, max_steps=6, ema_decay=0.5, on_validation_callback=lambda record: seen.append(record)
        )
    )
    plain = train(**options(config_path, max_steps=6, output_path=tmp_path / "plain" / "model-last"))
    learned, without = weights(nlp), weights(plain)
    # the average changes nothing in what is learned ...
    assert all(torch.equal(learned[name], value) for name, value in without.items())
    # ... and is what is on disk
    saved = weights(spacy.load(tmp_path / "out" / "model-last"))
    assert any(not torch.equal(saved[name], value) for name, value in learned.items())
    distance = sum(
        (saved[name] - value).abs().sum() for name, value in learned.items() if value.is_floating_point()
    )
    started = weights(train(**options(config_path, max_steps=1, task_lr=0.0, transformer_lr=0.0)))
    whole = sum(
        (started[name] - value).abs().sum() for name, value in learned.items() if value.is_floating_point()
    )
    assert 0 < distance < whole


def test_a_strong_anchor_holds_the_weights(config_path):
    def moved(**changes):
        nlp = train(**options(config_path, max_steps=8, schedule="constant", **changes))
        return sum(
            (value - start[name]).abs().sum().item()
            for name, value in weights(nlp).items()
            if value.is_floating_point()
        )

    start = weights(train(**options(config_path, max_steps=1, task_lr=0.0, transformer_lr=0.0)))
    free, held = moved(), moved(start_decay=300.0)
    assert held == pytest.approx(0, abs=0.5 * free) and held > 0
