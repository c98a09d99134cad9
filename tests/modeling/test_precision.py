from __future__ import annotations

import copy
import hashlib
import pickle
from pathlib import Path
from typing import Any

import pytest
import relation_pipeline
import spacy
import tagging_pipeline
import torch
from conftest import gliner_config, kept_in, make_backbone, make_causal_lm
from torch import nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling import precision as precision_module
from gliner_pipe.modeling.inference import predict_spans
from gliner_pipe.modeling.layers.int8 import Int8Linear
from gliner_pipe.modeling.precision import Precision

TEXTS = [
    "Ada met Grace in Paris .",
    "Rome is a city in the south of Italy , and old .",
    "Alan Smith lives in London .",
]
REDUCED = [
    {"dtype": "bf16"},
    {"dtype": "fp16"},
    {"quantize": "int8"},
    {"dtype": "bf16", "quantize": "int8"},
]


def scores(nlp: Any, texts: list[str] = TEXTS, component: Any = None) -> dict[tuple[Any, ...], float]:
    """Score of every span for every label, as the threshold is 0."""
    component = component or nlp.get_pipe("gliner")
    prepared = component.prepare([nlp.make_doc(text) for text in texts])
    limits = [request.limits for request in prepared.requests]
    found = predict_spans(component.gliner, prepared.windows, limits, component.token_budget)
    return {(at, *one[:3]): one.score for at, text in enumerate(found) for one in text.candidates}


def differs(one: Any, other: Any) -> float:
    assert one.keys() == other.keys()
    return max(abs(one[key] - other[key]) for key in one)


def change(component: Any, **settings: Any) -> Any:
    for name, value in settings.items():
        setattr(component, name, value)
    return component


def backbone_of(nlp: Any) -> Any:
    return nlp.get_pipe(nlp.pipe_names[-1]).network.encoder.backbone


def fresh(nlp: Any) -> Any:
    """Another pipeline with the same weights."""
    made = type(nlp).from_config(nlp.config)
    return made.from_bytes(nlp.to_bytes())


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(scope="module", params=["bert", "deberta-v2", "modernbert"])
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Pipeline over a random backbone, that finds every span."""
    folder = make_backbone(tmp_path_factory.mktemp("wide"), request.param)
    return pipeline(folder)


#: Settings that show every span.
EVERYTHING = {"threshold": 0.0, "flat_ner": False, "multi_label": True}


def pipeline(backbone: Path, **settings: Any) -> Any:
    torch.manual_seed(0)
    nlp = spacy.blank("en")
    found = {**EVERYTHING, **settings}
    nlp.add_pipe("gliner", config=gliner_config(backbone, **found))
    nlp.initialize()
    return nlp


@pytest.fixture
def everything(backbone: Path) -> Any:
    return pipeline(backbone)


# -- predictions at reduced precision ---------------------------------------------------------------------------


@pytest.mark.parametrize("settings", REDUCED, ids=str)
def test_close_to_full_precision_and_back(wide: Any, settings: dict[str, Any]) -> None:
    component = wide.get_pipe("gliner")
    before = scores(wide)
    spread = max(before.values()) - min(before.values())
    change(component, **settings)
    reduced = scores(wide)
    change(component, dtype=None, quantize=None)
    assert 0 < differs(reduced, before) < 0.05 * spread
    assert scores(wide) == before  # the very same bits


@pytest.mark.parametrize("span_rep", ["markerV0", "markerV1", "markerV2", "token_level"])
def test_heads_follow_the_dtype(backbone: Path, span_rep: str) -> None:
    nlp = pipeline(backbone)
    config = gliner_config(backbone)["model"] | {"span_rep": {"@span_reps": span_rep}}
    nlp.replace_pipe("gliner", "gliner", config={"model": config, "labels": ["person", "city"], **EVERYTHING})
    nlp.initialize()
    component = nlp.get_pipe("gliner")
    if span_rep == "token_level":
        component.threshold = 0.4
    before, weights = scores(nlp), copy.deepcopy(component.gliner.state_dict())
    head = component.gliner.span_rep
    heads = [component.gliner.encoder.rnn, head.scorer if span_rep == "token_level" else head]
    change(component, quantize="int8")
    scores(nlp)
    assert [len(one.reduced._copy) for one in heads] == [0, 0]
    change(component, dtype="bf16", quantize=None)
    reduced = scores(nlp)
    for one in heads:
        assert {weight.dtype for weight in kept_in(one.reduced._copy)[0].parameters()} == {torch.bfloat16}
    common = reduced.keys() & before.keys()
    assert len(common) > 0.9 * len(before)
    assert 0 < max(abs(reduced[key] - before[key]) for key in common) < 0.02
    change(component, dtype=None)
    assert scores(nlp) == before
    for name, weight in component.gliner.state_dict().items():
        assert torch.equal(weight, weights[name])


def test_fp32_is_the_model_itself(everything: Any) -> None:
    before = scores(everything)
    change(everything.get_pipe("gliner"), dtype="fp32")
    assert scores(everything) == before
    backbone = backbone_of(everything).eval()
    with torch.no_grad():
        assert backbone._current_encoder() is backbone.encoder


def test_copies_share_equal_weights(everything: Any) -> None:
    """Int8 shares all but linear layers with the encoder; bf16 has everything in bf16."""
    backbone = backbone_of(everything).eval()
    backbone.reduced.precision = Precision(quantize="int8")
    with torch.no_grad():
        int8 = backbone._current_encoder()
        backbone.reduced.precision = Precision("bf16")
        bf16 = backbone._current_encoder()
    assert not any(isinstance(module, nn.Linear) for module in int8.modules())
    assert sum(isinstance(module, Int8Linear) for module in int8.modules()) == sum(
        isinstance(module, nn.Linear) for module in backbone.encoder.modules()
    )
    assert int8.get_input_embeddings().weight is backbone.encoder.get_input_embeddings().weight
    assert {weight.dtype for weight in bf16.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in backbone.encoder.parameters()} == {torch.float32}
    assert all(weight.requires_grad for weight in backbone.encoder.parameters())


@pytest.mark.parametrize("settings", REDUCED, ids=str)
def test_other_texts_in_the_batch_change_rounding_only(everything: Any, settings: dict[str, Any]) -> None:
    change(everything.get_pipe("gliner"), **settings)
    together = scores(everything)
    alone = scores(everything, TEXTS[:1])
    of_first = {key: value for key, value in together.items() if key[0] == 0}
    assert differs(alone, of_first) < 5e-4  # a number in bf16 may be rounded the other way


def test_token_classifier(backbone: Path) -> None:
    nlp = tagging_pipeline.trained(backbone, decoder="softmax")
    texts = [" ".join(words) for words, _ in tagging_pipeline.DATA]
    before = [[(s.text, s.label_) for s in doc.spans["gliner"]] for doc in nlp.pipe(texts)]
    for settings in REDUCED:
        change(nlp.get_pipe("token_classifier"), **{"dtype": None, "quantize": None, **settings})
        docs = list(nlp.pipe(texts))
        assert [[(s.text, s.label_) for s in doc.spans["gliner"]] for doc in docs] == before
        assert isinstance(kept_in(backbone_of(nlp).reduced._copy)[0], nn.Module)


def test_relations(backbone: Path) -> None:
    nlp = relation_pipeline.trained(relation_pipeline.config(backbone))
    for settings in REDUCED[1:]:
        change(nlp.get_pipe("gliner"), **{"dtype": None, "quantize": None, **settings})
        docs = nlp.pipe(relation_pipeline.docs_of(nlp))
        assert list(map(relation_pipeline.found, docs)) == relation_pipeline.EXPECTED


def test_generated_labels(backbone: Path, tmp_path: Path) -> None:
    config = gliner_config(backbone, labels=["entity"], threshold=0.0)
    config["model"]["decoder"] = {
        "@decoders": "generative",
        "model": str(make_causal_lm(tmp_path / "lm")),
        "max_new_tokens": 3,
    }
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    change(nlp.get_pipe("gliner"), dtype="bf16")
    assert all(nlp(TEXTS[0]).spans["gliner"].attrs["generated_labels"])


def test_label_vectors_of_a_bi_encoder_stay_in_full_precision(backbone: Path) -> None:
    config = gliner_config(backbone, threshold=0.0, flat_ner=False, multi_label=True)
    config["model"]["encoder"] |= {"@encoders": "bi_encoder", "label_model": str(backbone)}
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=config)
    nlp.initialize()
    component = nlp.get_pipe("gliner")
    model = component.gliner.eval().encoder
    with torch.inference_mode():
        before, kept = scores(nlp), model.encode_labels(("person", "city")).clone()
    change(component, dtype="bf16")
    assert differs(scores(nlp), before) > 0
    component.labels = ["person", "city", "river"]
    assert len(scores(nlp)) == len(before) * 3 // 2
    change(component, dtype=None)
    component.labels = ["river"]
    scores(nlp)
    with torch.inference_mode():
        assert torch.equal(model.encode_labels(("person", "city")), kept)
        now = model.encode_labels(("river",)).clone()
        model.label_encoder.encoder_changed()
        assert torch.equal(model.encode_labels(("river",)), now)


def test_a_prompt_is_compressed_in_full_precision(backbone: Path) -> None:
    tables = []
    for dtype in (None, "bf16"):
        nlp = pipeline(backbone, dtype=dtype)
        component = nlp.get_pipe("gliner")
        component.compress_prompt([nlp.make_doc(text) for text in TEXTS])
        tables.append(component.gliner.encoder.table.entities)
    assert torch.equal(*tables)
    assert component.dtype == "bf16" and scores(nlp)


# -- saving, copies, processes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [REDUCED[0], REDUCED[2]], ids=str)
def test_saving_writes_the_original_weights(
    everything: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    scores(everything)  # adds the strings to the vocabulary
    everything.to_disk(tmp_path / "before")
    change(everything.get_pipe("gliner"), **settings)
    expected = scores(everything)
    everything.to_disk(tmp_path / "after")
    before, after = files(tmp_path / "before"), files(tmp_path / "after")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed == {"gliner/cfg.json"}
    assert scores(spacy.load(tmp_path / "after")) == expected  # settings are saved
    plain = spacy.load(
        tmp_path / "after", config={"components.gliner.batch_size": 1}
    )  # also with other settings changed
    assert plain.get_pipe("gliner").cfg["dtype"] == settings.get("dtype")


def test_bytes_copies_and_pickles(everything: Any) -> None:
    component = change(everything.get_pipe("gliner"), quantize="int8")
    expected = scores(everything)
    size = len(pickle.dumps(component.gliner))
    change(component, quantize=None)
    scores(everything)
    assert size == len(pickle.dumps(component.gliner))
    change(component, quantize="int8")
    for other in (copy.deepcopy(component), pickle.loads(pickle.dumps(component))):
        assert other.quantize == "int8" and scores(everything, component=other) == expected
    again = fresh(everything)
    assert again.get_pipe("gliner").quantize == "int8" and scores(again) == expected


def test_processes(everything: Any) -> None:
    change(everything.get_pipe("gliner"), dtype="bf16")
    expected = scores(everything)
    docs = everything.pipe(TEXTS, n_process=2, batch_size=1)
    for at, doc in enumerate(docs):
        spans = doc.spans["gliner"]
        assert len(spans)
        for span, score in zip(spans, spans.attrs["scores"], strict=True):
            key = (at, span.start, span.end - 1, ["person", "city"].index(span.label_))
            assert score == pytest.approx(expected[key], abs=1e-4)


def test_config_and_spacy_load(backbone: Path, tmp_path: Path) -> None:
    nlp = pipeline(backbone, dtype="bf16", quantize="int8")
    assert nlp.config["components"]["gliner"]["dtype"] == "bf16"
    expected = scores(nlp)
    nlp.to_disk(tmp_path / "saved")
    assert scores(spacy.load(tmp_path / "saved")) == expected
    full = spacy.load(
        tmp_path / "saved",
        config={"components.gliner.dtype": None, "components.gliner.quantize": None},
    )
    change(nlp.get_pipe("gliner"), dtype=None, quantize=None)
    assert scores(full) == scores(nlp) != expected


# -- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [REDUCED[0], REDUCED[2]], ids=str)
def test_training_uses_full_precision_and_renews_the_copy(backbone: Path, settings: dict[str, Any]) -> None:
    weights = []
    for used in ({}, settings):
        torch.manual_seed(0)
        nlp = tagging_pipeline.trained(backbone, steps=2, decoder="softmax", **used)
        weights.append(nlp.get_pipe("token_classifier").network.state_dict())
    assert all(torch.equal(one, weights[1][name]) for name, one in weights[0].items())

    component = nlp.get_pipe("token_classifier")
    texts = [" ".join(words) for words, _ in tagging_pipeline.DATA[:3]]
    docs = [nlp.make_doc(text) for text in texts]
    component.predict(docs)
    (old,) = kept_in(component.network.encoder.backbone.reduced._copy)
    gold = tagging_pipeline.examples(nlp)
    nlp.update(gold, sgd=nlp.resume_training())
    found = component.predict(docs)
    assert kept_in(component.network.encoder.backbone.reduced._copy)[0] is not old
    assert fresh(nlp).get_pipe("token_classifier").predict(docs) == found


def test_a_fused_optimizer_renews_the_copy(everything: Any) -> None:
    change(everything.get_pipe("gliner"), dtype="bf16")
    component = everything.get_pipe("gliner")
    before = scores(everything)
    example = spacy.training.Example.from_dict(
        everything.make_doc(TEXTS[0]), {"entities": [(0, 3, "person")]}
    )
    optimizer = torch.optim.AdamW(component.network.parameters(), lr=0.01, fused=True)
    component.get_loss([example]).total.backward()
    optimizer.step()
    assert differs(scores(everything), before) > 0.001


# -- compile -------------------------------------------------------------------------------------------------------


def test_compiled_once_for_all_lengths(everything: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[Any] = []

    def compiler(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(precision_module, "COMPILER", compiler)
    torch._dynamo.reset()
    component = everything.get_pipe("gliner")
    texts = [" ".join(["Ada met Grace in Paris ."] * n) for n in range(1, 7)]
    before = [scores(everything, [text, text + " yes"]) for text in texts]
    change(component, compile=True)
    scores(everything, [texts[1], texts[1] + " yes"])
    compiled = len(graphs)
    after = [scores(everything, [text, text + " yes"]) for text in texts]
    assert compiled >= 1 and len(graphs) == compiled
    assert max(differs(one, other) for one, other in zip(before, after, strict=True)) < 1e-5
    change(component, compile=False)
    assert scores(everything, texts[:1] * 2) and len(graphs) == compiled
    torch._dynamo.reset()


# -- errors and warnings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", ["gliner", "token_classifier"])
@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("dtype", "half", "fp32, bf16, fp16"),
        ("dtype", 16, "fp32, bf16, fp16"),
        ("quantize", "int4", "int8 or null"),
        ("quantize", True, "int8 or null"),
        ("compile", "yes", "true or false"),
    ],
)
def test_wrong_values(backbone: Path, factory: str, setting: str, value: Any, allowed: str) -> None:
    nlp = spacy.blank("en")
    config = {"labels": ["a"], setting: value}
    with pytest.raises(ConfigError) as created:
        nlp.add_pipe(factory, config=config)
    component = nlp.add_pipe(factory, config={"labels": ["a"]})
    with pytest.raises(ConfigError) as assigned:
        setattr(component, setting, value)
    for error in (created.value, assigned.value):
        assert error.where == f"components.{factory}.{setting}"
        assert repr(value) in error.found and allowed in error.allowed
    assert component.cfg[setting] in (None, False)


def test_int8_needs_a_cpu(everything: Any) -> None:
    component = everything.get_pipe("gliner")
    component.cfg = {**component.cfg, "device": "cuda"}
    with pytest.raises(ConfigError) as error:
        component.quantize = "int8"
    assert error.value.where == "components.gliner.quantize"


def test_int8_runs_on_the_cpu_where_the_device_is_auto(
    backbone: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    nlp = pipeline(backbone, quantize="int8")
    component = nlp.get_pipe("gliner")
    assert component.device.type == component.gliner.device.type == "cpu"
    assert scores(nlp) and scores(fresh(nlp))
    assert {"int8" in record.getMessage() for record in caplog.records} == {True}
    assert len(caplog.records) == 2  # one for each pipeline
    component.cfg = {**component.cfg, "quantize": None}
    assert component.device.type == "cuda"


def test_a_forked_worker_asks_cuda_nothing(everything: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights on CUDA and CUDA not in use: that is a process forked from one that uses it."""
    component = change(everything.get_pipe("gliner"), dtype="bf16")
    example = spacy.training.Example.from_dict(
        everything.make_doc(TEXTS[0]), {"entities": [(0, 3, "person")]}
    )
    monkeypatch.setattr(type(component.gliner), "device", torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)

    def refuse(*_: Any) -> None:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    for name in ("is_bf16_supported", "get_device_capability", "current_device"):
        monkeypatch.setattr(torch.cuda, name, refuse)
    assert component.collate([example]).count  # what a worker of the training does
    with pytest.raises(ConfigError) as error:
        component.prepare([example.reference])
    assert error.value.where == "components.gliner.device"


def test_compilation_needs_a_compiler(everything: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError) as error:
        everything.get_pipe("gliner").compile = True
    assert error.value.where == "components.gliner.compile"


def test_fp16_on_a_cpu_is_warned_about_once(everything: Any, caplog: pytest.LogCaptureFixture) -> None:
    change(everything.get_pipe("gliner"), dtype="fp16")
    scores(everything)
    scores(everything)
    assert ["fp16" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fp32", Precision("fp32")),
        ("int8", Precision(None, "int8")),
        ("bf16+int8", Precision("bf16", "int8")),
        ("compile+bf16", Precision("bf16", None, True)),
    ],
)
def test_short_forms(text: str, expected: Precision) -> None:
    found = Precision.parse(text, "compare")
    assert found == expected
    assert Precision.parse(str(found), "compare") == found


@pytest.mark.parametrize("text", ["", "half", "bf16+fp16", "int8+int8", "bf16 int8"])
def test_wrong_short_forms(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        Precision.parse(text, "compare")
    assert error.value.where == "compare"
