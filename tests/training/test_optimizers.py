from __future__ import annotations

import pytest
import torch
from torch import nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import PretrainedModule
from gliner_pipe.registry import registry
from gliner_pipe.training.muon import orthogonal
from gliner_pipe.training.optimizers import adamw, make_optimizer, parameter_groups, sgd, torch_optimizer


def groups_of(model, **options):
    groups = parameter_groups(
        {"gliner": model}, transformer_lr=1e-5, task_lr=1e-3, weight_decay=0.1, **options
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        group["name"]: (group, {names[id(parameter)] for parameter in group["params"]}) for group in groups
    }


def test_every_parameter_stands_in_one_group(nlp):
    model = nlp.get_pipe("gliner").model
    groups = groups_of(model)
    assert set(groups) == {"transformer", "transformer.no_decay", "task", "task.no_decay"}
    names = [name for _, members in groups.values() for name in members]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    for name, (group, members) in groups.items():
        assert group["lr"] == (1e-5 if name.startswith("transformer") else 1e-3)
        assert group["weight_decay"] == (0.0 if name.endswith("no_decay") else 0.1)
        for member in members:
            assert ("backbone" in member) == name.startswith("transformer"), member
            plain = "LayerNorm" in member or "norm" in member or member.split(".")[-1].startswith("bias")
            assert plain == name.endswith("no_decay"), member


def test_biases_of_an_lstm_and_norms_do_not_decay():
    model = nn.ModuleDict({"rnn": nn.LSTM(2, 2), "norm": nn.LayerNorm(2), "out": nn.Linear(2, 2)})
    groups = groups_of(model)
    assert groups["task"][1] == {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "out.weight"}
    assert groups["task.no_decay"][1] == {
        "rnn.bias_ih_l0", "rnn.bias_hh_l0", "norm.weight", "norm.bias", "out.bias"
    }  # fmt: skip


def test_frozen_parameters_are_left_out_and_shared_ones_taken_once():
    model = nn.ModuleDict({"one": nn.Linear(2, 2), "two": nn.Linear(2, 2)})
    model["two"].weight = model["one"].weight
    model["one"].bias.requires_grad_(False)
    both = parameter_groups({"a": model, "b": model}, transformer_lr=1, task_lr=1)
    assert sum(len(group["params"]) for group in both) == 2


def test_overrides(nlp):
    model = nlp.get_pipe("gliner").model
    groups = groups_of(
        model,
        overrides=[
            {"selector": r"embeddings", "freeze": True},
            {"selector": r"layer\.1\.", "lr": 7e-5, "weight_decay": 0},
        ],
    )
    names = {name for _, members in groups.values() for name in members}
    assert names and not any("embeddings" in name for name in names)
    group, members = groups[r"layer\.1\."]
    assert (group["lr"], group["weight_decay"]) == (7e-5, 0)
    assert members and all("layer.1." in member for member in members)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ({"selector": "("}, "("),
        ({"lr": 1e-3}, "selector"),
        ({"selector": "out", "learning_rate": 1}, "learning_rate"),
    ],
)
def test_invalid_overrides_fail(override, found):
    with pytest.raises(ConfigError) as caught:
        groups_of(nn.ModuleDict({"out": nn.Linear(2, 2)}), overrides=[override])
    assert caught.value.where == "train.param_groups.0" and found in caught.value.found


def test_nothing_to_train():
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ConfigError) as caught:
        groups_of(model)
    assert caught.value.where == "train.nlp"


def test_blocks_make_torch_optimizers():
    groups = parameter_groups({"m": nn.Linear(2, 2)}, transformer_lr=1, task_lr=0.5, weight_decay=0.1)
    made = make_optimizer(None, groups)
    assert isinstance(made, torch.optim.AdamW)
    assert {group["lr"] for group in made.param_groups} == {0.5} and made.defaults["fused"]
    made = make_optimizer(adamw(beta2=0.9, eps=1e-6), groups)
    assert (made.defaults["betas"], made.defaults["eps"]) == ((0.9, 0.9), 1e-6)
    assert make_optimizer(sgd(momentum=0.5), groups).defaults["momentum"] == 0.5
    assert isinstance(make_optimizer(torch_optimizer("NAdam", momentum_decay=0.1), groups), torch.optim.NAdam)
    assert isinstance(make_optimizer("sgd", groups), torch.optim.SGD)
    assert {"adamw", "sgd", "torch"} <= set(registry.optimizers.get_available())


@pytest.mark.parametrize("fused", [True, False])
def test_fused_adamw_makes_the_same_step(fused):
    torch.manual_seed(1)
    model = nn.Linear(3, 3)
    made = make_optimizer(adamw(fused=fused), groups_and(model))
    model(torch.ones(1, 3)).sum().backward()
    made.step()
    torch.manual_seed(1)
    other = nn.Linear(3, 3)
    plain = torch.optim.AdamW(other.parameters(), lr=1e-2, weight_decay=0.0)
    other(torch.ones(1, 3)).sum().backward()
    plain.step()
    assert torch.allclose(model.weight, other.weight)


def groups_and(model):
    return parameter_groups({"m": model}, transformer_lr=1e-2, task_lr=1e-2, weight_decay=0.0)


def test_invalid_optimizers_fail():
    groups = groups_and(nn.Linear(2, 2))
    for wrong, found, allowed in (
        (lambda: make_optimizer("adam", groups), "'adam'", "adamw, muon, sgd, torch"),
        (lambda: torch_optimizer("NoSuch"), "'NoSuch'", "AdamW"),
        (lambda: make_optimizer(torch_optimizer("AdamW", nesterov=True), groups), "nesterov", ""),
        (lambda: make_optimizer("torch", groups), "'torch'", "@optimizers"),
    ):
        with pytest.raises(ConfigError) as caught:
            wrong()
        assert caught.value.where == "train.optimizer"
        assert found in caught.value.found and allowed in caught.value.allowed


def test_a_selector_that_matches_nothing_only_warns():
    told = []
    groups = parameter_groups(
        {"gliner": nn.Linear(2, 2)},
        transformer_lr=1.0,
        task_lr=2.0,
        overrides=[{"selector": "nowhere"}],
        warn=told.append,
    )
    assert {group["name"] for group in groups} == {"task", "task.no_decay"}
    assert len(told) == 1 and "param_groups.0] the selector 'nowhere' matches no parameter" in told[0]


def test_everything_but_the_backbones_may_have_its_own_weight_decay():
    model = nn.ModuleDict({"pretrained": PretrainedModule(), "head": nn.Linear(2, 2)})
    model["pretrained"].inner = nn.Linear(2, 2)
    groups = parameter_groups(
        {"gliner": model}, transformer_lr=1.0, task_lr=2.0, weight_decay=0.1, task_weight_decay=0.3
    )
    decays = {group["name"]: group["weight_decay"] for group in groups}
    assert decays == {"transformer": 0.1, "transformer.no_decay": 0.0, "task": 0.3, "task.no_decay": 0.0}


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor", "NAdam", "RAdam", "RMSprop"])
def test_optimizers_by_name_lower_a_loss(name):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.ones(4, 4))
    optimizer = make_optimizer(name, [{"params": [weight], "lr": 1e-2, "weight_decay": 0.0, "name": "task"}])
    before = weight.square().sum().item()
    for _ in range(20):
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    assert weight.square().sum().item() < before


def test_a_rule_for_one_setting_leaves_the_others_as_they_are():
    model = nn.ModuleDict({"pretrained": PretrainedModule(), "head": nn.Linear(2, 2)})
    model["pretrained"].inner = nn.Linear(2, 2)
    groups = parameter_groups(
        {"gliner": model},
        transformer_lr=1.0,
        task_lr=2.0,
        weight_decay=0.1,
        overrides=[{"selector": "weight", "weight_decay": 0.5}, {"selector": "task", "lr": 9.0}],
    )
    rates = {group["name"]: (group["lr"], group["weight_decay"]) for group in groups}
    assert rates["transformer.weight"] == (1.0, 0.5) and rates["task.weight"] == (2.0, 0.5)


def test_adafactor_takes_the_learning_rate_as_it_is():
    """The first update of a small matrix has the learning rate as its root mean square, as with transformers'."""
    torch.manual_seed(0)
    weight = nn.Parameter(0.04 * torch.randn(8, 8))
    before = weight.detach().clone()
    optimizer = make_optimizer(
        "adafactor", [{"params": [weight], "lr": 1e-2, "weight_decay": 0.0, "name": "task"}]
    )
    (1e-6 * weight.pow(3)).sum().backward()
    optimizer.step()
    assert (weight.detach() - before).square().mean().sqrt().item() == pytest.approx(1e-2, rel=0.1)


def test_muon_makes_the_singular_values_of_an_update_alike():
    torch.manual_seed(0)
    for shape in ((8, 24), (24, 8)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert float(values.min()) > 0.6 and float(values.max()) < 1.3


def updated(optimizer):
    """A model after three steps that all have the same gradient."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"words": nn.Embedding(6, 4), "out": nn.Linear(4, 3)})
    gradients = {name: torch.randn_like(weight) for name, weight in model.named_parameters()}
    groups = parameter_groups({"a": model}, transformer_lr=1, task_lr=1e-2, weight_decay=0.1)
    made = make_optimizer(optimizer, groups, {"a": model})
    for _ in range(3):
        for name, weight in model.named_parameters():
            weight.grad = gradients[name].clone()
        made.step()
    return model, gradients["out.weight"]


def test_muon_updates_matrices_and_adamw_all_others():
    (model, gradient), (peer, _) = updated("muon"), updated("adamw")
    torch.testing.assert_close(model["words"].weight, peer["words"].weight)
    torch.testing.assert_close(model["out"].bias, peer["out"].bias)
    torch.manual_seed(0)
    start = nn.ModuleDict({"words": nn.Embedding(6, 4), "out": nn.Linear(4, 3)})["out"].weight.detach()
    for _ in range(3):  # the mean of equal gradients is a multiple of them
        start = start * (1 - 1e-2 * 0.1) - 1e-2 * 0.2 * 4**0.5 * orthogonal(gradient)
    torch.testing.assert_close(model["out"].weight.detach(), start, atol=5e-4, rtol=0)  # in bfloat16
