"""Trains entities and classes together, here and in the package gliner2, from the same untrained checkpoint.

Both sides have the same texts, steps, batches, learning rates and clipping; each has its own sampling of labels and its
own losses. Both trained checkpoints are scored by this project. The data are voice commands of Snips: slots are entities,
the intent of a text is its class.

    python benchmarks/gliner2_training.py --data PATH/snips --output result.json

The folder holds test.jsonl: 100 texts of each intent, in the order of `INTENTS`. Every fifth is held out. Without
``--backbone`` the text encoder is MiniLM; any folder of a Hugging Face encoder will do.
"""

from __future__ import annotations

import argparse
import json
import random
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
    parser.add_argument("--sides", nargs="+", default=["ours", "gliner2"], choices=["ours", "gliner2"])
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    train, test, labels = snips(args.data / "test.jsonl", args.labels)
    result: dict[str, Any] = {"steps": args.steps, "batch": args.batch, "lr": args.lr, "labels": labels}
    with tempfile.TemporaryDirectory() as folder:
        start = untrained(args.backbone or minilm(), Path(folder) / "start", args.seed)
        for side in args.sides:
            before = time.process_time()
            run = run_ours if side == "ours" else run_gliner2
            trained = run(start, train, Path(folder) / side, args)
            result[side] = {"cpu_seconds": time.process_time() - before, **scored(trained, test, labels)}
            print(side, json.dumps(result[side]))
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


def run_ours(start: Path, train: list[dict], work: Path, args: argparse.Namespace) -> Path:
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


def scored(checkpoint: Path, test: list[dict], labels: list[str]) -> dict[str, float]:
    """Return the F1 of exact spans and the accuracy of intents of a checkpoint."""
    import spacy

    from gliner_pipe.data.readers import gliner2_json
    from gliner_pipe.evaluation.evaluate import evaluate_pipeline

    nlp = spacy.blank("en")
    settings = {"labels": labels, "classes": {"intent": list(INTENTS)}, "device": "cpu"}
    nlp.add_pipe("gliner", config={"model": str(checkpoint), **settings})
    scores = evaluate_pipeline(nlp, list(gliner2_json(test)(nlp)), metrics=["exact"])
    return {"f": scores["exact"]["micro"]["f"], "accuracy": scores["classes"]["all"]["accuracy"]}


if __name__ == "__main__":
    main()
