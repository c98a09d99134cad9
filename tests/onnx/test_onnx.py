"""Exported pipelines predict the same entities and relations as the original ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config, make_causal_lm
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from tagging_pipeline import config as tagger_config
from tagging_pipeline import examples

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.export import export, main
from gliner_pipe.onnx.export import write_onnx
from gliner_pipe.onnx.session import Graph
from gliner_pipe.package import package

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

TEXTS = [
    "Ada Lovelace was born in London and wrote the first program .",
    "Rome burns",
    "",
    "She met Bob in Rome and left . " * 7,
    "Paris is far from Oslo , she said on Monday .",
]


def found(doc: Doc) -> dict[tuple[Any, ...], float]:
    """Scores of entities and relations by place and label."""
    group = doc.spans["gliner"]
    scores = {
        (span.start, span.end, span.label_): float(score)
        for span, score in zip(group, group.attrs["scores"], strict=True)
    }
    for link in doc._.relations or [] if Doc.has_extension("relations") else []:
        scores[link.head.start, link.head.end, link.tail.start, link.tail.end, link.label] = link.score
    return scores


def check_same(one: Language, two: Language) -> int:
    """Compare what two pipelines find in texts that share batches, and count it."""
    total = 0
    for left, right in zip(one.pipe(TEXTS), two.pipe(TEXTS), strict=True):
        expected = found(left)
        assert found(right) == pytest.approx(expected, abs=1e-5)
        total += len(expected)
    return total


def made(backbone: Path, **changes: Any) -> Language:
    """A pipeline with windows of 48 subword tokens, whose random scores are often above the threshold."""
    settings = gliner_config(backbone, threshold=0.47)
    settings["model"]["encoder"]["backbone"] |= {"window": 48, "stride": 32}
    for key, value in changes.items():
        if isinstance(value, dict) and key == "encoder":
            settings["model"]["encoder"] |= value
        elif key.startswith("model_"):
            settings["model"][key.removeprefix("model_")] = value
        else:
            settings[key] = value
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=settings)
    nlp.initialize()
    return nlp


@pytest.fixture(scope="module")
def uni(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Language, Path]:
    """Spans and relations, with an LSTM; the graphs in a folder."""
    torch.manual_seed(3)
    nlp = made(
        backbone,
        encoder={"rel_token": "<<REL>>", "rnn_layers": 1, "embed_ent_token": True},
        model_relation_layer={"@relation_layers": "mlp"},
        model_triple={"@triples": "transe", "margin": 9.0},
        relations=["knows", "is in"],
        relation_threshold=0.0,
        adjacency_threshold=0.0,
        word_splitter={"@word_splitters": "spacy"},
    )
    component: Any = nlp.get_pipe("gliner")
    component.network.word_splitter = {"@word_splitters": "hanlp"}  # as of a checkpoint
    folder = tmp_path_factory.mktemp("uni") / "pipeline"
    export(pipeline=nlp, output=folder, onnx=True)
    return nlp, folder


@pytest.fixture(scope="module")
def tagger(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Language, Path]:
    """A tagger with a CRF whose steps have scores, exported with weights of 8 bits."""
    torch.manual_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", config=tagger_config(backbone, "crf"))
    nlp.initialize(lambda: examples(nlp))
    component: Any = nlp.get_pipe("token_classifier")
    with torch.no_grad():
        for step in component.network.decoder.steps.values():
            step.normal_()
        component.network.decoder.project.bias.zero_()  # so that it finds entities without training
    return nlp, tmp_path_factory.mktemp("tagger")


def test_entities_and_relations_are_the_same(uni: tuple[Language, Path]) -> None:
    nlp, folder = uni
    other = spacy.load(folder)
    assert check_same(nlp, other) > 100
    assert any(doc._.relations for doc in other.pipe(TEXTS))


def test_labels_can_be_changed_at_run_time(uni: tuple[Language, Path]) -> None:
    nlp, folder = uni
    other = spacy.load(folder)
    for labels, relations in (
        (["day"], ["a", "b", "c"]),
        (["person", "city", "day of the week", "food", "x"], []),
    ):
        for pipeline in (nlp, other):
            component: Any = pipeline.get_pipe("gliner")
            component.labels, component.relations = labels, relations
        assert check_same(nlp, other) > 10
    for pipeline in (nlp, other):
        component = pipeline.get_pipe("gliner")
        component.labels, component.relations = ["person", "city"], ["knows", "is in"]


def test_given_spans_candidates_and_class_scores(uni: tuple[Language, Path]) -> None:
    nlp, folder = uni
    both = (nlp, spacy.load(folder))
    before = nlp.get_pipe("gliner").cfg
    nlp.get_pipe("gliner").cfg = {**before, "threshold": 0.0}
    scores = sorted(score for doc in nlp.pipe(TEXTS) for score in doc.spans["gliner"].attrs["scores"])
    found_by: list[Any] = []
    for pipeline in both:
        component: Any = pipeline.get_pipe("gliner")
        settings = {
            "threshold": scores[len(scores) // 2],
            "candidate_threshold": 0.01,
            "class_scores": True,
            "input_spans_key": "x",
        }
        component.cfg = {**component.cfg, **settings}
        docs = [pipeline.make_doc(text) for text in TEXTS]
        for doc in docs:
            doc.spans["x"] = [doc[at : at + 1 + at % 3] for at in range(len(doc) - 2)]
        groups = [doc.spans[key] for doc in pipeline.pipe(docs) for key in ("gliner", "gliner_candidates")]
        found_by.append([([(s.start, s.end, s.label_) for s in group], group.attrs) for group in groups])
    nlp.get_pipe("gliner").cfg = before
    for (spans, attrs), (others, theirs) in zip(*found_by, strict=True):
        assert spans == others and attrs["scores"] == pytest.approx(theirs["scores"], abs=1e-5)
        for one, other in zip(attrs.get("class_scores", []), theirs.get("class_scores", []), strict=True):
            assert one == pytest.approx(other, abs=1e-5)
    assert all(any(spans for spans, _ in found_by[0][part::2]) for part in (0, 1))


def test_the_folder_holds_no_weights_of_torch(uni: tuple[Language, Path]) -> None:
    names = {path.name for path in (uni[1] / "gliner" / "model").rglob("*")}
    assert names >= {"model.onnx", "spans.onnx", "pairs.onnx", "tokenizer.json"}
    assert not any(name.endswith((".safetensors", ".bin", ".pt")) for name in names)
    assert "triples.onnx" not in names  # it has no weights, and runs as it is


def test_saved_packed_and_moved(uni: tuple[Language, Path], tmp_path: Path) -> None:
    other = spacy.load(uni[1])
    other.to_disk(tmp_path / "again")
    expected = [found(doc) for doc in other.pipe(TEXTS)]
    again = spacy.load(tmp_path / "again")
    again.to_disk(tmp_path / "again")  # in its own place
    assert [found(doc) for doc in again.pipe(TEXTS)] == expected
    packed = again.to_bytes()
    shutil.rmtree(tmp_path / "again")
    unpacked = spacy.load(uni[1]).from_bytes(packed)
    assert [found(doc) for doc in unpacked.pipe(TEXTS)] == expected
    assert unpacked.to_bytes() == packed


def test_in_several_processes(uni: tuple[Language, Path]) -> None:
    other = spacy.load(uni[1])
    expected = [found(doc) for doc in other.pipe(TEXTS)]
    assert [found(doc) for doc in other.pipe(TEXTS, n_process=2, batch_size=2)] == expected


def test_packaged(uni: tuple[Language, Path], tmp_path: Path) -> None:
    package(pipeline=uni[1], name="tiny_graphs", dist_dir=tmp_path)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        metadata = wheel.read(next(name for name in names if name.endswith("METADATA"))).decode()
    assert any(name.endswith("gliner/model/model.onnx") for name in names)
    assert "Requires-Dist: onnxruntime" in metadata


def test_settings_of_the_session(uni: tuple[Language, Path]) -> None:
    model = "components.gliner.model"
    other = spacy.load(uni[1], config={f"{model}.threads": 2, f"{model}.providers": ["CPUExecutionProvider"]})
    component: Any = other.get_pipe("gliner")
    other(TEXTS[0])
    session = component.gliner.graphs["model"].session
    assert session.get_session_options().intra_op_num_threads == 2
    assert session.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(ConfigError, match=r"'Abacus'.*CPUExecutionProvider") as error:
        spacy.load(uni[1], config={f"{model}.providers": ["Abacus"]})
    assert error.value.where == f"{model}.providers"
    with pytest.raises(Exception, match="threads"):
        spacy.load(uni[1], config={f"{model}.threads": 0})


#: OpenVINO runs in a process of its own: its libraries stay out of that of all tests.
ALONE = "GLINER_PIPE_TEST_OPENVINO"
with_openvino = pytest.mark.skipif(ALONE not in os.environ, reason="runs in a process of its own")


def test_openvino_in_a_process_of_its_own() -> None:
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    command = [sys.executable, "-P", "-m", "pytest", __file__, "-q", "-p", "no:cacheprovider", "-n", "0"]
    done = subprocess.run(
        [*command, "-k", "with_openvino"], env={**os.environ, ALONE: "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout


@with_openvino
def test_the_same_is_found_with_openvino(uni: tuple[Language, Path]) -> None:
    nlp, folder = uni
    other = spacy.load(folder, config={"components.gliner.model.runtime": "openvino"})
    assert check_same(nlp, other) > 100
    assert type(other.get_pipe("gliner").gliner.graphs["model"].session).__name__ == "OpenVinoSession"


@with_openvino
def test_lstms_that_it_reads_wrongly_are_refused_with_openvino(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    sizes = {"words": [5, 2, 3], "W": [2, 8, 3], "R": [2, 8, 2]}
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in sizes.items()]
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, [5, 2, 2, 2])
    node = helper.make_node("LSTM", list(sizes), ["out"], hidden_size=2, direction="bidirectional")
    graph = helper.make_graph([node], "earlier", inputs, [output])
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
        tmp_path / "g.onnx",
    )
    with pytest.raises(CheckpointError, match=r"g\.onnx"):
        _ = Graph(tmp_path / "g.onnx", 1, [], "openvino").session


def test_mistakes_with_openvino(uni: tuple[Language, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    model = "components.gliner.model"
    with pytest.raises(ConfigError, match=r"gliner_pipe\[openvino\]") as error:
        spacy.load(uni[1], config={f"{model}.runtime": "openvino"})
    assert error.value.where == f"{model}.runtime"
    monkeypatch.setitem(sys.modules, "openvino", sys)
    with pytest.raises(ConfigError) as error:
        spacy.load(
            uni[1], config={f"{model}.runtime": "openvino", f"{model}.providers": ["CPUExecutionProvider"]}
        )
    assert error.value.where == f"{model}.providers"


def test_it_cannot_be_trained_or_exported_again(uni: tuple[Language, Path]) -> None:
    other = spacy.load(uni[1])
    example = Example.from_dict(other.make_doc("Ada sings"), {})
    for refused in (lambda: other.update([example]), lambda: write_onnx(other, uni[1].parent / "never")):
        with pytest.raises(ConfigError) as error:
            refused()
        assert error.value.where.endswith(".model")


def test_an_incomplete_folder(uni: tuple[Language, Path], tmp_path: Path) -> None:
    shutil.copytree(uni[1], tmp_path / "broken")
    graph = tmp_path / "broken" / "gliner" / "model" / "model.onnx"
    graph.write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"model\.onnx was not saved together"):
        spacy.load(tmp_path / "broken")
    settings = tmp_path / "broken" / "gliner" / "cfg.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "files": {}}))  # as in earlier files
    with pytest.raises(CheckpointError, match=r"model\.onnx: cannot be opened"):
        spacy.load(tmp_path / "broken")("Ada sings")
    graph.unlink()
    with pytest.raises(CheckpointError, match=r"no model\.onnx"):
        spacy.load(tmp_path / "broken")


def test_labels_apart_and_words_scored(backbone: Path, tmp_path: Path) -> None:
    """A bi-encoder with token-level scores and a separate graph for labels, which encodes each label once."""
    nlp = made(
        backbone,
        encoder={"@encoders": "bi_encoder", "label_model": str(backbone)},
        model_span_rep={"@span_reps": "token_level", "represent_spans": True},
    )
    export(pipeline=nlp, output=tmp_path / "bi", onnx=True)
    other = spacy.load(tmp_path / "bi")
    assert check_same(nlp, other) > 20
    for pipeline in (nlp, other):
        pipeline.get_pipe("gliner").labels = ["person", "a town or a city", "day", "food"]
    assert check_same(nlp, other) > 20
    vectors = other.get_pipe("gliner").gliner.label_vectors
    kept = vectors.kept["entity"]
    assert set(kept) >= {"person", "city", "food"}
    kept.most = 16
    expected = {label: vectors.of("entity", [label], projected=True) for label in ("person", "food")}
    for number in range(50):
        vectors.of("entity", [f"kind {number}", "person"], projected=True)
        assert len(kept) <= 2 * 16 + 2
    assert vectors.of("entity", ["person"], projected=True).equal(expected["person"])  # in use all the time
    assert "food" not in kept
    torch.testing.assert_close(vectors.of("entity", ["food"], projected=True), expected["food"])


def test_tagger(tagger: tuple[Language, Path]) -> None:
    check_tagger(*tagger, "onnxruntime")


@with_openvino
def test_tagger_with_openvino(tagger: tuple[Language, Path]) -> None:
    check_tagger(*tagger, "openvino")


def check_tagger(nlp: Language, folder: Path, runtime: Any) -> None:
    report = write_onnx(nlp, folder / "fp32", runtime=runtime)["token_classifier"]
    assert report.largest < 1e-5 and report.scores > 100
    assert check_same(nlp, other := spacy.load(folder / "fp32")) > 5
    assert other.config["components"]["token_classifier"]["model"]["runtime"] == runtime
    change = {"components.token_classifier.model.runtime": "onnxruntime"}
    assert check_same(nlp, spacy.load(folder / "fp32", config=change)) > 5


def test_weights_of_eight_bits(tagger: tuple[Language, Path]) -> None:
    import onnx

    nlp, folder = tagger
    report = write_onnx(nlp, folder / "int8", int8=True)["token_classifier"]
    assert 1e-5 < report.largest < 0.1 and 0 < report.mean < report.largest
    nodes = onnx.load(folder / "int8" / "token_classifier" / "model" / "model.onnx").graph.node
    kinds = [node.op_type for node in nodes]
    assert kinds.count("MatMulInteger") == 12  # six products in each of two layers
    assert kinds.count("Gemm") + kinds.count("MatMul") >= 1  # the layer that scores tags
    assert len(spacy.load(folder / "int8")(TEXTS[0]).spans["gliner"]) > 0


def test_a_block_that_cannot_be_exported_is_named(backbone: Path, tmp_path: Path) -> None:
    nlp = made(backbone)
    component: Any = nlp.get_pipe("gliner")

    class Odd(type(component.gliner.span_rep)):  # type: ignore[misc]
        def score(self, words: Any, labels: Any, word_mask: Any) -> Any:
            return super().score(words, labels, word_mask) * float(words.sum().item())

    component.gliner.span_rep.__class__ = Odd
    # torch 2.8 exports the sum as a constant: then the comparison of the scores refuses the model
    with pytest.raises(ConfigError, match=r"\[components\.gliner\.model(\.\w+)?\]"):
        write_onnx(nlp, tmp_path / "never")
    assert not (tmp_path / "never").exists()
    assert isinstance(component.model, type(component.gliner))  # as it was


def test_relations_over_stacked_spans_are_refused(backbone: Path, tmp_path: Path) -> None:
    nlp = made(
        backbone,
        encoder={"rel_token": "<<REL>>"},
        model_relation_layer={"@relation_layers": "dot"},
        model_span_rep={"@span_reps": "conv_max"},
    )
    with pytest.raises(ConfigError, match=r"gliner\.model\.span_rep\] .*conv_max"):
        write_onnx(nlp, tmp_path / "never")


def test_causal_encoders_are_refused(tmp_path: Path) -> None:
    backbone = {
        "@backbones": "causal_transformer",
        "model": str(make_causal_lm(tmp_path / "lm", kind="qwen2")),
    }
    encoder = {"@encoders": "causal_encoder", "backbone": {**backbone, "window": 90}}
    blocks = {"encoder": encoder, "span_rep": {"@span_reps": "markerV2"}}
    nlp = spacy.blank("en")
    config = {"model": {"@architectures": "gliner_pipe.GLiNER.v1", **blocks}, "labels": ["person"]}
    nlp.add_pipe("gliner", config=config).gliner.build()
    with pytest.raises(ConfigError, match=r"gliner\.model\.encoder\]"):
        write_onnx(nlp, tmp_path / "never")


def test_mistakes_on_the_command_line(
    nlp: Language, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nlp.to_disk(tmp_path / "model")
    options = ["--pipeline", str(tmp_path / "model"), "--output", str(tmp_path / "out")]
    for more, message in (([], "[onnx]"), (["--onnx"], 'pip install "gliner_pipe[onnx]"')):
        monkeypatch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(SystemExit):
            main([*options, *more])
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_configuration_says_what_is_run(uni: tuple[Language, Path]) -> None:
    section = spacy.load(uni[1]).config["components"]["gliner"]
    assert section["word_splitter"]["@word_splitters"] == "spacy"  # its own, not that of a checkpoint
    config = section["model"]
    assert config["@architectures"] == "gliner_pipe.ONNX.v1"
    assert config["model"]["span_rep"]["max_width"] == 6
    assert json.loads((uni[1] / "gliner" / "cfg.json").read_text(encoding="utf8"))["weights"] is True
