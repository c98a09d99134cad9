"""Files of GLiNER checkpoints, as they are found in the wild, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_parity import (
    TEXTS,
    bi_settings,
    check,
    decoder_settings,
    forget_tokenizers,
    load,
    make_peer,
    save,
    score,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gliner_pipe.errors import CheckpointError

pytestmark = pytest.mark.filterwarnings("ignore")
SAFE, PICKLED = "model.safetensors", "pytorch_model.bin"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint of the kind most often met."""
    return save(make_peer(), tmp_path / "checkpoint")


def change(folder: Path, **changes: Any) -> None:
    path = folder / "gliner_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("variant", [False, True])
@pytest.mark.parametrize("settings", [{}, bi_settings("deberta-v2")], ids=["uni", "bi"])
def test_half_precision_is_read_as_fp32(tmp_path, dtype, variant, settings):
    short = {torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
    model = make_peer(**settings)
    for name in ("encoder_config", "labels_encoder_config"):
        if getattr(model.config, name, None) is not None:
            getattr(
                model.config, name
            ).dtype = dtype  # as it stands in checkpoints that were made from such models
    model.model.to(dtype).float()
    folder = save(model, tmp_path)
    weights = {name: tensor.to(dtype) for name, tensor in load_file(folder / SAFE).items()}
    (folder / SAFE).unlink()
    save_file(weights, folder / (f"model.{short}.safetensors" if variant else SAFE))
    component = load(folder)
    assert {parameter.dtype for parameter in component.gliner.parameters()} == {torch.float32}
    check(model, component)


def test_the_whole_weights_come_before_the_halved(folder):
    weights = load_file(folder / SAFE)
    halved = {name: torch.zeros_like(tensor).half() for name, tensor in weights.items()}
    save_file(halved, folder / "model.fp16.safetensors")
    assert float(load(folder).gliner.prompt_rep[0].weight.abs().sum()) > 0


def test_tensors_stored_once_under_several_names(tmp_path):
    """The embeddings of many language models are their last layer, too."""
    model = make_peer(**decoder_settings())
    folder = save(model, tmp_path)
    with safe_open(folder / SAFE, framework="pt") as file:
        aliases = dict(file.metadata())
    assert any("decoder" in name for name in aliases)
    ours = load(folder).gliner.decoder.decoder
    theirs = model.model.decoder.decoder_layer.model
    assert torch.equal(ours.lm_head.weight, theirs.lm_head.weight)
    assert torch.equal(ours.get_input_embeddings().weight, theirs.get_input_embeddings().weight)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "token_rep_layer._orig_mod."])
def test_names_of_compiled_models(folder, prefix):
    expected = load(folder).gliner.state_dict()
    weights = load_file(folder / SAFE)
    if prefix.startswith("token"):
        weights = {name.replace("token_rep_layer.", prefix): tensor for name, tensor in weights.items()}
    else:
        weights = {prefix + name: tensor for name, tensor in weights.items()}
    save_file(weights, folder / SAFE)
    for name, tensor in load(folder).gliner.state_dict().items():
        assert torch.equal(tensor, expected[name])


@pytest.mark.parametrize("mode", ["token-level", "token_level"])
def test_spellings_of_the_token_level(tmp_path, mode):
    model = make_peer(span_mode="token_level")
    check(model, load(save(model, tmp_path, changes={"span_mode": mode})))


@pytest.mark.parametrize("layer", ["ATTN", "attention"])
@pytest.mark.parametrize("triple", ["distmult", "DistMult"])
def test_spellings_of_relation_blocks(tmp_path, layer, triple):
    model = make_peer(relations_layer="attention", triples_layer="DistMult")
    changes = {"relations_layer": layer, "triples_layer": triple}
    component = load(save(model, tmp_path, changes=changes))
    blocks = component.gliner.blocks
    assert (blocks["relation_layer"]["@relation_layers"], blocks["triple"]["@triples"]) == (
        "attention",
        "distmult",
    )


def test_encoders_without_a_type_are_deberta(tmp_path):
    model = make_peer("deberta-v2")
    folder = save(model, tmp_path)
    encoder = json.loads((folder / "gliner_config.json").read_text())["encoder_config"]
    del encoder["model_type"]
    change(folder, encoder_config=encoder)
    check(model, load(folder))


def test_rows_beyond_the_tokenizer(tmp_path):
    """Embeddings padded to a multiple of 64."""
    model = make_peer()
    model.model.token_rep_layer.resize_token_embeddings(2112, None)
    check(model, load(save(model, tmp_path)))


def test_a_tokenizer_that_reads_less_than_its_model(tmp_path):
    """Its limit counts; longer texts are read in windows."""
    model = make_peer()
    model.data_processor.transformer_tokenizer.model_max_length = 64
    component = load(save(model, tmp_path))
    check(model, component)
    (prediction,) = component.predict([component_doc(" ".join(TEXTS * 8))])
    assert prediction.entities


def component_doc(text: str) -> Any:
    import spacy

    return spacy.blank("en").make_doc(text)


def test_settings_of_later_versions_change_nothing(folder):
    before = score(load(folder), TEXTS)[1]
    change(folder, a_key_of_later_versions={"one": 1}, size_sup=-1, shuffle_types=True)
    assert torch.equal(score(load(folder), TEXTS)[1], before)


# -- what is refused ------------------------------------------------------------------------------------------------


def refused(folder: Path, match: str) -> None:
    with pytest.raises(CheckpointError, match=match):
        load(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("span_mode", "spanish"),
        ("relations_layer", "concat"),
        ("words_splitter_type", "moses"),
        ("span_encoder_config", {"model_type": "gru"}),
    ],
)
def test_blocks_that_are_not_here(folder, key, value):
    change(folder, **{key: value})
    refused(folder, f"{key}.*; allowed: ")


def test_triples_that_are_not_here(folder):
    change(folder, relations_layer="dot", triples_layer="rescal")
    refused(folder, "triples_layer = 'rescal'; allowed: UM, SE")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"span_mode": "markerV0"}', "\xff"])
def test_configurations_that_are_none(folder, content):
    (folder / "gliner_config.json").write_bytes(content.encode("latin1"))
    refused(folder, "no valid JSON|found list; allowed: a JSON object|has no model_name")


def test_no_weights(folder):
    (folder / SAFE).unlink()
    refused(folder, r"no weights; allowed: model\.safetensors")


def test_missing_tensors(folder):
    weights = load_file(folder / SAFE)
    del weights["prompt_rep_layer.0.weight"], weights["rnn.lstm.bias_hh_l0"]
    save_file(weights, folder / SAFE)
    refused(folder, r"Missing: encoder\.rnn\.lstm\.bias_hh_l0, prompt_rep\.0\.weight\. Unexpected: none")


def test_unexpected_tensors(folder):
    save_file({**load_file(folder / SAFE), "gate.weight": torch.zeros(2)}, folder / SAFE)
    refused(folder, r"Missing: none\. Unexpected: gate\.weight")


def test_tensors_of_another_shape(folder):
    change(folder, num_rnn_layers=1, max_width=4, span_mode="query")
    refused(folder, "Missing: ")
    change(folder, span_mode="markerV2")
    refused(folder, r"Wrong shape: span_rep\.out_project\.0\.weight \(128, 64\) instead of \(128, 96\)")


def test_broken_files(folder):
    whole = (folder / SAFE).read_bytes()
    (folder / SAFE).write_bytes(whole[: len(whole) // 2])
    refused(folder, "safetensors")
    (folder / SAFE).unlink()
    (folder / PICKLED).write_bytes(b"nothing")
    refused(folder, "holds more than tensors")


class Intruder:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_pickled_code_is_not_run(folder, tmp_path):
    (folder / SAFE).unlink()
    trace = tmp_path / "run"
    torch.save({"rnn.lstm.weight_ih_l0": Intruder(trace)}, folder / PICKLED)
    refused(folder, "holds more than tensors.*No code was run")
    assert not trace.exists()


def test_pickles_of_other_things(folder):
    (folder / SAFE).unlink()
    torch.save({"state_dict": {"one": torch.zeros(1)}}, folder / PICKLED)
    refused(folder, "more than named tensors")


def test_a_tokenizer_without_the_tokens_that_the_configuration_speaks_of(tmp_path):
    folder = save(make_peer(), tmp_path)
    config = json.loads((folder / "gliner_config.json").read_text())
    forget_tokenizers(folder)  # that of the backbone is read, which knows none
    change(folder, **{key: config[key] for key in ("class_token_index", "vocab_size")})
    refused(folder, "tokenizer.*'<<ENT>>'")


def test_a_tokenizer_of_other_weights(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["#one#", "#two#", "#three#"])
    tokenizer.save_pretrained(folder)
    refused(folder, "vocab_size = .*allowed: .*the tokens of the tokenizer")
    change(folder, vocab_size=-1, class_token_index=-1)
    refused(folder, "the tokenizer of the text encoder has .* tokens, the weights")


def test_a_compressed_prompt_without_its_vectors(folder):
    change(folder, precomputed_prompts_mode=True, id_to_classes={"1": "person"})
    refused(folder, "precomputed_prompts_mode.* precomputed_prompts")


def test_a_compressed_prompt_is_asked_for_another_label(tmp_path):
    from gliner_pipe.errors import ConfigError

    model = make_peer()
    model.compress_prompt_embeddings(TEXTS, ["person", "place"])
    component = load(save(model, tmp_path), ["animal"])
    with pytest.raises(ConfigError, match=r"'animal', for which the compressed prompt .* no vector"):
        component.predict([component_doc(TEXTS[0])])
