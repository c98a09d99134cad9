"""GLiNER2 checkpoints by their hub id."""

from __future__ import annotations

import pytest
from gliner2_parity import LABELS, TEXTS, checkpoint, load, our_entities
from hub.hub_server import HubServer, Repo

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.load import load as load_pipeline


def test_a_gliner2_checkpoint(hub: HubServer) -> None:
    folder = checkpoint("count_lstm")
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    hub.repos["ada/gliner2"] = Repo(branches={"main": {**files, "onnx/model.onnx": b"large"}})
    nlp = load_pipeline("ada/gliner2", labels=LABELS, threshold=0.05)
    wanted = our_entities(load(folder, labels=LABELS, threshold=0.05).pipe(TEXTS))
    assert our_entities(nlp.pipe(TEXTS)) == wanted != [{}, {}, {}]
    assert not hub.asked("GET */onnx/*")
    hub.repos["ada/bert"] = Repo(branches={"main": {"config.json": b'{"model_type": "bert"}'}})
    with pytest.raises(ConfigError, match=r"^\[pipeline\].*'ada/bert'"):
        load_pipeline("ada/bert")
