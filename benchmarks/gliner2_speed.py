"""Inference with GLiNER2 checkpoints: this project and the `gliner2` package, with the same random weights.

The encoder has the shape of DeBERTa-v3-small and MiniLM's tokenizer. Both sides run in turns in one process with one thread; the
numbers are process CPU seconds, the lowest of the rounds.

    python benchmarks/gliner2_speed.py --data PATH/crossner_ai/test.jsonl --output benchmarks/results/gliner2_speed.json

With `--long WORDS` one text of that many words is read instead, in windows here and with `extract_long` there, whose
chunks have 384 words and overlap by 64.
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
#: What is asked for beside the entities, by name of the row.
TASKS: dict[str, dict[str, Any]] = {
    "entities": {},
    "all": {"relations": RELATIONS, "classes": CLASSES, "records": RECORDS},
}
LONG_TASKS: dict[str, dict[str, Any]] = {
    "entities": {},
    "entities, relations": {"relations": RELATIONS},
    "entities, classes": {"classes": CLASSES},
    "all": TASKS["all"],
}


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


def pair(folder: Path, asked: dict[str, Any], texts: list[str]) -> tuple[Any, Any, Any, dict[str, Any]]:
    """The pipeline, the model of the package, its schema and its options; both with a threshold for few entities."""
    from gliner2 import AutoExtractor

    nlp = spacy.blank("en")
    component = nlp.add_pipe("gliner", config={"model": str(folder), "labels": LABELS, **asked})
    list(nlp.pipe(texts[:2]))
    peer = AutoExtractor.from_pretrained(str(folder)).eval()
    schema = peer.create_schema().entities(LABELS)
    for name, labels in asked.get("classes", {}).items():
        schema = schema.classification(name, labels)
    for name, fields in asked.get("records", {}).items():
        structure = schema.structure(name)
        for field in fields:
            structure = structure.field(field, dtype="str")
    if "relations" in asked:
        schema = schema.relations(asked["relations"])
    # as many entities as real texts have
    component.threshold = 0.0
    scores = sorted((s._.score for d in nlp.pipe(texts[:16]) for s in d.spans["gliner"]), reverse=True)
    wanted = sum(len(text.split()) for text in texts[:16]) // 12
    threshold = component.threshold = scores[min(wanted, len(scores) - 1)]
    return nlp, peer, schema, {"threshold": threshold, "include_confidence": True, "include_spans": True}


def in_turns(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """CPU seconds of each side: the lowest of the rounds."""
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, run in sides.items():
            best[name] = min(best[name], timed(run))
    return {name: round(value, 2) for name, value in best.items()}


def compare(folder: Path, texts: list[str], asked: dict[str, Any], rounds: int) -> dict[str, Any]:
    nlp, peer, schema, options = pair(folder, asked, texts)
    sides: dict[str, Callable[[], Any]] = {
        "gliner2, batches of 8": lambda: peer.batch_extract(texts, schema, batch_size=8, **options),
        "gliner_pipe, nlp.pipe": lambda: list(nlp.pipe(texts)),
        "gliner2, one by one": lambda: [
            peer.batch_extract([text], schema, batch_size=1, **options) for text in texts
        ],
        "gliner_pipe, one by one": lambda: [nlp(text) for text in texts],
    }
    times = in_turns(sides, rounds)
    names = list(times)
    ratios = {"stream": times[names[0]] / times[names[1]], "one by one": times[names[2]] / times[names[3]]}
    return {**times, "ratios": {name: round(value, 2) for name, value in ratios.items()}}


def compare_long(
    folder: Path, texts: list[str], n_words: int, asked: dict[str, Any], rounds: int
) -> dict[str, Any]:
    nlp, peer, schema, options = pair(folder, asked, texts)
    words = [word for text in texts for word in text.split()]
    text = " ".join((words * (1 + n_words // len(words)))[:n_words])
    sides: dict[str, Callable[[], Any]] = {
        "gliner2, extract_long": lambda: peer.extract_long(text, schema, **options),
        "gliner_pipe, nlp": lambda: nlp(text),
    }
    theirs, ours = (times := in_turns(sides, rounds)).values()
    return {"words": n_words, **times, "ratios": {"long": round(theirs / ours, 2)}}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--architectures", nargs="+", default=["span", "boundary"])
    parser.add_argument("--long", type=int, metavar="WORDS", help="one text of so many words")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    texts = [" ".join(record["tokenized_text"]) for record in records(args.data)[: args.texts]]
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for architecture in args.architectures:
            folder = checkpoint(architecture, Path(work))
            for tasks, asked in (LONG_TASKS if args.long else TASKS).items():
                row = {"architecture": architecture, "tasks": tasks}
                if args.long:
                    row |= compare_long(folder, texts, args.long, asked, args.rounds)
                else:
                    row |= compare(folder, texts, asked, args.rounds)
                rows.append(row)
                print(json.dumps(rows[-1]), flush=True)
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
