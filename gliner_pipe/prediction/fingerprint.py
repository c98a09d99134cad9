"""What a prediction depends on, so that work is gone on with only by the pipeline that began it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from spacy.language import Language

from gliner_pipe.secrets import redacted, redacted_config
from gliner_pipe.torch_pipe import TorchPipe

#: Live settings of a component on which no result depends.
_HOW = ("batch_size", "device", "task_lr_ratio")
#: Bytes at either end of a file by which it is known again, beside its size.
_ENDS = 65536


def describe_pipeline(nlp: Language) -> dict[str, Any]:
    """Return what the predictions of a pipeline depend on, as JSON.

    Parameters
    ----------
    nlp
        The pipeline, with the labels and thresholds that count.

    Returns
    -------
    dict
        ``pipeline``, a digest of its config and all weights; and each live setting of its components by name, as
        ``gliner.threshold``. No secret is in it, nor does another one make it another.
    """
    digest = hashlib.sha256(redacted_config(nlp.config.to_str()).encode())
    settings: dict[str, Any] = {"components": list(nlp.pipe_names)}
    digest.update(nlp.tokenizer.to_bytes(exclude=["vocab"]) if hasattr(nlp.tokenizer, "to_bytes") else b"")
    for name, pipe in nlp.pipeline:
        digest.update(name.encode())
        if isinstance(pipe, TorchPipe):
            _add(digest, dict(sorted(pipe.network.state_dict().items())))
            live = {key: value for key, value in pipe.cfg.items() if key not in _HOW}
            for key in ("label_data", "relation_data"):
                if hasattr(pipe, key):
                    live[key.replace("_data", "s")] = getattr(pipe, key)
            settings |= {f"{name}.{key}": value for key, value in live.items()}
        elif hasattr(pipe, "to_bytes"):
            digest.update(pipe.to_bytes(exclude=["vocab"]))
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return {
        "pipeline": digest.hexdigest()[:16],
        **{key: redacted(key, value) for key, value in plain.items()},
    }


def describe_file(path: Path) -> str:
    """Return the size of a file with a digest of its two ends: the same after it was copied elsewhere."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(_ENDS)
        stream.seek(max(size - _ENDS, 0))
        digest = hashlib.sha256(start + stream.read(_ENDS))
    return f"{size}-{digest.hexdigest()[:16]}"


def _add(digest: Any, value: Any) -> None:
    """Add a nest of tensors to a digest."""
    if isinstance(value, torch.Tensor):
        whole = value.dequantize() if value.is_quantized else value
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(whole.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    elif isinstance(value, dict):
        for key, item in value.items():
            digest.update(str(key).encode())
            _add(digest, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _add(digest, item)
    else:
        digest.update(repr(value).encode())
