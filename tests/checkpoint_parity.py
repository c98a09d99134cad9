"""Tiny random checkpoints of the `gliner` package, and what it and this project find with them."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import random
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import make_backbone, make_causal_lm
from torch import Tensor, nn

from gliner_pipe.modeling.encoders.base import Query

peer = pytest.importorskip("gliner")

TEXTS = [
    "Maria Lindqvist joined Oslo University on 3 March 2019.",
    "Hi!",
    "The baker from Lima, who had measles, bought a well-known painting for $40 in Berlin.",
]
LABELS = ["person", "big city", "date"]
RELATIONS = ["works for", "born in"]
KINDS = ("bert", "deberta-v2", "modernbert")

#: Largest difference of logits and of scores, in fp32.
CLOSE = 1e-4

_FOLDER = tempfile.TemporaryDirectory()
atexit.register(_FOLDER.cleanup)
_NLP = spacy.blank("en")


@functools.cache
def backbone(kind: str = "bert", hidden_size: int = 32) -> Path:
    """Folder of a tiny random encoder, made once."""
    return make_backbone(Path(_FOLDER.name) / f"{kind}-{hidden_size}", kind, hidden_size)


@functools.cache
def causal_lm(hidden_size: int = 32, kind: str = "gpt2") -> Path:
    """Folder of a tiny random language model, made once."""
    return make_causal_lm(Path(_FOLDER.name) / f"{kind}-lm-{hidden_size}", hidden_size, kind)


def hf_settings(folder: Path) -> dict[str, Any]:
    """Configuration of a Hugging Face model."""
    return json.loads((folder / "config.json").read_text())


def make_peer(kind: str = "bert", seed: int = 1, **changes: Any) -> Any:
    """Make a random model of the `gliner` package; scores lie far apart, and none is at 0 or 1."""
    folder = backbone(kind)
    config = {
        "model_name": str(folder),
        "encoder_config": hf_settings(folder),
        "span_mode": "markerV0",
        "max_width": 4,
        "hidden_size": 32,
        **changes,
    }
    return _randomized(config, seed)


def make_streaming_peer(
    kind: str = "qwen2", seed: int = 1, positions: int | None = None, **changes: Any
) -> Any:
    """Make a random streaming model of the `gliner` package over a language model, as ``make_peer``."""
    folder = causal_lm(kind=kind)
    config = {
        "model_type": "gliner_streaming_span",
        "model_name": str(folder),
        "decoder_config": {
            **hf_settings(folder),
            **({"max_position_embeddings": positions} if positions else {}),
        },
        "labels_encoder_config": {"model_type": "deberta-v2", "hidden_size": 16, "num_hidden_layers": 2},
        "max_width": 4,
        "hidden_size": 32,
        **changes,
    }
    return _randomized(config, seed)


def _randomized(config: Mapping[str, Any], seed: int) -> Any:
    torch.manual_seed(seed)
    model = peer.GLiNER.from_config(dict(config), backbone_from_pretrained=False).eval()
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "decoder_layer" not in name:
            nn.init.normal_(parameter, std=0.15)
    _calibrate(model)
    return model


def bi_settings(kind: str = "bert", hidden_size: int = 24, saved: bool = True) -> dict[str, Any]:
    """Settings of a labels encoder; `saved`: with its configuration, not only its name."""
    folder = backbone(kind, hidden_size)
    settings: dict[str, Any] = {"labels_encoder": str(folder)}
    return {**settings, "labels_encoder_config": hf_settings(folder)} if saved else settings


def decoder_settings(hidden_size: int = 32, kind: str = "gpt2", **changes: Any) -> dict[str, Any]:
    """Settings of a language model that writes labels; it is loaded with its weights afterwards."""
    folder = causal_lm(hidden_size, kind)
    settings = {"labels_decoder": str(folder), "labels_decoder_config": hf_settings(folder)}
    return {**settings, "decoder_mode": "span", **changes}


def _scale(layer: nn.Module, factor: float) -> None:
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(factor)


def _calibrate(model: Any) -> None:
    """Scale the last layers so that the largest logit is 4."""
    core = model.model
    # GLiNER 0.2.29 fails where a relation layer that attends is given no entity
    threshold = 0.0 if getattr(model.config, "relations_layer", None) in ("attention", "gat") else 0.5
    largest = max(float(run_peer(model, [text], threshold=threshold).logits.abs().max()) for text in TEXTS)
    _scale(core.scorer.out_mlp[3] if hasattr(core, "scorer") else core.prompt_rep_layer[3], 4 / largest)
    if hasattr(core, "scorer") and represents_spans(model):
        found = [run_peer(model, [text]).span_logits for text in TEXTS]
        largest = max(float(logits.abs().max()) for logits in found if logits.numel())
        _scale(core.span_rep_layer.span_rep_layer.out_project[3], 4 / largest)


def represents_spans(model: Any) -> bool:
    """Whether a token model of the `gliner` package scores the spans that it found once more."""
    return bool(model.config.represent_spans) and getattr(model.config, "relations_layer", None) is None


def prepare_peer(
    model: Any, texts: Sequence[str], labels: Sequence[str] = LABELS, relations: Sequence[str] = RELATIONS
) -> Any:
    """Make one batch of all texts."""
    if getattr(model.config, "relations_layer", None) is None:
        prepared = model.prepare_batch(list(texts), list(labels))
        return model.collate_batch(prepared["input_x"], prepared["entity_types"])
    prepared = model.prepare_batch(list(texts), list(labels), relations=list(relations))
    asked = {"relation_types": prepared["relation_types"]}
    return model.collate_batch(prepared["input_x"], prepared["entity_types"], **asked)


def run_peer(model: Any, texts: Sequence[str], labels: Sequence[str] = LABELS, **options: Any) -> Any:
    """Run all texts as one batch, without decoding; `options` as ``threshold``."""
    with torch.inference_mode():
        return model.model(**prepare_peer(model, texts, labels), **{"threshold": 0.5, **options})


def save(model: Any, folder: Path, safe: bool = True, changes: Mapping[str, Any] | None = None) -> Path:
    """Write the checkpoint, with `changes` to its configuration; `safe`: as safetensors, else pickled."""
    model.save_pretrained(folder, safe_serialization=safe)
    if changes:
        path = folder / "gliner_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def forget_tokenizers(folder: Path) -> None:
    """Make the checkpoint an old one: no tokenizer, no place of the entity token."""
    path = folder / "gliner_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "class_token_index": -1, "vocab_size": -1}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


def forget_other_tokenizers(folder: Path) -> None:
    """Take the tokenizers of labels encoder and language model out of the checkpoint."""
    for name in ("labels_tokenizer", "decoder_tokenizer"):
        shutil.rmtree(folder / name, ignore_errors=True)


def load(folder: Path, labels: Sequence[Any] = LABELS, **settings: Any) -> Any:
    """Read the checkpoint into a component."""
    nlp = spacy.blank("en")
    config = {"model": str(folder), "labels": list(labels), "device": "cpu", **settings}
    component = nlp.add_pipe("gliner", config=config)
    assert component.gliner.is_built
    return component


def score(
    component: Any, texts: Sequence[str], labels: Sequence[str] = LABELS, relations: Sequence[str] = ()
) -> tuple[list[list[str]], Tensor]:
    """Words, and logits as this project has them, of all texts in one batch."""
    model = component.gliner.eval()
    words = [component.word_splitter.split(_NLP.make_doc(text)).texts for text in texts]
    query = Query(tuple(labels), tuple(relations))
    windows = model.encoder.prepare(words, [query] * len(texts), model.min_overlap)
    assert len(windows) == len(texts)
    with torch.inference_mode():
        return [list(text) for text in words], model.score(model.encoder.collate(windows))


def different(theirs: Tensor, ours: Tensor, lengths: Sequence[int]) -> float:
    """Largest difference of logits over the spans, or words, that there are."""
    assert theirs.shape == ours.shape
    words = torch.arange(theirs.shape[1])[None, :, None]
    if theirs.shape[-1] != 3 or theirs.shape[2] == 4:  # spans, not start, end and inside
        words = words + torch.arange(theirs.shape[2])
    mask = words < torch.tensor(lengths)[:, None, None]
    return float(((theirs - ours).abs() * mask[..., None]).max())


def gap(scores: Iterable[float], low: float = 0.4, high: float = 0.8) -> float:
    """Return a threshold in the widest gap between the scores, in the middle of their ranks."""
    ranked = sorted(scores)
    middle = range(int(len(ranked) * low), max(int(len(ranked) * high), int(len(ranked) * low) + 1))
    at = max(middle, key=lambda index: ranked[index + 1] - ranked[index])
    assert ranked[at + 1] - ranked[at] > 1e-5 * ranked[at + 1]
    return (ranked[at] + ranked[at + 1]) / 2


def valid_scores(theirs: Tensor, lengths: Sequence[int]) -> list[float]:
    """Probabilities of the spans, or words, that there are."""
    words = torch.arange(theirs.shape[1])[None, :, None].expand(theirs.shape[0], -1, theirs.shape[2])
    if theirs.shape[-1] != 3 or theirs.shape[2] == 4:
        words = words + torch.arange(theirs.shape[2])
    return theirs.sigmoid()[words < torch.tensor(lengths)[:, None, None]].flatten().tolist()


Entities = dict[tuple[int, int, str], float]


def their_entities(
    model: Any, texts: Sequence[str], labels: Any = LABELS, together: bool = False, **options: Any
) -> list[Entities]:
    """Entities by first and last character and label, with their scores; `together`: all texts in one batch."""
    if isinstance(getattr(model.config, "labels_decoder", None), str):
        return _without_writing(model, texts, labels, **options)
    found = model.inference(list(texts), labels, batch_size=len(texts) if together else 1, **options)
    found = found[0] if isinstance(found, tuple) else found
    return [{(e["start"], e["end"], e["label"]): e["score"] for e in text} for text in found]


def _without_writing(
    model: Any, texts: Sequence[str], labels: Sequence[str], **options: Any
) -> list[Entities]:
    """Entities whose labels are not written: GLiNER 0.2.29 fails where a text has no entity."""
    result = []
    for text in texts:
        batch = prepare_peer(model, [text], labels)
        with torch.inference_mode():
            out = model.model(**batch, threshold=options["threshold"])
        out.gen_labels, out.num_gen_sequences = None, 1
        (spans,) = model.decode_batch(out, batch, **options)
        _, starts, ends = model.prepare_inputs([text])
        result.append({(starts[0][s.start], ends[0][s.end], s.entity_type): s.score for s in spans})
    return result


def our_entities(component: Any, texts: Sequence[str], **settings: Any) -> list[Entities]:
    """As ``their_entities``; all texts at once."""
    component.cfg = {**component.cfg, **settings}
    docs = [_NLP.make_doc(text) for text in texts]
    result = []
    for doc, prediction in zip(docs, component.predict(docs), strict=True):
        offsets = component.word_splitter.split(doc).offsets
        if offsets is None:
            offsets = [(token.idx, token.idx + len(token)) for token in doc]
        result.append(
            {(offsets[e.start][0], offsets[e.end][1], e.label): e.score for e in prediction.entities}
        )
    return result


def cover(factors: Mapping[str, Sequence[Any]], seed: int = 0) -> list[dict[str, Any]]:
    """Combinations in which each pair of values of two factors occurs (a seeded pairwise cover)."""
    rng = random.Random(seed)
    names = list(factors)
    open_pairs = {
        frozenset({(a, repr(x)), (b, repr(y))})
        for a, b in itertools.combinations(names, 2)
        for x in factors[a]
        for y in factors[b]
    }

    def pairs(row: Mapping[str, Any]) -> set[frozenset[tuple[str, str]]]:
        return {frozenset({(a, repr(row[a])), (b, repr(row[b]))}) for a, b in itertools.combinations(row, 2)}

    def gain(row: Mapping[str, Any], name: str, value: Any) -> int:
        """Count the open pairs of a value with those of a row."""
        return sum(frozenset({(other, repr(row[other])), (name, repr(value))}) in open_pairs for other in row)

    rows = []
    while open_pairs:
        best: dict[str, Any] = {}
        for _ in range(20):
            row: dict[str, Any] = {}
            for name in rng.sample(names, len(names)):
                values = rng.sample(list(factors[name]), len(factors[name]))
                row[name] = max(values, key=lambda value: gain(row, name, value))
            best = max(best, row, key=lambda one: len(pairs(one) & open_pairs))
        open_pairs -= pairs(best)
        rows.append({name: best[name] for name in names})
    return rows


FACTORS: dict[str, Sequence[Any]] = {
    "family": ("uni", "bi", "writes", "relates"),
    "mode": (
        *("marker", "markerV0", "markerV1", "markerV2", "query", "mlp", "cat", "conv_conv", "conv_max"),
        *("conv_mean", "conv_sum", "conv_share", "token_level", "token_level, spans represented"),
    ),
    "kind": KINDS,
    "pooling": ("first", "last", "mean", "max"),
    "embed_ent_token": (True, False),
    "fuse_layers": (False, True),
    "rnn_layers": (0, 1, 2),
    "hidden_size": (32, 48),  # that of the encoder is 32
    "context": (None, "rnn", "deberta-v2", "modernbert"),
    "fusion": ("", "l2l", "t2t-l2t", "t2l-l2t"),
    "fusion_depth": (1, 2),
    "words": ("whitespace", "spacy"),
    "old": (False, True),  # without tokenizer and place of the entity token
    "tokenizers": (True, False),  # of labels encoder and language model
    "safe": (True, False),
}


@functools.cache
def combinations() -> list[dict[str, Any]]:
    """All combinations, computed once."""
    return cover(FACTORS)


def cases(family: str, token: bool) -> list[Any]:
    """Combinations of options of one architecture, each a parameter set of a test."""
    rows = [row for row in combinations() if row["family"] == family]
    rows = [row for row in rows if row["mode"].startswith("token") == token]
    return [
        pytest.param(row, id="-".join(str(value) for value in row.values() if value != "")) for row in rows
    ]


def settings_of(case: Mapping[str, Any]) -> dict[str, Any]:
    """``gliner_config.json`` of a combination of options."""
    mode, _, represented = case["mode"].partition(", ")
    settings: dict[str, Any] = {
        "span_mode": mode,
        "represent_spans": bool(represented),
        "subtoken_pooling": case["pooling"],
        "embed_ent_token": case["embed_ent_token"],
        "fuse_layers": case["fuse_layers"],
        "num_rnn_layers": case["rnn_layers"],
        "hidden_size": case["hidden_size"],
        "post_fusion_schema": case["fusion"],
        "num_post_fusion_layers": case["fusion_depth"],
        "words_splitter_type": case["words"],
    }
    if case["context"]:
        context = {"model_type": case["context"], "hidden_size": 16, "num_hidden_layers": 2}
        settings["span_encoder_config"] = context
    if case["family"] == "bi":
        settings |= bi_settings(case["kind"], saved=case["tokenizers"])
    elif case["family"] == "writes":
        settings |= decoder_settings(32 if case["tokenizers"] else 24)
    elif case["family"] == "relates":
        settings["relations_layer"] = "dot"
    return settings


def check_case(case: Mapping[str, Any], folder: Path) -> None:
    """Compare logits of all spans or words, and entities, of a combination of options."""
    model = make_peer(case["kind"], **settings_of(case))
    save(model, folder, case["safe"])
    if case["old"] and case["family"] != "bi":
        forget_tokenizers(folder)
    if not case["tokenizers"]:
        forget_other_tokenizers(folder)
    # in GLiNER 0.2.29, labels of a bi-encoder whose layers are fused depend on the labels beside them
    labels = LABELS[:1] if case["fuse_layers"] and case["family"] == "bi" else LABELS
    check(model, load(folder, labels), labels, alone=alone(model))


def alone(model: Any) -> bool:
    """Whether GLiNER 0.2.29 must be given each text by itself.

    Padding is read by fused layers, by ``markerV1`` and ``markerV2`` and by context encoders, so that what is found in
    a text depends on the texts beside it; and spans of padding are represented, which fails.
    """
    config = model.config
    by_padding = config.span_mode in ("markerV1", "markerV2") or config.span_encoder_config is not None
    return bool(config.fuse_layers or by_padding or represents_spans(model))


def check(
    model: Any,
    component: Any,
    labels: Sequence[str] = LABELS,
    texts: Sequence[str] = TEXTS,
    alone: bool = False,
) -> None:
    """Compare logits and entities; with `alone` those of each text by itself with ours of all texts at once."""
    relations = RELATIONS if getattr(model.config, "relations_layer", None) is not None else ()
    scores: list[float] = []
    words, ours = score(component, texts, labels, relations)
    lengths = [len(text) for text in words]
    groups = [[at] for at in range(len(texts))]
    for group in groups if alone else [*groups, list(range(len(texts)))]:
        some = [texts[at] for at in group]
        assert prepare_peer(model, some, labels)["tokens"] == [words[at] for at in group]
        theirs = run_peer(model, some, labels).logits
        here = [lengths[at] for at in group]
        assert different(theirs, ours[group, : theirs.shape[1]], here) < CLOSE
        scores += valid_scores(theirs, here)
    threshold = _lively_threshold(model, texts, labels, scores)
    for flat in (True, False):  # tests of the decoder compare all its settings
        options = {"threshold": threshold, "flat_ner": flat, "multi_label": not flat}
        theirs_found = their_entities(model, texts, labels, together=not alone, **options)
        for found, wanted in zip(our_entities(component, texts, **options), theirs_found, strict=True):
            assert found == pytest.approx(wanted, abs=CLOSE)


def _lively_threshold(model: Any, texts: Sequence[str], labels: Sequence[str], scores: list[float]) -> float:
    """Return a threshold that a good many spans pass, and none lies at."""
    for low in (0.6, 0.4, 0.2, 0.05):
        threshold = gap(scores, low, low + 0.2)
        options = {"threshold": threshold, "flat_ner": False, "multi_label": True}
        if sum(map(len, their_entities(model, texts, labels, **options))) > 5:
            return threshold
    raise AssertionError("no threshold with enough entities")
