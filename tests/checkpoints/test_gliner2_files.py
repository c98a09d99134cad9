"""Files of GLiNER2 checkpoints: earlier forms, mistakes, and what is not supported for them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gliner2_parity import LABELS, TEXTS, checkpoint, load, our_entities

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.pipeline.load import load as load_pipeline

SETTINGS: dict[str, Any] = {"labels": LABELS, "threshold": 0.1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a checkpoint, to change."""
    return Path(shutil.copytree(checkpoint("count_lstm"), tmp_path / "copy"))


@pytest.fixture(scope="module")
def wanted() -> list[Any]:
    nlp = load(checkpoint("count_lstm"), **SETTINGS)
    found = our_entities(nlp.pipe(TEXTS))
    assert sum(map(len, found)) > 5
    return found


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; None removes them."""
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_uploads_before_version_2(folder: Path, wanted: list[Any]) -> None:
    """Few keys in the configuration, a pickled state, special tokens as a list."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text())
    kept = {
        key: config[key]
        for key in ("model_type", "model_name", "counting_layer", "max_width", "token_pooling")
    }
    (folder / "config.json").write_text(json.dumps(kept))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    change(folder / "tokenizer_config.json", extra_special_tokens=["[P]", "[E]"])
    assert our_entities(load(folder, **SETTINGS).pipe(TEXTS)) == wanted


def test_a_package_and_the_folder_as_pipeline(
    folder: Path, wanted: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "gliner2_as_package"
    folder.rename(package)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert our_entities(load(Path("gliner2_as_package"), **SETTINGS).pipe(TEXTS)) == wanted
    sys.modules.pop("gliner2_as_package", None)
    nlp = load_pipeline(package, **SETTINGS, classes={"tone": ["good", "bad"]})
    assert nlp(TEXTS[0])._.classes


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"architecture": "other"}, "architecture = 'other'.*span"),
        ({"counting_layer": "other"}, "counting_layer = 'other'.*count_lstm_v2"),
        ({"counting_layer": "count_lstm_v2"}, "Missing: .*counter.*Unexpected: .*counter"),
        ({"model_name": None}, "model_name"),
    ],
)
def test_mistakes_in_the_configuration(folder: Path, values: dict[str, Any], match: str) -> None:
    change(folder / "config.json", **values)
    with pytest.raises(CheckpointError, match=match):
        load(folder)


def test_missing_files(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"^\[components\.gliner\.model\]"):
        load(folder)


def test_reduced_precision() -> None:
    nlp = load(checkpoint("count_lstm"), **SETTINGS, classes={"tone": ["good", "bad"]})
    component = nlp.get_pipe("gliner")
    exact = [nlp(text).cats for text in TEXTS]
    for option, value in (("dtype", "bf16"), ("quantize", "int8")):
        setattr(component, option, value)
        close = [nlp(text).cats for text in TEXTS]
        assert close != exact
        for one, other in zip(close, exact, strict=True):
            assert one == pytest.approx(other, abs=0.1)
        setattr(component, option, None)


def test_what_is_not_supported(tmp_path: Path) -> None:
    nlp = load(checkpoint("count_lstm"), **SETTINGS)
    pytest.importorskip("onnx")
    from gliner_pipe.onnx.export import write_onnx

    with pytest.raises(ConfigError, match=r"^\[components\.gliner\.model\."):
        write_onnx(nlp, tmp_path / "onnx")
    with pytest.raises(ConfigError, match=r"^\[components\.gliner\.model\.encoder\]"):
        nlp.get_pipe("gliner").compress_prompt([nlp.make_doc(TEXTS[0])])
