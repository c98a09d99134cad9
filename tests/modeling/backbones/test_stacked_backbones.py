"""A CNN and an LSTM on top of a transformer, alone and stacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from confit.errors import ConfitValidationError
from torch import Tensor

from gliner_pipe.errors import ConfigError, NotInitializedError
from gliner_pipe.modeling.backbones.base import Backbone, BackboneOutput, Prompt, pretrained_parameters
from gliner_pipe.modeling.backbones.stacked import Lstm
from gliner_pipe.modeling.backbones.text_cnn import TextCnn
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.encoders.uni_encoder import UniEncoder
from gliner_pipe.registry import registry

WORDS = ["Maria", "Lindqvist", "met", "\u200b", "Bob", "in", "Oslo", "."]
EMPTY = Prompt(np.zeros(0, np.int64), np.zeros(0, np.int64))

STACKS: dict[str, Callable[[Backbone], Backbone]] = {
    "cnn": lambda below: TextCnn(below),
    "cnn-many": lambda below: TextCnn(below, [1, 2, 3, 4, 5], out_channels=12, normalize="post"),
    "cnn-plain": lambda below: TextCnn(below, [4], output_size=20, residual=False, activation="gelu"),
    "lstm": lambda below: Lstm(below),
    "lstm-over-cnn": lambda below: Lstm(TextCnn(below, normalize="none"), layers=2),
    "cnn-over-lstm-over-cnn": lambda below: TextCnn(Lstm(TextCnn(below))),
}


def build(folder: Path, stack: str, **settings: Any) -> Backbone:
    torch.manual_seed(0)
    backbone = STACKS[stack](Transformer(str(folder), **settings))
    backbone.build(["<<ENT>>"])
    return backbone.eval()


def run(backbone: Backbone, texts: list[list[str]], prompt: Prompt = EMPTY) -> BackboneOutput:
    windows = backbone.windows(backbone.tokenize(texts), [prompt] * len(texts), 4)
    with torch.no_grad():
        return backbone(backbone.collate(windows))


def transformer(backbone: Backbone) -> Transformer:
    return next(module for module in backbone.modules() if isinstance(module, Transformer))


@pytest.mark.parametrize("stack", STACKS)
def test_padding_and_other_texts_change_nothing(backbone: Path, stack: str) -> None:
    model = build(backbone, stack)
    alone = run(model, [WORDS]).words
    together = run(model, [["Hi"], WORDS, WORDS * 9]).words
    assert alone.shape == (1, len(WORDS), model.output_size)
    torch.testing.assert_close(together[1, : len(WORDS)], alone[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(together[0, :1], run(model, [["Hi"]]).words[0], rtol=0, atol=1e-5)
    assert not together[1, len(WORDS) :].any()
    assert not together[1, 3].any()  # a word without pieces
    assert together[1, [0, 1, 2, 4, 5, 6, 7]].any(-1).all()


@pytest.mark.parametrize("stack", STACKS)
def test_vectors_at_padding_are_not_read(backbone: Path, stack: str) -> None:
    class Noisy(Transformer):
        def forward(self, batch: Any) -> BackboneOutput:
            words, prompt = super().forward(batch)
            return BackboneOutput(words + 100.0 * ~batch.word_mask[:, :, None], prompt)

    torch.manual_seed(0)
    noisy = STACKS[stack](Noisy(str(backbone)))
    noisy.build(["<<ENT>>"])
    texts = [["Hi", "there"], WORDS]
    assert torch.equal(run(noisy.eval(), texts).words, run(build(backbone, stack), texts).words)


@pytest.mark.parametrize("stack", STACKS)
def test_words_see_their_neighbours(backbone: Path, stack: str) -> None:
    model = build(backbone, stack)
    below = transformer(model)

    def changed(at: int) -> Tensor:
        """Which words change when the vector of one does."""
        windows = model.windows(model.tokenize([list("abcdefghij")]), [EMPTY], 4)
        batch = model.collate(windows)
        before, prompt = below(batch)
        other = before.clone()
        other[0, at] += 1.0
        found = []
        for words in (before, other):
            hook = below.register_forward_hook(lambda *_, words=words: BackboneOutput(words, prompt))
            found.append(model(batch).words[0])
            hook.remove()
        return ((found[0] - found[1]).abs() > 1e-6).any(-1).nonzero()[:, 0]

    reach = {"cnn": [4, 5, 6], "cnn-many": [3, 4, 5, 6, 7], "cnn-plain": [4, 5, 6, 7]}
    with torch.no_grad():
        assert changed(5).tolist() == reach.get(stack, list(range(10)))


@pytest.mark.parametrize("stack", STACKS)
def test_saved_and_loaded(backbone: Path, stack: str, tmp_path: Path) -> None:
    model = build(backbone, stack)
    model.save_assets(tmp_path)
    again = STACKS[stack](Transformer("nowhere"))
    again.load_assets(tmp_path)
    again.load_state_dict(model.state_dict())
    assert torch.equal(run(again.eval(), [WORDS, ["Hi"]]).words, run(model, [WORDS, ["Hi"]]).words)


@pytest.mark.parametrize("stack", STACKS)
def test_only_the_transformer_is_pretrained(backbone: Path, stack: str) -> None:
    model = build(backbone, stack)
    found = {id(weights) for weights in pretrained_parameters(model)}
    assert found == {id(weights) for weights in transformer(model).parameters()}
    assert len(found) < len(list(model.parameters()))


@pytest.mark.parametrize("stack", STACKS)
def test_all_weights_have_gradients(backbone: Path, stack: str) -> None:
    model = build(backbone, stack)
    windows = model.windows(model.tokenize([WORDS]), [EMPTY], 4)
    words = model(model.collate(windows)).words
    (words * torch.randn_like(words)).sum().backward()
    names = [name for name, weights in model.named_parameters() if weights.grad is None]
    unused = ("pooler", "project_prompt")  # of BERT; of prompts, and there was none
    assert not [name for name in names if not any(part in name for part in unused)]


@pytest.mark.parametrize("stack", STACKS)
def test_half_precision_gives_words_in_fp32(backbone: Path, stack: str) -> None:
    model = build(backbone, stack)
    exact = run(model, [WORDS]).words
    with torch.autocast("cpu", dtype=torch.bfloat16):
        words = run(model, [WORDS]).words
    assert words.dtype == torch.float32
    torch.testing.assert_close(words, exact, atol=0.2, rtol=0)


@pytest.mark.parametrize("stack", STACKS)
def test_long_texts_are_cut_into_windows(backbone: Path, stack: str) -> None:
    model = build(backbone, stack, window=64, stride=40, max_tokens_per_device=512)
    assert model.max_tokens == 512
    report = run(model, [WORDS * 50])
    assert len(report.words) > 5 and torch.isfinite(report.words).all()


@pytest.mark.parametrize("stack", STACKS)
def test_labels_are_as_wide_as_words(backbone: Path, stack: str) -> None:
    model = build(backbone, stack)
    (pieces,) = model.tokenize([["<<ENT>>", "city", "<<ENT>>", "person"]])
    prompt = Prompt(pieces.ids, np.array([0, pieces.counts[:2].sum()]))
    output = run(model, [WORDS, WORDS[:2]], prompt)
    assert output.prompt.shape == (2, 2, model.output_size)
    if stack != "cnn-plain":
        below = run(transformer(model), [WORDS, WORDS[:2]], prompt)
        assert torch.equal(output.prompt, below.prompt)


def test_normalize(backbone: Path) -> None:
    def words(normalize: Any) -> Tensor:
        torch.manual_seed(0)
        model = TextCnn(Transformer(str(backbone)), normalize=normalize)
        model.build()
        return run(model.eval(), [["a", "b"]]).words[0]

    torch.manual_seed(0)
    plain = Transformer(str(backbone))
    plain.build()
    below = run(plain.eval(), [["a", "b"]]).words[0]
    norm = torch.nn.functional.layer_norm
    added = words("none") - below
    torch.testing.assert_close(words("pre"), below + norm(added, (32,)), atol=1e-4, rtol=0)
    torch.testing.assert_close(words("post"), norm(below + added, (32,)), atol=1e-4, rtol=0)


def test_from_a_configuration(backbone: Path) -> None:
    section = {
        "@backbones": "lstm",
        "embedding": {
            "@backbones": "text_cnn",
            "kernel_sizes": [3],
            "embedding": {"@backbones": "transformer", "model": str(backbone)},
        },
    }
    model = UniEncoder(section)  # registered blocks take sections for blocks
    model.build()
    assert isinstance(model.backbone, Lstm) and isinstance(model.backbone.embedding, TextCnn)
    assert registry.backbones.get("lstm") is not None and model.output_size == 32


def test_wrong_settings(backbone: Path) -> None:
    below = Transformer(str(backbone))
    with pytest.raises(ConfigError) as error:
        TextCnn(below, [])
    assert error.value.where.endswith("kernel_sizes")
    for block, options in ((TextCnn, {"kernel_sizes": [3, 0]}), (Lstm, {"layers": 0})):
        with pytest.raises(ConfitValidationError) as refused:
            block(below, **options)
        assert refused.value.errors()[0]["loc"][0] in options
    with pytest.raises(ConfigError) as error:
        TextCnn(below, output_size=20).build()
    assert error.value.where.endswith("output_size")
    with pytest.raises(ConfigError) as error:
        Lstm(TextCnn(below, output_size=21, residual=False)).build()
    assert error.value.where.endswith("embedding") and "21" in error.value.found
    with pytest.raises(NotInitializedError):
        run(Lstm(Transformer(str(backbone))), [WORDS])
