from torch import nn

from gliner_pipe.modeling.layers.cache import evaluating, modules_of


def test_all_modules_are_found():
    shared = nn.Linear(2, 2)
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU()), shared, nn.ModuleDict({"a": nn.LSTM(2, 2)}))
    model.register_module("nothing", None)
    assert set(modules_of(model)) == set(model.modules())


def test_a_nested_module_in_training_mode_is_switched():
    model = nn.Sequential(nn.Sequential(nn.Dropout(), nn.Linear(2, 2))).eval()
    model[0][0].train()
    with evaluating(model):
        assert not model[0][0].training
    assert not any(module.training for module in model.modules())
