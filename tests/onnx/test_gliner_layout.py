"""The files of GLiNER's ONNX layout give the entities of the pipeline with onnxruntime alone, `gliner` and `fast-gliner`."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from conftest import make_causal_lm

from gliner_pipe.checkpoints.gliner_read import CONFIG
from gliner_pipe.errors import ConfigError
from gliner_pipe.export import export, main
from gliner_pipe.modeling.encoders.base import Query
from gliner_pipe.modeling.inference import TokenBudget, predict_spans

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.filterwarnings("ignore")

#: There is a space between all words: gline-rs takes entities that touch for overlapping ones.
TEXTS = [
    "Maria Lindqvist joined Oslo University on 3 March 2019 .",
    "The baker from Lima , who had measles , bought a well-known painting for $ 40 at 7 pm in Berlin .",
    "Rome burns",
]
LABELS = ["person", "big city", "date"]
#: Spans of one word cannot overlap, so that all runtimes select the same.
SPANS = {"@span_reps": "markerV0", "max_width": 1}
TOKENS = {"@span_reps": "token_level"}


def made(backbone: Path, seed: int = 4, **blocks: Any) -> Any:
    """An untrained pipeline; with these seeds some scores are above 0.5 and some below."""
    nlp = spacy.blank("en")
    text = {"@backbones": "transformer", "model": str(backbone)}
    if blocks.pop("bi", False):
        blocks["encoder"] = {"@encoders": "bi_encoder", "backbone": text, "label_model": str(backbone)}
    encoder = {"@encoders": "uni_encoder", "backbone": text, "rnn_layers": 1}
    blocks = {"encoder": encoder, "span_rep": SPANS, **blocks}
    model = {"@architectures": "gliner_pipe.GLiNER.v1", **blocks}
    config = {"model": model, "labels": LABELS, "word_splitter": {"@word_splitters": "whitespace"}}
    component: Any = nlp.add_pipe("gliner", config=config)
    torch.manual_seed(seed)
    component.gliner.build()
    for parameter in component.gliner.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return nlp


def written(nlp: Any, folder: Path, **options: Any) -> Path:
    export(pipeline=nlp, output=folder, onnx=True, layout="gliner", **options)
    return folder


def candidates(nlp: Any) -> list[set[tuple[int, int, str]]]:
    """What the model finds, before the best of overlapping spans are selected."""
    model = nlp.get_pipe("gliner").gliner
    words = [list(re.finditer(r"\w+(?:[-_]\w+)*|\S", text)) for text in TEXTS]
    read = [[word.group() for word in text] for text in words]
    windows = model.encoder.prepare(read, [Query(tuple(LABELS))] * len(TEXTS), model.min_overlap)
    found = predict_spans(model, windows, [[0.5] * len(LABELS)] * len(TEXTS), TokenBudget(2048))
    return [
        {(text[start].start(), text[end].end(), LABELS[label]) for start, end, label, _ in one.candidates}
        for text, one in zip(words, found, strict=True)
    ]


def expected(nlp: Any) -> list[dict[tuple[int, int, str], float]]:
    """Entities of the pipeline, by characters."""
    component = nlp.get_pipe("gliner")
    found = []
    for text in TEXTS:
        doc = nlp.make_doc(text)
        offsets = component.word_splitter.split(doc).offsets
        (one,) = component.predict([doc])
        found.append({(offsets[e.start][0], offsets[e.end][1], e.label): e.score for e in one.entities})
    assert sum(map(len, found)) > 3
    return found


def by_gliner(folder: Path, file: str) -> list[dict[tuple[int, int, str], float]]:
    model = pytest.importorskip("gliner").GLiNER.from_pretrained(
        str(folder), local_files_only=True, load_onnx_model=True, onnx_model_file=file
    )
    found = model.inference(TEXTS, LABELS, threshold=0.5, flat_ner=True)
    return [{(e["start"], e["end"], e["label"]): e["score"] for e in one} for one in found]


def by_fast_gliner(folder: Path) -> list[dict[tuple[int, int, str], float]]:
    model = pytest.importorskip("fast_gliner").FastGLiNER.from_pretrained(str(folder))
    found = model.predict_entities(TEXTS, LABELS)
    return [{(e["start"], e["end"], e["label"]): e["score"] for e in one} for one in found]


def alike(found: list[dict[Any, float]], wanted: list[dict[Any, float]]) -> None:
    for one, two in zip(found, wanted, strict=True):
        assert one == pytest.approx(two, abs=1e-4)


@pytest.fixture(scope="module")
def spans(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    nlp = made(backbone)
    # as the file of MiniLM has: padding to, and truncation at, a fixed length
    rust = nlp.get_pipe("gliner").gliner.encoder.backbone.tokenizer.backend_tokenizer
    rust.enable_padding(length=128)
    rust.enable_truncation(128)
    return nlp, written(nlp, tmp_path_factory.mktemp("spans") / "out")


@pytest.fixture(scope="module")
def tokens(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    nlp = made(backbone, 2, span_rep=TOKENS)
    return nlp, written(nlp, tmp_path_factory.mktemp("tokens") / "out")


def test_spans_with_onnxruntime_alone(spans: tuple[Any, Path]) -> None:
    from tokenizers import Tokenizer

    nlp, folder = spans
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    session = runtime.InferenceSession(folder / "onnx" / "model.onnx")
    found = []
    for text in TEXTS:
        words = list(re.finditer(r"\w+(?:[-_]\w+)*|\S", text))
        prompt = [part for label in LABELS for part in ("<<ENT>>", label)] + ["<<SEP>>"]
        read = tokenizer.encode([*prompt, *(word.group() for word in words)], is_pretokenized=True)
        marks, before = [], None
        for number in read.word_ids:
            is_first = number is not None and number >= len(prompt) and number != before
            marks.append(number - len(prompt) + 1 if is_first else 0)
            before = number
        inputs = {
            "input_ids": np.array([read.ids]),
            "attention_mask": np.array([read.attention_mask]),
            "words_mask": np.array([marks]),
            "text_lengths": np.array([[len(words)]]),
            "span_idx": np.array([[[place, place] for place in range(len(words))]]),
            "span_mask": np.ones((1, len(words)), bool),
        }
        (logits,) = session.run(["logits"], inputs)
        assert logits.shape == (1, len(words), 1, len(LABELS))
        scores = 1 / (1 + np.exp(-logits[0, :, 0]))
        best = scores.argmax(1)
        found.append(
            {
                (word.start(), word.end(), LABELS[label]): float(scores[place, label])
                for place, (word, label) in enumerate(zip(words, best, strict=True))
                if scores[place, label] > 0.5
            }
        )
    alike(found, expected(nlp))


def test_spans_in_python_and_rust(spans: tuple[Any, Path]) -> None:
    nlp, folder = spans
    alike(by_gliner(folder, "onnx/model.onnx"), expected(nlp))
    alike(by_fast_gliner(folder), expected(nlp))


def test_words_in_python_and_rust(tokens: tuple[Any, Path]) -> None:
    nlp, folder = tokens
    alike(by_gliner(folder, "model.onnx"), expected(nlp))
    # gline-rs selects overlapping spans from left to right, and scores a span by a mean where others take the minimum
    found = by_fast_gliner(folder)
    assert sum(map(len, found)) > 3
    for one, every in zip(found, candidates(nlp), strict=True):
        alone = {key for key in every if not any(overlap(key, other) for other in every if other != key)}
        assert alone <= set(one) <= every


def overlap(one: tuple[int, int, str], two: tuple[int, int, str]) -> bool:
    return one[0] < two[1] and two[0] < one[1]


def test_label_encoders(backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nlp = made(backbone, bi=True, span_rep={**SPANS, "max_width": 4})
    with caplog.at_level(logging.WARNING):
        folder = written(nlp, tmp_path / "spans")
    assert "label encoder" in caplog.text
    alike(by_gliner(folder, "onnx/model.onnx"), expected(nlp))
    words = written(made(backbone, 7, bi=True, span_rep=TOKENS), tmp_path / "words", int8=True)
    assert not (words / "model.onnx").exists()
    sizes = [(one / "onnx" / "model.onnx").stat().st_size for one in (words, folder)]
    assert sizes[0] < sizes[1]
    assert any(by_gliner(words, "onnx/model.onnx"))


def test_other_architectures(backbone: Path, tmp_path: Path) -> None:
    text = {"@backbones": "transformer", "model": str(backbone), "pooling": "mean"}
    blocks = {
        "encoder": {"@encoders": "uni_encoder", "backbone": text, "embed_ent_token": True, "rnn_layers": 0},
        "span_rep": {"@span_reps": "conv_share", "max_width": 3},
        "context": {"@context_encoders": "deberta-v2", "n_layers": 1},
    }
    nlp = made(backbone, **blocks)
    alike(by_gliner(written(nlp, tmp_path / "out"), "onnx/model.onnx"), expected(nlp))


def test_files(spans: tuple[Any, Path], tokens: tuple[Any, Path]) -> None:
    import onnx

    _, folder = spans
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf8"))
    assert tokenizer["padding"] is None and tokenizer["truncation"] is None
    config = json.loads((folder / CONFIG).read_text(encoding="utf8"))
    assert (config["mode"], config["max_width"]) == ("span", 1)
    assert json.loads((tokens[1] / CONFIG).read_text(encoding="utf8"))["mode"] == "token"
    model = onnx.load(folder / "onnx" / "model.onnx")
    assert [item.version for item in model.opset_import if not item.domain] == [18]
    assert model.ir_version <= 10  # what onnxruntime 1.20 in gline-rs reads
    sizes = {
        item.name: [size.dim_param or size.dim_value for size in item.type.tensor_type.shape.dim]
        for item in model.graph.input
    }
    assert sizes == {
        "input_ids": ["rows", "pieces"],
        "attention_mask": ["rows", "pieces"],
        "words_mask": ["rows", "pieces"],
        "text_lengths": ["rows", 1],
        "span_idx": ["rows", "spans", 2],
        "span_mask": ["rows", "spans"],
    }
    for file in (tokens[1] / "model.onnx", tokens[1] / "onnx" / "model.onnx"):
        onnx.checker.check_model(file, full_check=True)


def test_what_runtimes_read_differently_is_reported(
    backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from gliner_pipe.onnx.gliner_layout import _differences

    text = {"@backbones": "transformer", "model": str(backbone), "pooling": "last"}
    nlp = made(backbone, encoder={"@encoders": "uni_encoder", "backbone": text, "ent_token": "<<L>>"})
    backbone_block = nlp.get_pipe("gliner").gliner.encoder.backbone
    backbone_block.suffix = ()
    notes = " ".join(_differences(nlp.get_pipe("gliner").gliner))
    assert "pooling" in notes and "ent_token" in notes and "one after" in notes


@pytest.mark.parametrize(
    ("blocks", "section"),
    [
        ({"span_rep": {**TOKENS, "represent_spans": True}}, r"model\.span_rep\.represent_spans\]"),
        (
            {"relation_layer": {"@relation_layers": "dot"}, "triple": {"@triples": "distmult"}},
            r"model\.relation_layer\]",
        ),
        ({"classifier": {"@classifiers": "label_mlp"}}, r"model\."),
    ],
)
def test_what_it_cannot_hold_is_refused(
    blocks: dict[str, Any], section: str, backbone: Path, tmp_path: Path
) -> None:
    text = {"@backbones": "transformer", "model": str(backbone)}
    if "relation_layer" in blocks:
        blocks = {
            **blocks,
            "encoder": {"@encoders": "uni_encoder", "backbone": text, "rel_token": "<<REL>>"},
        }
    if "classifier" in blocks:
        blocks = {
            **blocks,
            "counter": {"@counters": "count_lstm"},
            "encoder": {"@encoders": "schema_encoder", "backbone": text},
        }
    with pytest.raises(ConfigError, match=section):
        written(made(backbone, **blocks), tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_causal_encoders_are_refused(tmp_path: Path) -> None:
    text = {"@backbones": "causal_transformer", "model": str(make_causal_lm(tmp_path / "lm"))}
    encoder = {"@encoders": "causal_encoder", "backbone": {**text, "window": 90}}
    with pytest.raises(ConfigError, match=r"gliner\.model\.encoder\]"):
        written(
            made(tmp_path, encoder=encoder, span_rep={"@span_reps": "markerV2", "max_width": 2}),
            tmp_path / "never",
        )


def test_mistakes_on_the_command_line(
    backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(backbone).to_disk(tmp_path / "model")
    options = ["--pipeline", str(tmp_path / "model"), "--output", str(tmp_path / "out"), "--onnx"]
    for more, section in (
        (["--layout", "gliner", "--threads", "2"], "[threads]"),
        (["--component", "gliner"], "[component]"),
        (["--layout", "gliner", "--component", "ner"], "[component]"),
    ):
        with pytest.raises(SystemExit):
            main([*options, *more])
        assert section in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
