"""Streaming models of the `gliner` package give the same scores and entities here."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from checkpoint_parity import (
    CLOSE,
    LABELS,
    TEXTS,
    check,
    cover,
    different,
    forget_tokenizers,
    load,
    make_streaming_peer,
    our_entities,
    peer,
    run_peer,
    save,
    score,
    their_entities,
)

from gliner_pipe.convert import to_gliner
from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.encoders.base import Query

pytestmark = pytest.mark.filterwarnings("ignore")

FACTORS: dict[str, Any] = {
    "mode": (
        *("markerV2", "marker", "markerV0", "markerV1", "query", "mlp", "cat"),
        *("conv_conv", "conv_max", "conv_mean", "conv_sum", "conv_share"),
    ),
    "kind": ("qwen2", "gpt2", "llama"),
    "pooling": ("first", "last", "mean", "max"),
    "labels": ("deberta-v2", "modernbert", "rnn"),
    "labels_size": (16, 32),  # that of the words is 32 or 48
    "rnn_layers": (0, 1, 2),
    "hidden_size": (32, 48),  # that of the language model is 32
    "context": (None, "rnn", "deberta-v2", "modernbert"),
    "words": ("whitespace", "spacy"),
    "tokens": (("<<LABEL>>", "<<SEP>>"), ("[L]", "[S]")),
    "saved": ("new", "old", "pickled"),
}


def settings_of(case: dict[str, Any]) -> dict[str, Any]:
    """``gliner_config.json`` of a combination of options."""
    labels = {"model_type": case["labels"], "hidden_size": case["labels_size"], "num_hidden_layers": 2}
    settings: dict[str, Any] = {
        "span_mode": case["mode"],
        "subtoken_pooling": case["pooling"],
        "labels_encoder_config": labels,
        "num_rnn_layers": case["rnn_layers"],
        "hidden_size": case["hidden_size"],
        "words_splitter_type": case["words"],
        "label_token": case["tokens"][0],
        "sep_token": case["tokens"][1],
    }
    if case["context"]:
        context = {"model_type": case["context"], "hidden_size": 16, "num_hidden_layers": 2}
        settings["span_encoder_config"] = context
    return settings


@pytest.mark.parametrize("case", cover(FACTORS), ids=lambda case: "-".join(map(str, case.values())))
def test_combinations_of_options(tmp_path: Path, case: dict[str, Any]) -> None:
    model = make_streaming_peer(case["kind"], **settings_of(case))
    save(model, tmp_path, safe=case["saved"] != "pickled")
    if case["saved"] == "old":
        forget_tokenizers(tmp_path)
    # texts beside it change what GLiNER 0.2.29 finds in a text
    alone = case["mode"] in ("markerV1", "markerV2") or case["context"] is not None
    check(model, load(tmp_path), alone=alone)


def test_texts_with_labels_of_their_own(tmp_path: Path) -> None:
    """A batch in which rows have different prompts, which are then run with the words."""
    model = make_streaming_peer()
    component = load(save(model, tmp_path))
    ours = component.gliner.eval()
    sets = [LABELS, ["one"], ["", "a much longer label"]]
    words = [component.word_splitter.split(component.make_doc(text)).texts for text in TEXTS]
    windows = ours.encoder.prepare(words, [Query(tuple(labels)) for labels in sets], ours.min_overlap)
    with torch.inference_mode():
        logits = ours.score(ours.encoder.collate(windows))
    for row, (text, labels) in enumerate(zip(TEXTS, sets, strict=True)):
        theirs = run_peer(model, [text], labels).logits
        here = logits[row : row + 1, : theirs.shape[1], :, : len(labels)]
        assert different(theirs, here, [len(words[row])]) < CLOSE


def test_what_was_read_of_a_prompt_is_forgotten_with_the_weights(tmp_path: Path) -> None:
    component = load(save(make_streaming_peer(), tmp_path))
    _, before = score(component, TEXTS[:1])
    with torch.no_grad():
        component.gliner.encoder.backbone.encoder.get_input_embeddings().weight.mul_(1.5)
    _, after = score(component, TEXTS[:1])
    component.gliner.encoder._read.forget()
    _, anew = score(component, TEXTS[:1])
    assert not torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(after, anew, atol=1e-6)


@pytest.mark.parametrize("dtype", ["bf16", None])
def test_precision_of_the_prompt_is_that_of_the_words(tmp_path: Path, dtype: str | None) -> None:
    component = load(save(make_streaming_peer(), tmp_path))
    wanted = our_entities(component, TEXTS, threshold=0.5)
    component.dtype = "bf16"
    assert our_entities(component, TEXTS)
    component.dtype = dtype
    found = our_entities(component, TEXTS)
    if dtype is None:
        assert found == wanted


def test_each_window_of_a_long_text_is_a_text_of_theirs(tmp_path: Path) -> None:
    model = make_streaming_peer(max_len=20)
    component = load(save(model, tmp_path))
    words = component.word_splitter.split(component.make_doc(" ".join(TEXTS * 20))).texts
    ours = component.gliner.eval()
    windows = ours.encoder.prepare([words], [Query(tuple(LABELS))], ours.min_overlap)
    assert len(windows) > 10 and windows[-1].own_stop == len(words)
    with torch.inference_mode():
        logits = ours.score(ours.encoder.collate(windows))
    for row, window in enumerate(windows[:4]):
        theirs = run_peer(model, [" ".join(words[window.start : window.stop])]).logits
        here = logits[row : row + 1, : theirs.shape[1]]
        assert different(theirs, here, [window.n_words]) < CLOSE
    (found,) = our_entities(component, [" ".join(words)], threshold=0.5)
    assert max(end for _, end, _ in found) > len(" ".join(words)) - 20


def test_keys_of_earlier_versions(tmp_path: Path) -> None:
    """GLiNER 0.2.27 and earlier named the language model labels_decoder."""
    model = make_streaming_peer()
    folder = save(model, tmp_path)
    path = folder / "gliner_config.json"
    config = json.loads(path.read_text())
    config["labels_decoder"] = config["model_name"]
    config["labels_decoder_config"] = {**config.pop("decoder_config"), "vocab_size": 7}
    config["model_name"] = "microsoft/deberta-v3-small"
    path.write_text(json.dumps(config))
    check(model, load(folder), alone=True)


def test_pipelines_are_saved_and_loaded(tmp_path: Path) -> None:
    model = make_streaming_peer()
    save(model, tmp_path / "checkpoint")
    nlp = spacy.blank("en")
    config = {"model": str(tmp_path / "checkpoint"), "labels": LABELS}
    wanted = our_entities(nlp.add_pipe("gliner", config=config), TEXTS, threshold=0.5)
    nlp.to_disk(tmp_path / "pipeline")
    shutil.rmtree(tmp_path / "checkpoint")
    again = spacy.load(tmp_path / "pipeline").get_pipe("gliner")
    assert our_entities(again, TEXTS, threshold=0.5) == wanted


def test_what_it_cannot_be(tmp_path: Path) -> None:
    folder = save(make_streaming_peer(), tmp_path, changes={"span_mode": "token_level"})
    with pytest.raises(CheckpointError, match="span_mode"):
        load(folder)
    encoder = {"@encoders": "causal_encoder", "backbone": {"@backbones": "transformer"}}
    model = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": encoder,
        "span_rep": {"@span_reps": "marker"},
    }
    with pytest.raises(ConfigError, match=r"encoder\.backbone"):
        spacy.blank("en").add_pipe("gliner", config={"model": model, "labels": LABELS})
    encoder["backbone"] = {"@backbones": "causal_transformer", "fuse_layers": True}
    with pytest.raises(ConfigError, match="fuse_layers"):
        spacy.blank("en").add_pipe("gliner", config={"model": model, "labels": LABELS})


def test_label_sets_of_any_order_and_size(tmp_path: Path) -> None:
    """Their entities depend on the order of the labels, and ours are theirs in any order."""
    model = make_streaming_peer()
    component = load(save(model, tmp_path))
    for labels in (LABELS, LABELS[::-1], [f"label {n}" for n in range(6)]):
        component.labels = labels
        options = {"threshold": 0.5, "flat_ner": True}
        (theirs,) = their_entities(model, TEXTS[:1], labels, **options)
        (ours,) = our_entities(component, TEXTS[:1], **options)
        assert ours == pytest.approx(theirs, abs=CLOSE)


def test_a_bidirectional_model_is_refused(backbone: Path) -> None:
    encoder = {
        "@encoders": "causal_encoder",
        "backbone": {"@backbones": "causal_transformer", "model": str(backbone)},
    }
    model = {
        "@architectures": "gliner_pipe.GLiNER.v1",
        "encoder": encoder,
        "span_rep": {"@span_reps": "marker"},
    }
    component: Any = spacy.blank("en").add_pipe("gliner", config={"model": model, "labels": LABELS})
    with pytest.raises(ConfigError, match=r"encoder\.backbone\.model"):
        component.gliner.build()


# -- sessions ----------------------------------------------------------------------------------------------------------

LONG = f"{TEXTS[0]} {TEXTS[2]} {TEXTS[1]} {TEXTS[0]} "


def fed(component: Any, pieces: list[str], **options: Any) -> dict[tuple[int, int, str], float]:
    """All entities of a session."""
    session = component.session(**options)
    found = [entity for piece in pieces for entity in session.feed(piece)] + session.finish()
    assert [one["start"] for one in found] == sorted(one["start"] for one in found)
    assert all(one["text"] == "".join(pieces)[one["start"] : one["end"]] for one in found)
    return {(one["start"], one["end"], one["label"]): one["score"] for one in found}


def fed_to_peer(model: Any, pieces: list[str], **options: Any) -> dict[tuple[int, int, str], float]:
    """The last snapshot of a session of the `gliner` package."""
    model.clear_sessions()
    for piece in pieces:
        (found,) = model.inference([piece], LABELS, session_id=["one"], **options)
    return {(e["start"], e["end"], e["label"]): e["score"] for e in found}


PIECES = {
    "words": re.findall(r"\S+\s*", LONG),
    "sentences": re.findall(r"[^.!]+[.!]\s+", LONG),
    "text": [LONG],
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"right_context_width": 0},
        {"right_context_width": 9, "max_width": 2},
        {"num_rnn_layers": 1},
        {"span_encoder_config": {"model_type": "rnn", "bidirectional": False, "hidden_size": 16}},
        {"span_encoder_config": {"model_type": "rnn"}},
        {"span_encoder_config": {"model_type": "deberta-v2", "hidden_size": 16}},
    ],
    ids=str,
)
def test_sessions_find_what_theirs_find_at_the_end(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = make_streaming_peer(positions=512, **changes)
    component = load(save(model, tmp_path))
    for kind, flat in (("words", True), ("sentences", False), ("text", False)):
        options = {"threshold": 0.6, "flat_ner": flat, "multi_label": not flat}
        wanted = fed_to_peer(model, PIECES[kind], **options)
        assert len(wanted) > 3
        assert fed(component, PIECES[kind], **options) == pytest.approx(wanted, abs=CLOSE)
    (whole,) = our_entities(component, [LONG], threshold=0.6, flat_ner=False, multi_label=True)
    assert fed(component, [LONG], **options) == pytest.approx(whole, abs=CLOSE)


def test_a_checkpoint_is_written_again(tmp_path: Path) -> None:
    context = {"model_type": "modernbert", "hidden_size": 16, "num_hidden_layers": 2}
    model = make_streaming_peer(right_context_width=3, max_cache_length=100, span_encoder_config=context)
    save(model, tmp_path / "theirs")
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config={"model": str(tmp_path / "theirs"), "labels": LABELS})
    folder = to_gliner(nlp, tmp_path / "ours")
    again = peer.GLiNER.from_pretrained(str(folder), local_files_only=True).eval()
    theirs, ours = model.model.state_dict(), again.model.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (again.config.right_context_width, again.config.max_cache_length) == (3, 100)
    for text in TEXTS:
        assert their_entities(again, [text], threshold=0.5) == their_entities(model, [text], threshold=0.5)
