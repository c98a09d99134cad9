"""Inference with GLiNER2 checkpoints: this project and the `gliner2` package, with the same random weights.

The encoder has the shape of DeBERTa-v3-small and MiniLM's tokenizer. Both sides run in turns in one process with one thread; the
numbers are process CPU seconds, the lowest of the rounds.

    python benchmarks/gliner2_speed.py --data PATH/crossner_ai/test.jsonl --output benchmarks/results/gliner2_speed.json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import spacy
import torch
from common import records
from speed_parts.models import backbone_folder

LABELS = ["person", "organization", "city", "date", "product"]
CLASSES = {"tone": ["good", "bad", "neutral"]}
RELATIONS = ["works for", "located in"]
RECORDS = {"sale": ["buyer", "goods", "price"]}


def checkpoint(architecture: str, work: Path) -> Path:
    """Folder of a checkpoint with random weights, in which few spans have a high score."""
    from gliner2.configuration import ExtractorConfig
    from gliner2.models.boundary.model import BoundaryExtractorModel
    from gliner2.models.span.model import SpanExtractorModel
    from transformers import AutoConfig, AutoTokenizer

    encoder = backbone_folder("deberta-v3-small", work)
    kind = SpanExtractorModel if architecture == "span" else BoundaryExtractorModel
    options = (
        {"counting_layer": "count_lstm_v2"} if architecture == "span" else {"architecture": architecture}
    )
    torch.manual_seed(0)
    model = kind(
        ExtractorConfig(model_name=str(encoder), max_width=8, **options),
        encoder_config=AutoConfig.from_pretrained(encoder),
        tokenizer=AutoTokenizer.from_pretrained(encoder),
    ).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and not name.startswith("encoder."):
                torch.nn.init.normal_(weight, std=0.04)
        if architecture == "span":
            model.count_pred[2].weight.mul_(0.01)
            model.count_pred[2].bias.zero_()
            model.count_pred[2].bias[2] = 3
        else:  # random weights may find that none of the labels is in a text
            model.boundary_head.null_projection.weight.zero_()
            model.boundary_head.null_projection.bias.fill_(-3)
    folder = work / architecture
    model.save_pretrained(str(folder))
    return folder


def timed(run: Callable[[], Any]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def compare(folder: Path, texts: list[str], tasks: bool, rounds: int) -> dict[str, Any]:
    from gliner2 import AutoExtractor

    asked = {"relations": RELATIONS, "classes": CLASSES, "records": RECORDS} if tasks else {}
    nlp = spacy.blank("en")
    component = nlp.add_pipe("gliner", config={"model": str(folder), "labels": LABELS, **asked})
    list(nlp.pipe(texts[:2]))
    peer = AutoExtractor.from_pretrained(str(folder)).eval()
    schema = peer.create_schema().entities(LABELS)
    if tasks:
        for name, labels in CLASSES.items():
            schema = schema.classification(name, labels)
        for name, fields in RECORDS.items():
            structure = schema.structure(name)
            for field in fields:
                structure = structure.field(field, dtype="str")
        schema = schema.relations(RELATIONS)
    # as many entities as real texts have
    component.threshold = 0.0
    scores = sorted((s._.score for d in nlp.pipe(texts[:16]) for s in d.spans["gliner"]), reverse=True)
    wanted = sum(len(text.split()) for text in texts[:16]) // 12
    threshold = component.threshold = scores[min(wanted, len(scores) - 1)]
    options = {"threshold": threshold, "include_confidence": True, "include_spans": True}
    sides: dict[str, Callable[[], Any]] = {
        "gliner2, batches of 8": lambda: peer.batch_extract(texts, schema, batch_size=8, **options),
        "gliner_pipe, nlp.pipe": lambda: list(nlp.pipe(texts)),
        "gliner2, one by one": lambda: [
            peer.batch_extract([text], schema, batch_size=1, **options) for text in texts
        ],
        "gliner_pipe, one by one": lambda: [nlp(text) for text in texts],
    }
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, run in sides.items():
            best[name] = min(best[name], timed(run))
    times = {name: round(value, 2) for name, value in best.items()}
    names = list(times)
    ratios = {"stream": times[names[0]] / times[names[1]], "one by one": times[names[2]] / times[names[3]]}
    return {**times, "ratios": {name: round(value, 2) for name, value in ratios.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--architectures", nargs="+", default=["span", "boundary"])
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    texts = [" ".join(record["tokenized_text"]) for record in records(args.data)[: args.texts]]
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for architecture in args.architectures:
            folder = checkpoint(architecture, Path(work))
            for tasks in (False, True):
                row = {"architecture": architecture, "tasks": "all" if tasks else "entities"}
                rows.append(row | compare(folder, texts, tasks, args.rounds))
                print(json.dumps(rows[-1]), flush=True)
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
