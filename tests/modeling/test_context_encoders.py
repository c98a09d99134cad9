"""Every context encoder: GLiNER's numbers, and no number from a neighbour in the batch."""

import pytest
import torch
from confit import Config
from confit.errors import ConfitValidationError

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.context_encoders import DebertaV2, Lstm, ModernBert
from gliner_pipe.registry import registry

LOCAL = {"local_attention": 4}
CONVOLUTION = {"conv_kernel_size": 3, "conv_act": "gelu", "position_buckets": 4, "norm_rel_ebd": "layer_norm"}
#: Our arguments beside GLiNER's ``span_encoder_config``.
CASES = {
    "lstm": (Lstm, {}, {"model_type": "rnn"}),
    "lstm, deep, one way": (
        Lstm,
        {"n_layers": 2, "bidirectional": False},
        {"model_type": "rnn", "num_hidden_layers": 2, "bidirectional": False},
    ),
    "lstm, wide": (Lstm, {"width": 24}, {"model_type": "rnn", "hidden_size": 24}),
    "deberta": (DebertaV2, {}, {"model_type": "deberta-v2"}),
    "deberta, wide": (
        DebertaV2,
        {"n_layers": 2, "width": 24, "n_heads": 3},
        {"model_type": "deberta-v2", "num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 3},
    ),
    "deberta, config": (
        DebertaV2,
        {"config": {"intermediate_size": 20, "position_buckets": 4, "hidden_size": 8}},
        {"model_type": "deberta-v2", "intermediate_size": 20, "position_buckets": 4, "hidden_size": 8},
    ),
    "deberta, convolution": (DebertaV2, {"config": CONVOLUTION}, {"model_type": "deberta-v2", **CONVOLUTION}),
    "modernbert": (ModernBert, {"n_layers": 2}, {"model_type": "modernbert", "num_hidden_layers": 2}),
    "modernbert, wide": (
        ModernBert,
        {"n_layers": 4, "width": 24, "n_heads": 2, "config": LOCAL},
        {
            "model_type": "modernbert",
            "num_hidden_layers": 4,
            "hidden_size": 24,
            "num_attention_heads": 2,
            **LOCAL,
        },
    ),
}
BLOCKS = {
    **{name: (block, options) for name, (block, options, _) in CASES.items()},
    "modernbert, one layer": (ModernBert, {}),
    "modernbert, three layers": (ModernBert, {"n_layers": 3, "config": LOCAL}),
}


def built(block, options, hidden_size=16):
    torch.manual_seed(0)
    encoder = block(**options)
    encoder.build(hidden_size)
    return encoder.eval()


def ragged(n_words=9):
    torch.manual_seed(1)
    lengths = [n_words, 3, 6, 1]
    mask = torch.arange(n_words) < torch.tensor(lengths)[:, None]
    return torch.randn(4, n_words, 16), mask, lengths


def peer(config, hidden_size=16):
    theirs = pytest.importorskip("gliner.modeling.context_encoders")
    return theirs.build_context_encoder(config, input_size=hidden_size, dropout=0.4).eval()


@pytest.mark.parametrize("case", CASES)
def test_same_results_as_gliner(case):
    block, options, config = CASES[case]
    ours, theirs = built(block, options), peer(config)
    theirs.load_state_dict(ours.state_dict())
    words, mask, lengths = ragged()
    for row, n in enumerate(lengths):
        one = words[row : row + 1, :n], mask[row : row + 1, :n]
        torch.testing.assert_close(ours(*one), theirs(*one[:1], one[1].long()), rtol=1e-5, atol=1e-5)
    if (
        case != "deberta, convolution"
    ):  # the peer's convolution reads what its projections put into the padding
        words = words * mask[..., None]
        torch.testing.assert_close(ours(words, mask), theirs(words, mask.long()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_same_settings_as_gliner(case):
    """Dropout and all else that a forward pass in evaluation does not show."""
    block, options, config = CASES[case]
    ours, theirs = built(block, options).encoder, peer(config).encoder
    if isinstance(ours, torch.nn.LSTM):
        assert repr(ours) == repr(theirs)
        return
    assert [m.p for m in ours.modules() if isinstance(m, torch.nn.Dropout)] == [
        m.p for m in theirs.modules() if isinstance(m, torch.nn.Dropout)
    ]
    if hasattr(ours, "config"):
        assert ours.config.to_dict() == theirs.config.to_dict()


def test_one_layer_of_modernbert_is_the_first_of_two():
    modeling = pytest.importorskip("gliner.modeling.context_encoders")
    theirs = modeling.normalize_context_encoder_config(
        {"model_type": "modernbert", "num_hidden_layers": 2}, hidden_size=16, dropout=0.4
    )
    theirs.num_hidden_layers = 1
    theirs = peer(theirs)
    ours = built(ModernBert, {})
    theirs.load_state_dict(ours.state_dict())
    words, mask, _ = ragged()
    words = words * mask[..., None]
    torch.testing.assert_close(ours(words, mask), theirs(words, mask.long()), rtol=1e-5, atol=1e-5)
    assert len(ours.encoder.layers) == 1


@pytest.mark.parametrize("case", BLOCKS)
def test_padding_and_other_rows_have_no_effect(case):
    encoder, (words, mask, lengths) = built(*BLOCKS[case]), ragged(30)
    together = encoder(words, mask)
    assert together.shape == words.shape
    assert not together[~mask].any()
    for row, n in enumerate(lengths):
        alone = encoder(words[row : row + 1, :n], mask[row : row + 1, :n])[0]
        torch.testing.assert_close(together[row, :n], alone, rtol=1e-5, atol=1e-5)
    words[~mask] = float("nan")  # whatever stands in the padding
    torch.testing.assert_close(encoder(words, mask), together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", BLOCKS)
def test_all_that_can_be_trained_is(case):
    encoder, (words, mask, _) = built(*BLOCKS[case]), ragged(30)
    mask[3] = False  # a row without words
    encoder(words, mask)[mask].square().sum().backward()
    for name, parameter in encoder.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    frozen = [name for name, parameter in encoder.named_parameters() if not parameter.requires_grad]
    modern = ["encoder.embeddings.tok_embeddings.weight"]
    assert frozen == (modern if isinstance(encoder, ModernBert) else [])


@pytest.mark.parametrize("name", ["lstm", "deberta-v2", "modernbert"])
def test_created_from_a_config_section(name):
    section = {"@context_encoders": name, "n_layers": 2, "width": 8, "dropout": 0.0}
    encoder = Config({"x": section}).resolve(registry=registry)["x"]
    assert not list(encoder.parameters())
    encoder.build(16)
    assert encoder.input_projection.out_features == 8
    assert Config.serialize({"x": encoder})["x"] == section
    with pytest.raises(ConfitValidationError, match="n_layers"):
        Config({"x": {**section, "n_layers": 0}}).resolve(registry=registry)


def test_invalid_settings_are_rejected():
    with pytest.raises(ConfigError) as error:
        Lstm(width=5).build(16)
    assert error.value.where == "components.*.model.context.width"
    for block in (DebertaV2, ModernBert):
        with pytest.raises(ConfigError) as error:
            block(n_heads=3).build(16)
        assert error.value.where == "components.*.model.context.n_heads"


@pytest.mark.parametrize("width,heads", [(16, 1), (128, 2), (100, 1), (768, 12), (200, 2)])
def test_heads_fit_the_width(width, heads):
    assert DebertaV2().settings(width)["num_attention_heads"] == heads
