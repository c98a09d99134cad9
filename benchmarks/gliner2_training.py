"""Trains entities with classes, or records, here and in the package gliner2, with the same texts, steps and batches.

    python benchmarks/gliner2_training.py --data PATH/snips --output result.json
    python benchmarks/gliner2_training.py --data PATH/tasteset --output result.json

snips: voice commands; slots are entities, the intent of a text is its class. The folder holds test.jsonl: 100 texts of
each intent, in the order of `INTENTS`. Every fifth is held out. tasteset: lists of ingredients; each line is a record with
the fields food, quantity and unit. The folder holds train.chars.jsonl and test.chars.jsonl; lists of up to six lines are used.

Sides:

- ``tasks``: the composition and the recipe of configs/tasks.cfg;
- ``checkpoint``: an untrained checkpoint of gliner2 with a pretrained text encoder, trained by this project;
- ``gliner2``: the same checkpoint, trained by the package with the same learning rates and clipping.

All are scored by this project on the same held-out texts. Without ``--backbone`` the text encoder is MiniLM; any folder of
a Hugging Face encoder will do.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from common import minilm, records

#: The intents of Snips, in the order of their files.
INTENTS = (
    "add to playlist",
    "book restaurant",
    "get weather",
    "play music",
    "rate book",
    "search creative work",
    "search screening event",
)
#: Texts of each intent.
TEXTS = 100
#: Fields of an ingredient.
FIELDS = ("food", "quantity", "unit")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, help="folder of the text encoder; MiniLM by default")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--labels", type=int, default=8, help="number of entity labels, the most frequent ones"
    )
    parser.add_argument("--lr", type=float, nargs=2, default=(1e-4, 1e-3), help="of encoder and heads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=list(SIDES))
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    if args.data.name == "snips":
        train, test, labels = snips(args.data / "test.jsonl", args.labels)
        asked: dict[str, Any] = {"labels": labels, "classes": {"intent": list(INTENTS)}}
    else:
        train, test = (ingredients(args.data / f"{part}.chars.jsonl") for part in ("train", "test"))
        asked = {"records": {"ingredient": list(FIELDS)}}
    result: dict[str, Any] = {"texts": [len(train), len(test)], "steps": args.steps, "batch": args.batch}
    with tempfile.TemporaryDirectory() as folder:
        start = untrained(args.backbone or minilm(), Path(folder) / "start", args.seed)
        for side in args.sides:
            before = time.process_time()
            trained = SIDES[side](start, train, Path(folder) / side, args)
            seconds = time.process_time() - before
            result[side] = {"cpu_seconds": round(seconds, 1), **scored(trained, test, asked)}
            print(side, json.dumps(result[side]), flush=True)
    if args.output is not None:
        args.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf8")


def snips(path: Path, n_labels: int) -> tuple[list[dict], list[dict], list[str]]:
    """Return training and test texts in GLiNER2's format, and the labels of their entities."""
    rows = records(path)
    counts = Counter(label for row in rows for _, _, label in row["ner"])
    labels = [label for label, _ in counts.most_common(n_labels)]
    made = []
    for number, row in enumerate(rows):
        text, starts = "", []
        for word in row["tokenized_text"]:
            starts.append(len(text))
            text += f"{word} "
        text = text.rstrip()
        entities: dict[str, list] = {label: [] for label in labels}
        for first, last, label in row["ner"]:
            if label in entities:
                start, end = starts[first], starts[last] + len(row["tokenized_text"][last])
                entities[label].append({"text": text[start:end], "start": start, "end": end})
        intent = {"task": "intent", "labels": list(INTENTS), "true_label": [INTENTS[number // TEXTS]]}
        made.append({"input": text, "output": {"entities": entities, "classifications": [intent]}})
    test = made[::5]
    train = [one for number, one in enumerate(made) if number % 5]
    random.Random(0).shuffle(train)
    return train, test, labels


def ingredients(path: Path) -> list[dict]:
    """Return lists of ingredients in GLiNER2's format: a record for each line that has a food."""
    made = []
    for row in records(path):
        found = []
        for line in re.finditer(r".+", row["text"]):
            record: dict[str, Any] = {}
            for start, end, field in row["entities"]:
                if field in FIELDS and line.start() <= start and end <= line.end() and field not in record:
                    record[field] = {"text": row["text"][start:end], "start": start, "end": end}
            if "food" in record:
                found.append({"ingredient": {field: record.get(field, "") for field in FIELDS}})
        if found and row["text"].count("\n") <= 6:
            made.append({"input": row["text"], "output": {"json_structures": found}})
    return made


def untrained(backbone: Path, target: Path, seed: int) -> Path:
    """Write a checkpoint of gliner2 with a pretrained encoder and random heads."""
    import torch
    from gliner2.configuration import ExtractorConfig
    from gliner2.models.span.model import SpanExtractorModel
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    torch.manual_seed(seed)
    config = ExtractorConfig(model_name=str(backbone), max_width=8, counting_layer="count_lstm")
    parts = AutoConfig.from_pretrained(backbone), AutoTokenizer.from_pretrained(backbone)
    model = SpanExtractorModel(config, encoder_config=parts[0], tokenizer=parts[1])
    weights = AutoModel.from_pretrained(backbone).state_dict()
    known = model.encoder.state_dict()
    for name, tensor in weights.items():
        known[name][: len(tensor)] = tensor
    model.encoder.load_state_dict(known)
    model.save_pretrained(str(target))
    return target


def run_tasks(start: Path, train: list[dict], work: Path, args: argparse.Namespace) -> Path:
    """Train the composition of configs/tasks.cfg by this project; return a pipeline."""
    from confit import Config

    from gliner_pipe.registry import registry
    from gliner_pipe.train import train as train_pipeline

    config = Config.from_disk(Path(__file__).parents[1] / "configs" / "tasks.cfg")
    if args.backbone is not None:
        config["vars"]["model"] = str(args.backbone)
    texts = work.with_suffix(".jsonl")
    texts.write_text("".join(json.dumps(row) + "\n" for row in train), encoding="utf8")
    config["vars"]["train"] = str(texts)
    for name in ("val_data", "sample_texts", "best_metric", "validation_interval"):
        del config["train"][name]
    config["train"].update(
        max_steps=args.steps,
        batch_size=f"{args.batch} samples",
        seed=args.seed,
        output_path=str(work),
        loggers=[],
    )
    train_pipeline(**config.resolve(registry=registry)["train"], cpu=True)
    return work / "model-last"


def run_checkpoint(start: Path, train: list[dict], work: Path, args: argparse.Namespace) -> Path:
    """Train by this project; return a checkpoint."""
    import spacy

    from gliner_pipe.data.readers import gliner2_json
    from gliner_pipe.pipeline.convert import to_gliner
    from gliner_pipe.train import train as train_pipeline

    nlp = spacy.blank("en")
    sampling = {"label_sampling": {"all_labels": True}}
    nlp.add_pipe("gliner", config={"model": str(start), "device": "cpu", **sampling})
    trained = train_pipeline(
        nlp=nlp,
        train_data=[{"reader": gliner2_json(train)}],
        max_steps=args.steps,
        batch_size=f"{args.batch} samples",
        transformer_lr=args.lr[0],
        task_lr=args.lr[1],
        max_grad_norm=1.0,
        seed=args.seed,
        output_path=work / "model-last",
        loggers=[],
        cpu=True,
    )
    return to_gliner(trained, work / "checkpoint")


def run_gliner2(start: Path, train: list[dict], work: Path, args: argparse.Namespace) -> Path:
    """Train by the package; return a checkpoint."""
    from gliner2 import GLiNER2
    from gliner2.training.trainer import ExtractorTrainer, TrainingConfig

    config = TrainingConfig(
        output_dir=str(work),
        max_steps=args.steps,
        batch_size=args.batch,
        encoder_lr=args.lr[0],
        task_lr=args.lr[1],
        eval_strategy="no",
        num_workers=0,
        pin_memory=False,
        fp16=False,
        seed=args.seed,
        logging_steps=10_000,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ExtractorTrainer(GLiNER2.from_pretrained(str(start)), config).train(train_data=train)
    return work / "final"


#: How each side is trained.
SIDES = {"tasks": run_tasks, "checkpoint": run_checkpoint, "gliner2": run_gliner2}


def scored(trained: Path, test: list[dict], asked: dict[str, Any]) -> dict[str, float]:
    """Return the F1 of entities, fields and records and the accuracy of classes of a checkpoint or pipeline."""
    import gliner_pipe
    from gliner_pipe.data.readers import gliner2_json
    from gliner_pipe.evaluation.evaluate import evaluate_pipeline

    nlp = gliner_pipe.load(trained, **asked)
    scores = evaluate_pipeline(nlp, list(gliner2_json(test)(nlp)), metrics=["exact"])
    kept = {"entities": scores["exact"]["micro"]["f"]} if "labels" in asked else {}
    if "classes" in scores:
        kept["accuracy"] = scores["classes"]["all"]["accuracy"]
    if "records" in scores:
        kept |= {kind: scores["records"][kind]["micro"]["f"] for kind in ("fields", "records")}
    return kept


if __name__ == "__main__":
    main()
