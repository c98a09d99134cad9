"""The fast attention has the results of that of `transformers`, in every configuration and state of the weights."""

import copy
import importlib.util
import pickle

import numpy as np
import pytest
import torch
from conftest import kept_in, make_backbone
from torch import nn

from gliner_pipe.modeling.backbones import pretrained_encoder
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.layers import deberta as deberta_layer
from gliner_pipe.modeling.layers import disentangled_attention
from gliner_pipe.modeling.layers.deberta import DisentangledAttention, DisentangledEncoder, replace_attention
from gliner_pipe.modeling.layers.linear import take_linears

LENGTHS = (1, 2, 7, 64, 300)  # beyond the buckets and beyond the positions


def make(dropout=0.0, **changes):
    from transformers import DebertaV2Config, DebertaV2Model

    settings = {
        "vocab_size": 50,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 32,
        "relative_attention": True,
        "position_buckets": 32,
        "max_relative_positions": -1,
        "max_position_embeddings": 128,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "initializer_range": 0.3,  # far from uniform attention
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }
    model = DebertaV2Model(DebertaV2Config(**{**settings, **changes})).eval()
    for (
        name,
        parameter,
    ) in model.named_parameters():  # biases and norms that are zero and one would hide mistakes
        if parameter.dim() == 1:
            nn.init.normal_(parameter, 1.0 if "LayerNorm.weight" in name else 0.0, 0.3)
    return model


def pair(**changes):
    theirs = make(**changes)
    ours = copy.deepcopy(theirs)
    assert replace_attention(ours) == 1
    return theirs, ours


def batch(length, padded=True):
    ids = torch.randint(1, 50, (3, length))
    mask = torch.ones(3, length, dtype=torch.long)
    if padded:
        mask[1, (length + 1) // 2 :] = 0
        mask[2] = 0  # nothing but padding
    return {"input_ids": ids, "attention_mask": mask}


def hidden(model, inputs):
    with torch.no_grad():
        return model(**inputs).last_hidden_state


def same(model, other, inputs, within=1e-5):
    found, expected = hidden(model, inputs).float(), hidden(other, inputs).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=within * float(expected.abs().max()))


GRID = [
    {},
    {"share_att_key": False},
    {"pos_att_type": ["c2p"]},
    {"pos_att_type": ["p2c"], "share_att_key": False},
    {"pos_att_type": []},
    {"position_buckets": -1},
    {"position_buckets": -1, "max_relative_positions": 48},
    {"position_buckets": 16, "max_relative_positions": 40, "norm_rel_ebd": "none"},
    {"relative_attention": False, "position_biased_input": True, "max_position_embeddings": 512},
    {"conv_kernel_size": 3, "conv_act": "gelu"},
    {"type_vocab_size": 2, "embedding_size": 16},
]


@pytest.mark.parametrize("changes", GRID, ids=str)
def test_the_same_results(changes):
    theirs, ours = pair(**changes)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for length in LENGTHS:
        for padded in (False, True):
            same(ours, theirs, batch(length, padded))


@pytest.mark.parametrize("changes", GRID, ids=str)
@pytest.mark.parametrize("length", [1, 7, 80])
def test_the_same_gradients(changes, length):
    theirs, ours = (model.double().train() for model in pair(**changes))
    inputs = batch(length)
    weight = torch.randn(24, dtype=torch.double)
    for model in (theirs, ours):
        (model(**inputs).last_hidden_state * weight).sum().backward()
    for (name, expected), found in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        if expected.grad is None:
            assert found.grad is None or not found.grad.any(), name
        else:
            within = 1e-6 * float(expected.grad.abs().max()) + 1e-7  # their scale is a number of fp32
            torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=within, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_16_bits_are_as_precise_as_in_transformers(dtype, autocast):
    theirs, ours = pair()
    inputs = batch(64)
    exact = hidden(theirs, inputs)
    if not autocast:
        theirs, ours = theirs.to(dtype), ours.to(dtype)
    with torch.autocast("cpu", dtype, enabled=autocast):
        errors = [(hidden(model, inputs).float() - exact)[:2].norm() for model in (ours, theirs)]
    assert errors[0] < 1.3 * errors[1]
    assert errors[0] > 0


# -- what is kept of the weights ---------------------------------------------------------------------------------------


def step(kind):
    def run(model):
        optimizer = kind(model.parameters())
        model(**batch(9)).last_hidden_state.square().sum().backward()
        optimizer.step()

    return run


def train_on_a_frozen_graph(model):
    """Without a change of mode: as a model that is tuned in `eval`."""
    step(lambda parameters: torch.optim.SGD(parameters, lr=0.01))(model)


CHANGES = {
    "sgd": train_on_a_frozen_graph,
    "adamw": step(lambda parameters: torch.optim.AdamW(parameters, lr=0.01, foreach=False)),
    "adamw, foreach": step(lambda parameters: torch.optim.AdamW(parameters, lr=0.01, foreach=True)),
    "adamw, fused": step(lambda parameters: torch.optim.AdamW(parameters, lr=0.01, fused=True)),
    "load_state_dict": lambda model: model.load_state_dict(make().state_dict()),
    "load_state_dict, assigned": lambda model: model.load_state_dict(make().state_dict(), assign=True),
    "bf16 and back": lambda model: model.bfloat16().float(),
    "double": lambda model: model.double(),
    "in place": lambda model: model.encoder.layer[1].attention.self.key_proj.weight.detach().mul_(2),
    "embeddings": lambda model: model.encoder.rel_embeddings.weight.detach().mul_(2),
    "norm": lambda model: model.encoder.LayerNorm.bias.detach().add_(1),
    "new data": lambda model: setattr(
        model.encoder.layer[0].attention.self.query_proj.weight, "data", torch.randn(24, 24)
    ),
    "new layer": lambda model: setattr(model.encoder.layer[0].attention.self, "key_proj", nn.Linear(24, 24)),
    "data changed in training": lambda model: (
        model.train(),
        model.encoder.layer[0].attention.self.key_proj.weight.data.mul_(2),
        model.eval(),
    ),
}


@pytest.mark.parametrize("changed", CHANGES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_caches_follow_the_weights(changed, mode):
    theirs, ours = pair()
    inputs = batch(64)
    with mode():
        ours(**inputs)
    assert ours.encoder.layer[0].attention.self._cache
    CHANGES[changed](ours)
    theirs = type(theirs)(theirs.config).eval().to(next(ours.parameters()).dtype)
    theirs.load_state_dict(ours.state_dict())
    with mode():
        same(ours, theirs, inputs)


def test_projections_are_computed_once():
    _, ours = pair()
    attention = ours.encoder.layer[0].attention.self
    hidden(ours, batch(64))
    (kept,) = kept_in(attention._cache)
    for length in (3, 64, 100):
        hidden(ours, batch(length))
    assert kept_in(attention._cache)[0] is kept
    with torch.autocast("cpu", torch.bfloat16):
        hidden(ours, batch(9))
    assert kept_in(attention._cache)[0][0].dtype == torch.bfloat16


def test_no_caching_with_gradients_or_in_training():
    _, ours = pair()
    inputs = batch(9)

    def keeps():
        hidden(ours, inputs)
        parts = [m for m in ours.modules() if isinstance(m, (DisentangledAttention, DisentangledEncoder))]
        return {bool(part._cache) for part in parts}

    assert keeps() == {True}
    ours(**inputs).last_hidden_state.sum().backward()
    assert keeps() == {False}  # a fused optimizer may change the weights next, without raising their version
    ours.train()
    assert keeps() == {False}
    ours.eval()
    assert keeps() == {True}


def test_a_hook_on_a_projection_is_called():
    theirs, ours = pair()
    hidden(ours, batch(9))
    for model in (theirs, ours):
        model.encoder.layer[0].attention.self.key_proj.register_forward_hook(lambda *args: args[2] * 1.5)
    same(ours, theirs, batch(9))


# -- copies, files and other uses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(copied):
    theirs, ours = pair()
    hidden(ours, batch(9))
    again = copied(ours)
    assert isinstance(again.encoder, DisentangledEncoder)
    assert not again.encoder.layer[0].attention.self._cache
    with torch.no_grad():
        for model in (theirs, again):
            model.encoder.layer[0].attention.self.key_proj.weight.mul_(3)
    same(again, theirs, batch(9))


def test_save_pretrained(tmp_path):
    theirs, ours = pair()
    ours.save_pretrained(tmp_path)
    same(type(theirs).from_pretrained(tmp_path).eval(), theirs, batch(9))


def test_attention_weights_and_hidden_states():
    theirs, ours = pair()
    for inputs in (batch(20), batch(20, padded=False), batch(100)):
        outputs = []
        for model in (theirs, ours):
            with torch.no_grad():
                outputs.append(model(**inputs, output_attentions=True, output_hidden_states=True))
        for kind in ("attentions", "hidden_states"):
            for expected, found in zip(outputs[0][kind], outputs[1][kind], strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_queries_of_another_layer():
    theirs, ours = pair()
    theirs.z_steps = ours.z_steps = 3
    inputs = batch(20)
    outputs = []
    for model in (theirs, ours):
        try:
            outputs.append(hidden(model, inputs))
        except (
            AttributeError,
            RuntimeError,
            TypeError,
        ) as error:  # broken in some versions, and then in both
            outputs.append(str(error))
    assert type(outputs[0]) is type(outputs[1])
    if isinstance(outputs[0], torch.Tensor):
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)


def test_dropout_in_training():
    _, ours = pair(dropout=0.2)
    inputs = batch(12, padded=False)
    exact = hidden(ours, inputs)
    ours.train()
    drawn = torch.stack([hidden(ours, inputs) for _ in range(2)])
    assert not torch.allclose(drawn[0], drawn[1])
    only_attention = copy.deepcopy(ours).eval()
    for layer in only_attention.encoder.layer:
        layer.attention.self.train()
    assert not torch.allclose(hidden(only_attention, inputs), exact)


def test_gradient_checkpointing():
    theirs, ours = (model.train() for model in pair())
    inputs = batch(20)
    ours.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for model in (theirs, ours):
        model(**inputs).last_hidden_state.square().sum().backward()
    for (name, expected), found in zip(theirs.named_parameters(), ours.named_parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(found[1].grad, expected.grad, rtol=1e-4, atol=1e-3, msg=name)


def test_torch_compile():
    theirs, ours = pair(num_hidden_layers=1)
    compiled = torch.compile(ours, backend="eager", fullgraph=True, dynamic=True)
    for length in (20, 100):
        same(compiled, theirs, batch(length))


def test_caching_with_int8_layers():
    from gliner_pipe.modeling.precision import Precision, reduced_copy

    _, ours = pair(hidden_size=32, num_attention_heads=2)
    short = reduced_copy(ours, Precision(quantize="int8"), "components.gliner")
    inputs = batch(40)
    first = hidden(short, inputs)
    assert short.encoder.layer[0].attention.self._cache
    torch.testing.assert_close(hidden(short, inputs), first, rtol=0, atol=0)
    assert 0 < (first - hidden(ours, inputs))[:2].norm() < 0.2 * first[:2].norm()


@pytest.mark.parametrize("where", ["attention", "encoder"])
def test_an_unknown_encoder_is_left_unchanged(where):
    theirs = make()
    if where == "attention":
        theirs.encoder.layer[1].attention.self.pos_att_type = ["c2p", "p2p"]
    else:
        theirs.encoder = type("Own", (type(theirs.encoder),), {})(theirs.config)
    assert replace_attention(theirs) == 0
    assert not any(isinstance(m, (DisentangledAttention, DisentangledEncoder)) for m in theirs.modules())


# -- under the backbone ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deberta(tmp_path_factory):
    return make_backbone(tmp_path_factory.mktemp("deberta"), "deberta-v2")


def built(folder, **settings):
    torch.manual_seed(0)
    backbone = Transformer(str(folder), **settings)
    backbone.build()
    return backbone.eval()


def is_fast(module):
    return any(isinstance(part, DisentangledAttention) for part in module.modules())


def test_the_backbone_uses_it_by_default(deberta):
    assert is_fast(built(deberta)) and is_fast(built(deberta, attn_implementation=None))
    eager = built(deberta, attn_implementation="eager")
    assert not is_fast(eager)
    same(built(deberta).encoder, eager.encoder, batch(40))


def test_label_encoders_use_it(deberta):
    from gliner_pipe.modeling.encoders.label_encoder import TextEmbedder

    embedder = TextEmbedder(str(deberta))
    embedder.build(32)
    assert is_fast(embedder)


@pytest.mark.parametrize(
    ("found", "expected"), [(None, "auto"), ("eager", "eager"), ("flash_attention_2", "flash_attention_2")]
)
def test_settings_of_a_checkpoint(found, expected):
    from gliner_pipe.checkpoints.gliner_names import _attention

    assert _attention({"_attn_implementation": found}) == expected


def test_adapters_on_its_projections(deberta):
    from gliner_pipe.modeling.adapters.lora import Lora

    models = [
        built(deberta, adapter=Lora(r=4, dropout=0.0), attn_implementation=kind) for kind in ("auto", "eager")
    ]
    models[1].load_state_dict(models[0].state_dict())
    assert is_fast(models[0]) and not is_fast(models[1])
    for model in models:
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.1)
        model.encoder(**batch(40)).last_hidden_state.square().sum().backward()
    for (name, found), expected in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        if expected.grad is not None:
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-3, atol=1e-3, msg=name)
    for model in models:
        model.eval()
    same(models[0].encoder, models[1].encoder, batch(40))
    with torch.no_grad():
        for model in models:
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(2)
    same(models[0].encoder, models[1].encoder, batch(40))


def test_a_saved_pipeline_uses_it_with_the_same_scores(deberta, tmp_path):
    import spacy
    from conftest import gliner_config

    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(deberta))
    nlp.initialize()
    nlp.to_disk(tmp_path / "out")
    loaded = spacy.load(tmp_path / "out")
    texts = ["Maria Lindqvist met Bob in Oslo."] * 2

    def scores(pipeline):
        return [
            [span._.score for span in doc.spans["gliner"]] if "gliner" in doc.spans else []
            for doc in pipeline.pipe(texts)
        ]

    model = loaded.get_pipe("gliner").model
    assert is_fast(model)
    assert scores(loaded) == scores(nlp)


def test_flash_attention_runs_with_16_bits_on_a_gpu(backbone, monkeypatch):
    chosen = []
    model = built(backbone).encoder
    monkeypatch.setattr(type(model), "set_attn_implementation", lambda self, kind: chosen.append(kind))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: object() if name == "flash_attn" else find_spec(name)
    )
    pretrained_encoder._has_flash_package.cache_clear()
    capability = [(7, 5)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability[0])
    pretrained_encoder.follow_device(model, torch.device("cuda"))
    pretrained_encoder.follow_device(model.bfloat16(), torch.device("cpu"))
    pretrained_encoder.follow_device(model, torch.device("cuda"))  # older than Ampere
    assert chosen == []
    capability[0] = (8, 6)
    pretrained_encoder.follow_device(model, torch.device("cuda"))
    model.config._attn_implementation = pretrained_encoder.FLASH
    pretrained_encoder.follow_device(model, torch.device("cuda"))
    assert chosen == [pretrained_encoder.FLASH]
    pretrained_encoder.follow_device(model, torch.device("cpu"))
    assert chosen == [pretrained_encoder.FLASH, "sdpa"]
    model.config._attn_implementation = "eager"  # asked for by name elsewhere
    pretrained_encoder.follow_device(model, torch.device("cuda"))
    assert len(chosen) == 2
    pretrained_encoder._has_flash_package.cache_clear()


# -- the kernel of flashdeberta ------------------------------------------------------------------------------------------


def written_out(q, k, v, lengths, position_key, position_query, causal, scale, buckets, reach):
    """What the kernel computes, by its documentation: tensors are ``(rows, heads, length, width)``."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    n = q.shape[2]
    distances = torch.arange(n)[:, None] - torch.arange(n)
    if buckets:
        distances = make_log_bucket_position(distances, buckets, reach).long()
    span = buckets or reach
    slots = (distances + span).clamp(0, 2 * span - 1).expand(*q.shape[:2], n, n)
    scores = q @ k.transpose(2, 3)
    if position_key is not None:
        scores = scores + (q @ position_key.transpose(2, 3)).gather(3, slots)
    if position_query is not None:
        asked = (k @ position_query.transpose(2, 3)).gather(3, slots.transpose(2, 3))
        scores = scores + asked.transpose(2, 3)
    if lengths is not None:
        scores = scores.masked_fill(torch.arange(n) >= lengths[:, None, None, None], -1e9)
    return (scores * scale).softmax(3) @ v


@pytest.fixture
def flash(monkeypatch):
    """Let the kernel be used here, written out; returns what it was called with."""
    calls = []

    def kernel(*arguments):
        calls.append(arguments)
        return written_out(*arguments)

    monkeypatch.setattr(disentangled_attention, "_kernel", lambda: kernel)
    monkeypatch.setattr(
        deberta_layer, "flash_runs", lambda query, dropout: not disentangled_attention._failed
    )
    monkeypatch.setattr(disentangled_attention, "_failed", False)
    return calls


@pytest.mark.parametrize("changes", GRID, ids=str)
def test_arguments_of_the_kernel(changes, flash):
    theirs, ours = pair(**changes)
    for length in (1, 7, 100):
        inputs = batch(length)
        inputs["attention_mask"][2, :1] = 1  # what no query sees differs, and is read by nobody
        real = inputs["attention_mask"].bool()
        for _ in range(2):  # the second time with tables that were kept
            torch.testing.assert_close(
                hidden(ours, inputs)[real], hidden(theirs, inputs)[real], rtol=0, atol=1e-4
            )
    assert len(flash) == 2 * 3 * 2


def test_training_through_the_kernel(flash):
    theirs, ours = (model.double().train() for model in pair())
    inputs = batch(40)
    for model in (theirs, ours):
        model(**inputs).last_hidden_state[0].square().sum().backward()
    assert flash
    for (name, expected), found in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        if expected.grad is not None:
            within = 1e-6 * float(expected.grad.abs().max()) + 1e-7
            torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=within, msg=name)


def test_fallback_after_a_kernel_fails(flash, monkeypatch, caplog):
    def broken(*_):
        raise ValueError("no such instruction")

    monkeypatch.setattr(disentangled_attention, "_kernel", lambda: broken)
    theirs, ours = pair()
    inputs = batch(40)
    same(ours, theirs, inputs)
    same(ours, theirs, inputs)
    assert caplog.text.count("no such instruction") == 1 and disentangled_attention._failed


def test_the_kernel_runs_with_16_bits_on_a_gpu():
    assert not disentangled_attention.flash_runs(torch.ones(1, 2, 3, 16, dtype=torch.bfloat16), 0.0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_kernel_on_a_gpu(monkeypatch):
    pytest.importorskip("flashdeberta")
    theirs, ours = pair(hidden_size=64, num_attention_heads=2)
    calls, kernel = [], disentangled_attention._kernel()
    assert kernel is not None

    def counted(*arguments):
        calls.append(arguments)
        return kernel(*arguments)

    monkeypatch.setattr(disentangled_attention, "_kernel", lambda: counted)
    for length in (7, 64, 300):
        inputs = batch(length)
        real = inputs["attention_mask"].bool()
        exact = hidden(theirs.float().cpu(), inputs)[real]
        on_device = {name: value.cuda() for name, value in inputs.items()}
        errors = [
            (hidden(model.cuda().bfloat16(), on_device).cpu().float()[real] - exact).norm() / exact.norm()
            for model in (ours, theirs)
        ]
        assert errors[0] < 1.5 * errors[1]
    assert len(calls) == 6 and not disentangled_attention._failed


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("length", [7, 64, 300])
def test_on_a_gpu(dtype, length):
    theirs, ours = pair()
    inputs = batch(length)
    real = inputs["attention_mask"].bool()
    exact = hidden(theirs, inputs)[real]
    on_device = {name: value.cuda() for name, value in inputs.items()}
    errors = []
    for model in (ours, theirs):
        model.cuda().to(dtype)
        errors.append((hidden(model, on_device).cpu().float()[real] - exact).norm() / exact.norm())
    assert errors[0] < max(1.3 * errors[1], 1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gradients_on_a_gpu():
    theirs, ours = (model.cuda().train() for model in pair())
    inputs = {name: value.cuda() for name, value in batch(40).items()}
    for model in (theirs, ours):
        model(**inputs).last_hidden_state[:2].square().sum().backward()
    for (name, expected), found in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        if expected.grad is not None:
            within = 1e-3 * float(expected.grad.abs().max()) + 1e-3
            torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=within, msg=name)


# -- without padding -----------------------------------------------------------------------------------------------------


def chosen(model, inputs, places, wanted):
    with torch.inference_mode():
        return model.encoder.vectors_at(model, *inputs.values(), places, wanted)


def places_in(inputs):
    """Each third position of each row, and which of them hold tokens."""
    length = inputs["input_ids"].shape[1]
    places = torch.arange(0, length, 3).expand(3, -1)
    return places, inputs["attention_mask"].gather(1, places).bool()


@pytest.mark.parametrize("changes", GRID, ids=str)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_vectors_of_some_tokens(changes, kind):
    _, ours = pair(**changes)
    take_linears(ours)
    ours.to(kind)
    for length in LENGTHS:
        for padded in (False, True):
            inputs = batch(length, padded)
            places, wanted = places_in(inputs)
            found = chosen(ours, inputs, places, wanted)
            if "relative_attention" in changes or "conv_kernel_size" in changes:
                assert found is None
                continue
            at = places[..., None].expand(-1, -1, 24)
            expected = hidden(ours, inputs).gather(1, at) * wanted[..., None]
            within = 1e-5 if kind == torch.float32 else 0.1
            torch.testing.assert_close(found, expected, atol=within, rtol=within)


def test_vectors_of_some_tokens_do_not_depend_on_other_rows():
    _, ours = pair()
    inputs = batch(40)
    places, wanted = places_in(inputs)
    together = chosen(ours, inputs, places, wanted)
    for row in (0, 1):
        length = int(inputs["attention_mask"][row].sum())
        alone = {name: value[row : row + 1, :length] for name, value in inputs.items()}
        count = int(wanted[row].sum())
        found = chosen(ours, alone, places[row : row + 1, :count], wanted[row : row + 1, :count])
        torch.testing.assert_close(found[0], together[row, :count], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("where", ["", "encoder", "encoder.layer.1", "encoder.layer.0.attention.self"])
def test_a_model_with_hooks_is_run_as_it_is(where):
    _, ours = pair()
    inputs = batch(8)
    assert chosen(ours, inputs, *places_in(inputs)) is not None
    ours.get_submodule(where).register_forward_hook(lambda *_: None)
    assert chosen(ours, inputs, *places_in(inputs)) is None


def test_gradients_need_the_whole_model():
    _, ours = pair()
    inputs = batch(8)
    places, wanted = places_in(inputs)
    assert ours.encoder.vectors_at(ours, *inputs.values(), places, wanted) is None
    assert chosen(ours.train(), inputs, places, wanted) is None


@pytest.mark.parametrize("pooling", ["first", "last"])
def test_the_backbone_ends_at_the_tokens_it_uses(deberta, pooling, monkeypatch):
    from gliner_pipe.modeling.backbones.base import Prompt

    backbone = built(deberta, pooling=pooling, hidden_size=16, window=32)
    texts = [["Ada", "Lovelace", "unbelievable", "words"] * 3, ["London", "\u200b", "Paris"]]
    prompts = [Prompt(np.array([5, 6, 7]), np.array([0, 2])), Prompt(np.array([5]), np.array([0]))]
    windows = backbone.windows(backbone.tokenize(texts), prompts, 4)
    inputs = backbone.collate(windows)
    with torch.inference_mode():
        found = backbone(inputs)
        monkeypatch.setattr(DisentangledEncoder, "vectors_at", lambda *_: None)
        expected = backbone(inputs)
    for name in ("words", "prompt"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-6, rtol=1e-6)
