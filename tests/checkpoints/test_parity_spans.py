"""Span models of the `gliner` package give the same scores and entities here."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from checkpoint_parity import (
    CLOSE,
    LABELS,
    TEXTS,
    cases,
    check,
    check_case,
    different,
    load,
    make_peer,
    prepare_peer,
    run_peer,
    save,
    score,
    their_entities,
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("case", cases("uni", token=False))
def test_combinations_of_options(tmp_path, case):
    check_case(case, tmp_path)


@pytest.mark.parametrize("mode", ["marker", "markerV0", "query", "mlp", "cat", "conv_conv", "conv_share"])
def test_batches_of_unequal_texts(tmp_path, mode):
    model = make_peer(span_mode=mode)
    check(model, load(save(model, tmp_path)))


@pytest.mark.parametrize(
    "changes",
    [
        {"fuse_layers": True},
        {"span_mode": "markerV1"},
        {"span_encoder_config": {"model_type": "rnn"}},
        {"span_encoder_config": {"model_type": "deberta-v2"}},
        {"span_encoder_config": {"model_type": "modernbert", "num_hidden_layers": 2}, "max_width": 3},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_what_is_found_in_a_text_does_not_depend_on_the_texts_beside_it(tmp_path, changes):
    """GLiNER 0.2.29 fault: here padding is read as if it were words, so only texts by themselves come out right."""
    model = make_peer(**changes)
    component = load(save(model, tmp_path))
    words, together = score(component, TEXTS)
    widest = model.config.max_width
    for row, text in enumerate(TEXTS):
        alone = run_peer(model, [text]).logits
        n_words = len(words[row])
        valid = torch.arange(n_words)[:, None] + torch.arange(widest) < n_words
        ours = together[row : row + 1, :n_words]
        assert float((alone - ours).abs()[0][valid].max()) < CLOSE


def test_a_context_of_one_modernbert_layer(tmp_path):
    """GLiNER 0.2.29 cannot make it with transformers 5: what two layers give is the measure of the first."""
    context = {"model_type": "modernbert", "num_hidden_layers": 2, "num_attention_heads": 2}
    model = make_peer(span_encoder_config=context)
    layers = model.model.span_rep_layer.context_encoder.encoder.layers
    del layers[1]
    model.model.span_rep_layer.context_encoder.encoder.config.num_hidden_layers = 1
    context["num_hidden_layers"] = 1
    folder = save(model, tmp_path, changes={"span_encoder_config": context})
    words, ours = score(load(folder), TEXTS[:1])
    assert different(run_peer(model, TEXTS[:1]).logits, ours, [len(words[0])]) < CLOSE


def test_words_without_pieces_keep_their_places(tmp_path):
    """GLiNER 0.2.29 fault: all words after a zero-width space move by one, and the last is lost."""
    model = make_peer(num_rnn_layers=0)
    component = load(save(model, tmp_path))
    plain, _ = score(component, ["Hi Bob Smith"])
    with_gap, ours = score(component, ["Hi \u200b Bob Smith"])
    assert (plain, with_gap) == ([["Hi", "Bob", "Smith"]], [["Hi", "\u200b", "Bob", "Smith"]])
    theirs = run_peer(model, ["Hi Bob Smith"]).logits
    # no word sees another's place here: the encoder reads the same pieces, and there is no LSTM
    assert torch.allclose(ours[0, 2, :2], theirs[0, 1, :2], atol=CLOSE)
    assert torch.allclose(ours[0, 3, 0], theirs[0, 2, 0], atol=CLOSE)


def test_label_sets_of_any_order_and_size(tmp_path):
    model = make_peer()
    component = load(save(model, tmp_path))
    for labels in (["one"], LABELS[::-1], [f"label number {n}" for n in range(12)]):
        words, ours = score(component, TEXTS, labels)
        theirs = run_peer(model, TEXTS, labels).logits
        assert different(theirs, ours, [len(text) for text in words]) < CLOSE


def test_the_words_of_a_text_are_those_of_the_peer(tmp_path):
    model = make_peer(num_rnn_layers=0)
    component = load(save(model, tmp_path))
    odd = ["a-b_c d--e it's $4.50\n\nÉcole_2 «x»", "C++ e.g. 3,000 naïve-é 你好 🙂"]
    words, ours = score(component, odd)
    batch = prepare_peer(model, odd)
    assert words == batch["tokens"]
    assert different(run_peer(model, odd).logits, ours, [len(text) for text in words]) < CLOSE


@pytest.mark.parametrize("special", [True, False])
def test_tokenizers_that_start_and_end_texts_only_when_told(tmp_path, special):
    """GLiNER makes them do it, where they have tokens for it and transformers a setting (from 5 on)."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_peer().config.model_name)
    if special:
        tokenizer.add_special_tokens({"bos_token": "[CLS]", "eos_token": "[SEP]"})
    tokenizer.backend_tokenizer.post_processor = None
    bare = tmp_path / "backbone"
    shutil.copytree(make_peer().config.model_name, bare)
    tokenizer.save_pretrained(bare)
    model = make_peer(model_name=str(bare))
    component = load(save(model, tmp_path / "checkpoint"))
    ids = prepare_peer(model, TEXTS[:1])["input_ids"][0].tolist()
    assert (ids[0] == 2 and ids[-1] == 3) == (special and hasattr(tokenizer, "add_bos_token"))
    check(model, component)


def compressed(model: Any, **relations: Any) -> torch.Tensor:
    texts = [*TEXTS, "Ana lives in Lima."]
    model.compress_prompt_embeddings(texts, LABELS, batch_size=2, **relations)
    return model.model.precomputed_prompts.detach()


def test_compressed_prompts(tmp_path):
    """GLiNER 0.2.29 writes the vectors and loses them when it reads the checkpoint again: here they are read."""
    from gliner_pipe.modeling.encoders.base import Query

    model = make_peer()
    component = load(save(model, tmp_path / "before"))
    table = compressed(model)
    words = [model.prepare_inputs([text])[0][0] for text in [*TEXTS, "Ana lives in Lima."]]
    component.gliner.encoder.compress(words, Query(tuple(LABELS)))
    assert torch.allclose(component.gliner.encoder.table.entities, table, atol=1e-5)
    check(model, component)
    check(model, load(save(model, tmp_path / "after")))
    some = load(tmp_path / "after", [LABELS[2]])
    words, ours = score(some, TEXTS[:1], [LABELS[2]])
    assert different(run_peer(model, TEXTS[:1]).logits[..., 2:], ours, [len(words[0])]) < CLOSE
    assert their_entities(
        model, TEXTS[:1], [LABELS[2]], threshold=0.0, multi_label=True
    )  # all labels, in GLiNER
